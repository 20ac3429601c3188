"""What a mistake costs: one line that names the value and the fix."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli import TINY


@pytest.mark.parametrize(
    "words, line",
    [
        ("trian", "no such command; nearest: train"),
        ("bake", "no such command; known: prepare, train, sample, evaluate, diagnose, reference, report"),
        ("report runs/digits", "runs/digits is no setting: every word is name=value"),
        ("train trainer=fsdp devices=1 dry_run=true", "trainer=fsdp shares the weights out: use devices=2 or more"),
        ("train bacth=3", "there is no setting bacth; nearest: batch"),
        ("train budget.imagess=3", "there is no setting budget.imagess; nearest: budget.images"),
        ("train network=unet_cifr", "network=unet_cifr is not known; nearest: unet_cifar"),
        ("train timesteps/draw=stratifed", "timesteps/draw=stratifed is not known; nearest: stratified"),
        ("train -m prediction=v,epss", "prediction=epss is not known; nearest: eps"),
        ("train batch=65 accumulation=4", "nearest: 64, 68"),
        ("train batch=0", "batch=0 must be a whole number, at least 1"),
        ("train precision=fp8", "precision=fp8 is not known: use fp32 or bf16"),
        ("train budget.images=null", "give budget.images, budget.minutes or budget.money"),
        ("train budget.images=-5", "budget.images=-5 must be above 0"),
        ("train data=images", "data.path must be given"),
        ("train data=images data.path=nowhere", "data.path=nowhere does not exist"),
        ("train experiment=digits network.head_width=7", "head_width=7 does not divide the 64 channels"),
        ("train ema.keep=power_5", "nearest: power_05"),
        ("train resume=perhaps", "give auto, never or must"),
        ("train resume=must", "holds no checkpoint"),
        ("train sweep=small_batch_timesteps", "sweep=small_batch_timesteps is many runs: add -m"),
        ("train timesteps=slots timesteps.correction=abc", "timesteps.correction=abc must be a number"),
        ("train timesteps=slots timesteps.proposal.curve=3", "timesteps.proposal.curve=3 must be text or null"),
        ("train timesteps=easy_to_hard timesteps.density.clusters=2.5", "clusters=2.5 must be a whole number"),
        ("train weighting=uncertainty_binned weighting.low=nan", "weighting.low=nan is not a number"),
        ("train network.attention_at=8", "network.attention_at=8 must be a list, each entry a whole number"),
        ("train budget.images=many", "budget.images=many must be a whole number or null"),
        ("train drop_condition=null", "drop_condition=null must be a number"),
        ("train seed=abc", "seed=abc must be a whole number, at least 0"),
        ("train data.batch=16", "data.batch=16 follows batch=64: set batch alone"),
        ("train clip_norm=-1", "must be above 0, or null"),
        ("train optimizer.lr=-1", "lr=-1 must be above 0"),
        ("train lr_schedule.warmup_images=-5", "must be at least 0"),
        ("train schedule=ddpm_linear schedule.steps=0", "must be at least 1"),
        ("train schedule=ddpm_linear schedule.steps=100 sampler=ancestral", "visits a noise level twice"),
        ("train network.dropout=2", "lie in [0, 1)"),
        ("train validation.count=0", "validation.count=0 must be at least 1"),
        ("train samples.rows=0", "samples.rows=0 must be at least 1"),
        ("train check_finite_every_steps=0", "must be at least 1"),
        ("train sampler.guidance=2 sampler.guidance_interval=[1]", "needs two ends of log-SNR"),
        ("train timesteps=window timesteps.density.high=1.5", "needs 0 <= low < high <= 1"),
        ("train timesteps=window timesteps.density.high=0.0002 schedule=ddpm_linear", "T=1000: set high to the"),
        ("train timesteps=clts timesteps.density.length=1.5", "length=1.5 is a share of the budget"),
        ("train timesteps=clts_logsnr timesteps.density.mean=20", "must lie in the schedule's log-SNR, -15 to 15"),
        ("train timesteps=speed schedule=sigmoid", "threshold=0.0001 must lie above the last"),
        ("train timesteps=u_shaped timesteps.density.depth=1", "depth=1 must lie between 0"),
        ("train batch=32 per_image=3", "per_image=3 does not divide batch=32; nearest: 2, 4"),
        ("train data.per_image=2", "data.per_image=2 follows per_image=1: set that alone"),
        ("train timesteps=logit_normal timesteps.density.shift=0", "must lie above 0; 1 shifts nothing"),
        ("train timesteps=toward_data timesteps.density.power=-2", "must lie above -1; 0 is even in t"),
        ("train sampler/grid=respaced", "sampler/grid=respaced needs a table, and Cosine is none"),
        ("train prediction=eps_learned_variance", "needs a table, not Cosine: schedule=ddpm_linear or iddpm_cosine"),
        ("train data=shapes data.flip=true", "a mirrored scene would belie its caption"),
        ("train data=shapes data.size=8", "data.size=8: shapes can be told apart from 16 pixels on"),
        ("train data=imagenet data.path=nowhere", "must hold train/<synset>/*.JPEG and val/<synset>/*.JPEG"),
        ("train data=store data.path=nowhere", "nowhere is no store: make one with `smallbatch prepare"),
        ("train data=cifar10 data.official=false", "copy it again"),
        ("train data=shapes data.workers=-1", "must be at least 0"),
        ("train trainer=gpu", "trainer=gpu, but no GPU is at hand: use trainer=cpu"),
        ("train trainer=fsdp", "trainer=fsdp shares the weights out: use devices=2 or more, or trainer=auto"),
        ("train trainer=fsdp devices=2 compile=true", "trainer=fsdp cannot do with compile=true: use compile=false"),
        ("train trainer=fsdp devices=2 channels_last=true", "trainer=fsdp cannot do with channels_last=true"),
        ("train trainer=fsdp devices=3", "batch=64 does not divide over 3 processes x 1 micro-batch; nearest: 63, 66"),
        ("train schedule=iddpm_cosine schedule.steps=4000 clock=steps", "clock.steps=1000, but schedule.steps=4000"),
        ("train weighting=min_snr weighting.gamma=-1", "weighting: gamma=-1 must be above 0"),
        ("train weighting=soft_min_snr weighting.gamma=0", "weighting: gamma=0 must be above 0"),
        ("train weighting=edm weighting.data_std=0", "weighting: data_std=0 must be above 0"),
        ("train prediction=edm prediction.data_std=0", "prediction: data_std=0 must be above 0"),
        ("train timesteps=lognormal timesteps.density.std=0", "timesteps: std=0 must be above 0"),
        ("train timesteps=slots timesteps.proposal.curve=nowhere.csv", "nowhere.csv cannot be read (No such file"),
        ("train timesteps=slots timesteps.proposal.slots=0", "it follows timesteps.proposal.slots"),
        ("train timesteps=root_loss timesteps.proposal.uniform=0", "uniform=0 must lie above 0, so that no time dies"),
        ("train schedule=iddpm_cosine schedule.steps=50 timesteps=importance", "use timesteps.proposal.steps=50"),
        ("train schedule=ddpm_linear schedule.steps=50 timesteps=slots_paper", "slot 2 of 10 would hold no time of"),
        ("train curve.points=0", "curve.points=0 must be at least 1, or null for no loss curve"),
        ("train sampler=heun sampler.grid.rho=0", "grid: rho=0 must be above 0"),
        ("train sampler=heun sampler.grid.sigma_min=90", "sigma_min=90 must lie below sigma_max=80.0"),
        ("train sampler=ddim sampler.solver.eta=2", "eta=2 must lie between 0 (deterministic) and 1"),
        ("train prediction=v prediction/teach=native", "prediction/teach is no part of this prediction"),
        ("train prediction=mixed_min_raw prediction.teach.per=pixel", "teach.per=pixel is not known: use image or"),
        ("train lr_schedule=mdlrc optimizer.beta1=0", "beta1=0 must lie between 0 and 1, so that there is momentum"),
        ("train lr_schedule=linear lr_schedule.floor=2", "floor=2 is a share of the rate and must lie in 0..1"),
        ("train weighting=uncertainty weighting.features=0", "weighting: features=0 must be at least 1"),
        ("train weighting=uncertainty_binned weighting.bins=1", "weighting: bins=1 must be at least 2"),
        ("train weighting=uncertainty_binned weighting.prior_rows=0", "prior_rows=0 must be above 0"),
        ("train weighting=uncertainty weighting@weighting.base=uncertainty_binned", "choose a fixed weight"),
        ("train noise_condition=0.1", "noise_condition=0.1 needs small images: give data.low_size"),
        ("diagnose diagnostic=coefficients out=/dev/null/x", "/dev/null is no folder: choose another out"),
        ("diagnose diagnostic=[coefficients,colour] data=folder out=x", "data=folder is not known"),
        ("diagnose diagnostic=[coefficients,color] out=x", "diagnostic=color is not known; nearest: colour"),
        ("chain experiment=rethinking_fig1 -m", "a chain trains one run a stage: leave out -m"),
        ("prepare out=x", "data must be given: data=imagenet"),
        ("prepare data=digits", "out must be given: out=..."),
        ("prepare data=images data.path=nowhere out=x", "data.path=nowhere does not exist"),
        ("prepare data=shapes out=x", "are free there"),
        ("prepare data=shapes out=x.zip", "are free there"),
        ("prepare data=digits out=x.zip part=test", "part=test: a zip holds one part: train or held_out"),
        ("train root=/proc/nowhere", "/proc/nowhere"),
        ("sample run=nowhere n=abc", "n=abc must be a whole number"),
        ("sample run=nowhere guidance=null", "guidance=None must be a number"),
        ("sample run=nowhere out=a.png", "must end in .npz"),
        ("sample", "run must be given"),
        ("sample run=nowhere", "run=nowhere holds no model.json"),
        ("sample run=nowhere n=0", "n=0 must be a whole number, at least 1"),
    ],
)
def test_a_mistake_is_named_with_its_fix(words, line, refused):
    assert line in refused(*words.split())


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_decoded_while_training_is_one_line(workers, refused):
    noise = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        path = Path("photos") / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
        path.write_bytes(path.read_bytes()[:-200])  # the head is whole
    words = ["data=images", "data.path=photos", "data.size=8", "data.memory_gib=0", f"data.workers={workers}"]
    line = refused("train", *TINY, *words)
    assert "cannot decode" in line and ".jpg: repair or remove it" in line


@pytest.mark.parametrize("trainer", ["ddp", "fsdp", "gpu"])
def test_more_devices_than_gpus_are_refused(trainer, refused, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    line = refused("train", f"trainer={trainer}", "devices=4")
    assert "devices=4, but 3 GPUs are at hand: use devices=3, or trainer.accelerator=cpu" in line


def test_sampling_mistakes_are_named(smallbatch, refused):
    smallbatch("train", *TINY, "schedule=ddpm_linear")
    (run,) = Path("runs/digits").iterdir()
    assert "set ema.snapshot_every_images in training" in refused("sample", f"run={run}", "n=2", "ema_width=0.1")
    assert "did you mean" in refused("sample", "run=runs")
    assert "give balanced, random, none, or a class from 0 to 9" in refused("sample", f"run={run}", "labels=10")
    assert "guidance=3 needs labels" in refused("sample", f"run={run}", "n=2", "labels=none", "guidance=3")
    assert "visits a noise level twice" in refused("sample", f"run={run}", "n=2", "steps=2000")
    assert "resume=auto goes on with it" in refused("train", *TINY, "schedule=ddpm_linear", "resume=never")


def test_a_logger_without_its_package_names_the_extra(smallbatch, refused, monkeypatch):
    def absent(self, *args, **kwargs):
        raise ModuleNotFoundError("No module named 'wandb'")

    monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger.__init__", absent)
    assert "pip install 'smallbatch[wandb]'" in refused("train", *TINY, "logger=wandb")


def test_a_damaged_model_is_named(trained, refused):
    run = trained(*TINY)
    weights = run / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "model.safetensors cannot be read" in refused("sample", f"run={run}")
    (run / "model.json").write_text('{"denoiser": ')
    assert "model.json cannot be read" in refused("sample", f"run={run}")


def test_checkpoints_that_cannot_be_read_are_not_silently_replaced(trained, refused):
    folder = trained(*TINY)
    for checkpoint in folder.glob("checkpoints/*.ckpt"):
        checkpoint.write_bytes(b"PK")
    record = (folder / "metrics.jsonl").read_text()
    for _ in range(2):
        assert "no checkpoint in" in refused("train", *TINY)
    assert len(list(folder.glob("checkpoints/*.ckpt"))) == 2
    assert (folder / "metrics.jsonl").read_text() == record


def test_an_unconditional_network_is_given_no_labels(smallbatch, refused):
    smallbatch("train", *TINY, "network.class_conditional=false")
    (run,) = Path("runs/digits").iterdir()
    smallbatch("sample", f"run={run}", "n=4", "steps=2", "out=a.npz")
    assert "arr_1" not in np.load("a.npz")
    assert "knows no classes" in refused("sample", f"run={run}", "labels=3")


def test_numbers_that_are_not_finite_stop_the_run_and_keep_the_last_checkpoint(smallbatch, refused, monkeypatch):
    from smallbatch.weightings import Plain

    plain = Plain.forward

    def poisoned(self, terms, level):
        bad = poisoned.calls >= 7
        poisoned.calls += 1
        return plain(self, terms, level) * torch.where(
            level.logsnr.flatten(1).abs() < 1, torch.nan if bad else 1.0, 1.0
        )

    poisoned.calls = 0
    monkeypatch.setattr(Plain, "forward", poisoned)
    line = refused("train", *TINY, "timesteps=stratified")
    assert "not finite at optimizer step 8" in line and ("-2..+0" in line or "+0..+2" in line)
    (checkpoint,) = Path("runs").glob("*/*/checkpoints/last.ckpt")
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["global_step"] == 5 and all(value.isfinite().all() for value in saved["state_dict"].values())


def test_ctrl_c_before_training_is_one_line(smallbatch, monkeypatch, capsys):
    def interrupted(command):
        raise KeyboardInterrupt

    monkeypatch.setattr("smallbatch.cli.main.command_file", interrupted)
    with pytest.raises(SystemExit) as stopped:
        smallbatch("train", *TINY)
    assert stopped.value.code == 130 and capsys.readouterr().err == "smallbatch train: stopped\n"
