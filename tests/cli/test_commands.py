"""What every command does with good words."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from smallbatch.cli import runs
from smallbatch.recorded import read
from tests.cli import TINY


def only_run(root):
    (folder,) = Path(root).glob("*/*/model.json")
    return folder.parent


def test_help_names_every_command(smallbatch):
    for command in ("quickstart", "train", "sample"):
        assert f"smallbatch {command}" in smallbatch("--help")


@pytest.mark.parametrize("command", ["train", "sample"])
def test_a_commands_help_shows_examples_choices_and_settings(command, smallbatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        smallbatch(command, "--help")
    shown = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "Examples" in shown and "ancestral, ddim, dpmpp_2m, heun" in shown and "steps:" in shown


@pytest.mark.parametrize("words", ["--help", "train predicton=v", "report runs=nowhere"])
def test_what_needs_no_torch_does_not_wait_for_it(words, tmp_path):
    starts = f"import sys; sys.argv = ['smallbatch', *{words.split()}]; from smallbatch.cli.main import main"
    code = f"{starts}\ntry: main()\nfinally: print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True).stdout
    assert said.endswith("False\n")


def test_a_run_leaves_its_record_pictures_and_weights(smallbatch):
    said = smallbatch("train", *TINY)
    folder = only_run("runs")
    assert str(folder) in said and folder.parent.name == "digits"
    rows = read(folder)
    assert {row["images"] for row in rows} == {160, 320}
    names = {row["name"] for row in rows}
    assert {"train/loss", "train/grad_norm", "train/lr", "val/x0_mse", "speed/images_per_second"} <= names
    assert sum(row["n"] for row in rows if row["name"] == "train/loss" and "logsnr" in row) == 320
    drawn = [folder / f"{name}.png" for name in ("loss_per_logsnr", "loss_over_images", "timesteps_over_images")]
    for picture in (*sorted(folder.glob("samples/*.png")), *drawn):
        assert np.asarray(Image.open(picture)).std() > 1
    assert len(list(folder.glob("samples/*.png"))) == 2
    torch.load(folder / "checkpoints/last.ckpt", weights_only=True)


def test_the_same_words_again_do_nothing_and_other_words_get_another_folder(smallbatch, trained):
    folder = trained(*TINY)
    before = (folder / "metrics.jsonl").read_bytes()
    assert "already trained" in smallbatch("train", *TINY, "log.every_images=80")
    assert (folder / "metrics.jsonl").read_bytes() == before
    smallbatch("train", *TINY, "seed=1")
    assert len(list(Path("runs/digits").iterdir())) == 2


def test_a_sweep_goes_on_after_a_job_that_fails(smallbatch, refused):
    line = refused("train", "-m", *TINY, "hydra/launcher=basic", "accumulation=5,2")
    assert "nearest: 30, 35" in line
    assert len(list(Path("runs/digits").iterdir())) == 1


def test_a_run_of_minutes_stops_and_knows_its_share(smallbatch):
    smallbatch("train", *TINY, "budget.images=null", "budget.minutes=0.03", "samples.every_images=null")
    rows = read(only_run("runs"))
    assert rows[-1]["images"] % 32 == 0 and rows[-1]["seconds"] >= 1.8


@pytest.mark.parametrize(
    "words",
    [
        ["precision=bf16", "ema=classic"],
        ["channels_last=true", "ema.snapshot_every_images=160"],
        ["ema=none", "lr_schedule=inverse_sqrt", "accumulation=4"],
        ["schedule=edm", "prediction=edm", "weighting=edm", "timesteps=lognormal", "data_std=0.5", "sampler=heun"],
        ["schedule=ddpm_linear", "prediction=eps", "clock=steps", "sampler=ancestral", "sampler.steps=10"],
        ["schedule=rectified_flow", "prediction=flow", "clock=logsnr", "timesteps=low_discrepancy"],
    ],
    ids=" ".join,
)
def test_other_recipes_train_and_sample(words, smallbatch):
    smallbatch("train", *TINY, *words)
    folder = only_run("runs")
    smallbatch("sample", f"run={folder}", "n=4", "steps=3", "out=few.npz")
    assert np.load("few.npz")["arr_0"].shape == (4, 8, 8, 1)


@pytest.mark.parametrize("logger, mirror", [("csv", "csv/*/metrics.csv"), ("tensorboard", "tensorboard/*/events*")])
def test_a_logger_mirrors_the_record(logger, mirror, smallbatch):
    smallbatch("train", *TINY, f"logger={logger}")
    (file,) = only_run("runs").glob(mirror)
    assert b"val/x0_mse" in file.read_bytes()


def test_samples_are_in_guided_diffusions_format_and_do_not_depend_on_the_batch(smallbatch, trained):
    run = f"run={trained(*TINY)}"
    smallbatch("sample", run, "n=25", "guidance=1.5", "steps=5", "batch=25", "out=a.npz")
    smallbatch("sample", run, "n=12", "guidance=1.5", "steps=5", "batch=5", "out=b.npz")
    a, b = np.load("a.npz"), np.load("b.npz")
    assert a["arr_0"].dtype == np.uint8 and a["arr_0"].shape == (25, 8, 8, 1)
    assert a["arr_1"].tolist() == [i % 10 for i in range(25)]
    assert np.abs(a["arr_0"][:12].astype(int) - b["arr_0"]).max() <= 1  # float32 sums in another order
    assert Image.open("a.png").width >= 600


@pytest.mark.parametrize("labels, expected", [("3", {3}), ("random", None), ("none", None)])
def test_labels_can_be_chosen(labels, expected, smallbatch, trained):
    smallbatch("sample", f"run={trained(*TINY)}", "n=8", "steps=2", f"labels={labels}", "out=a.npz")
    saved = np.load("a.npz")
    assert ("arr_1" in saved) == (labels != "none")
    assert expected is None or set(saved["arr_1"].tolist()) == expected


def test_a_denoiser_comes_back_from_its_folder_with_the_averaged_weights(trained):
    folder = trained(*TINY)
    denoiser = runs.load(folder)
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    average = saved["callbacks"]["EMA"]["power_05"]
    for name, value in denoiser.network.named_parameters():
        assert torch.equal(value, average[name])
    assert json.loads((folder / "model.json").read_text())["images"] == 320


def test_another_width_of_average_is_rebuilt_from_snapshots(smallbatch):
    smallbatch("train", *TINY, "ema.snapshot_every_images=32")
    folder = only_run("runs")
    said = smallbatch("sample", f"run={folder}", "n=2", "steps=2", "ema_width=0.1", "out=wider.npz")
    assert "rebuilt from snapshots; its profile is off by 0.0%" in said
    kept = dict(runs.load(folder).network.named_parameters())
    averages = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["callbacks"]["EMA"]
    for width, expected in ((0.05, kept), (0.1, averages["power_10"])):
        denoiser = runs.load(folder)
        runs.reaverage(denoiser, folder, width)
        for name, value in denoiser.network.named_parameters():
            torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-6)  # float16 snapshots


def test_a_dry_run_plans_and_trains_nothing(smallbatch):
    smallbatch("train", *TINY, "dry_run=true", "out=plan.json", "batch=64")
    plan = json.loads(Path("plan.json").read_text())
    assert plan["steps"] == 5 and plan["parameters"] > 0 and not Path("runs").exists()
    smallbatch("train", *TINY, "batch=64")
    assert Path(plan["run_folder"]).is_dir()


def test_a_dry_run_reports_a_missing_path_without_refusing(smallbatch):
    words = ["data=images", "data.path=nowhere", "data.size=32", "network=unet_cifar", "dry_run=true", "out=plan.json"]
    assert "nowhere does not exist" in smallbatch("train", *words)
    assert json.loads(Path("plan.json").read_text())["parameters"] == 52_542_979  # iDDPM's, with one output map


def test_images_in_a_zip_train(smallbatch, tmp_path):
    import zipfile

    rng = np.random.default_rng(0)
    with zipfile.ZipFile("photos.zip", "w") as archive:
        for i in range(40):
            with archive.open(f"{'ab'[i % 2]}/{i}.jpg", "w") as file:
                Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(file, "JPEG")
    small = ["network=unet_cifar", "network.width=16", "network.blocks=1", "network.multipliers=[1,1]"]
    small += ["network.attention_at=[]", "data=images", "data.path=photos.zip", "data.size=32"]
    tiny = [word for word in TINY if not word.startswith(("experiment", "network", "data"))]
    smallbatch("train", *small, *tiny, "network.class_conditional=true")
    assert json.loads((only_run("runs") / "model.json").read_text())["class_names"] == ["a", "b"]
