"""Every leaf of every config group builds what it names."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from smallbatch.cli.building import from_config
from smallbatch.cli.chain import stages
from smallbatch.cli.naming import run_id
from smallbatch.denoiser import Denoiser
from smallbatch.diagnostics.diagnostic import Diagnostic
from smallbatch.latents.vae import Vae
from smallbatch.notation import ImageSpec
from smallbatch.sampler import Sampler
from tests import leaves

CONF = Path(__file__).parents[1] / "conf"
LEAVES = {
    str(folder.relative_to(CONF)): sorted(f.stem for f in folder.glob("*.yaml"))
    for folder in sorted({f.parent for f in CONF.rglob("*.yaml")} - {CONF})
}
ELSEWHERE = ("chain", "diagnostic", "latents", "model")  # not for `train`
CHOICES = [f"{group}={leaf}" for group, names in LEAVES.items() for leaf in names if group not in ELSEWHERE]
SIZES = {"network=unet": 32, "network=unet_cifar": 32}
SIZES |= {f"network=unet_imagenet{size}": size for size in (64, 128, 256, 512)}
SIZES |= {"network=upsampler_64_256": 256, "network=upsampler_128_512": 512}
SIZES |= {f"experiment=guided_diffusion_imagenet{size}": size for size in (64, 256)}
SIZES |= {f"network=unet_{name}_cifar": 32 for name in ("ddpm", "edm")}
SIZES |= {f"sweep=small_batch_{what}": 8 for what in ("predictions", "timesteps")}
SIZES |= {"experiment=imagenet_sr_64_256": 256}
NEEDS = {f"data={name}": ["data.path=nowhere", "data.size=32"] for name in ("images", "imagenet", "store")}
NEEDS |= {f"experiment=guided_diffusion_imagenet{size}": ["data.path=nowhere"] for size in (64, 256)}
NEEDS |= {"experiment=imagenet_sr_64_256": ["data.path=nowhere"]}
NEEDS |= {"data=captions": ["data.path=nowhere", "data.size=32"], "data=shards": ["data.path=nowhere"]}
NEEDS |= {f"experiment=microdit_stage{number}": ["data.path=nowhere"] for number in (1, 2, 3, 4)}
NEEDS |= {"data=mixture": ["+data@data.sets.made=shapes", "+data.weights={made: 1}"]}
NEEDS |= {"prediction=eps_learned_variance": ["schedule=ddpm_linear"]}
NEEDS |= {f"prediction/teach={teach}": ["prediction=mixed_blend"] for teach in LEAVES["prediction/teach"]}


def config(*overrides, name="train"):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, list(overrides))


@pytest.mark.parametrize("choice", CHOICES)
def test_a_leaf_builds(choice):
    composed = config(choice, *NEEDS.get(choice, []))
    run = instantiate(composed.run, _convert_="all")
    size = SIZES.get(choice, 16)
    with torch.device("meta"):
        denoiser = run["denoiser"](spec=ImageSpec(3, size, 10))
        module = run["module"](denoiser=denoiser)
    assert isinstance(denoiser, Denoiser) and module.configure_optimizers().param_groups
    order = [*run["callbacks"]]
    assert order[0] == "budget" and order[-2:] == ["checkpoint", "metrics"]
    assert {"losses", "heads", "validation"} < set(order[: order.index("pictures")])


@pytest.mark.parametrize("choice", [c for c in CHOICES if c.startswith("sampler")])
def test_a_sampler_leaf_builds_for_the_sample_command(choice):
    sampler = instantiate(
        config(choice, "run=somewhere", "steps=7", "guidance=2", name="sample").sampler, _convert_="all"
    )
    assert isinstance(sampler, Sampler) and (sampler.steps, sampler.guidance) == (7, 2)


@pytest.mark.parametrize("name", LEAVES["diagnostic"])
def test_a_diagnostic_leaf_builds_under_its_own_name(name):
    built = from_config(config(f"diagnostic={name}", "run=somewhere", name="diagnose").diagnostics)
    assert list(built) == [name] and isinstance(built[name], Diagnostic)


@pytest.mark.parametrize("name, made", {"none": None, "vae": Vae}.items())
def test_a_latents_leaf_builds_for_the_prepare_command(name, made):
    assert sorted(LEAVES["latents"]) == ["none", "vae"]
    node = config(f"latents={name}", "data=digits", "out=somewhere", name="prepare").latents
    assert node is made is None or isinstance(from_config(node, "latents"), made)


@pytest.mark.parametrize("name", LEAVES["chain"])
def test_the_commands_of_a_chain_are_such_as_their_commands_know(name):
    folders = {}
    for stage, (command, *words) in stages(CONF / "chain" / f"{name}.yaml").items():
        made = config(*(word.format_map(folders) for word in words), name=command)
        folders[stage] = Path("runs", made.get("name", "."), stage)


@pytest.mark.parametrize("choice", [c for c in CHOICES if c.startswith("trainer") and c != "trainer=gpu"])
def test_a_trainer_leaf_makes_a_trainer(choice, tmp_path):
    trainer = instantiate(config(choice, "precision=bf16", "accumulation=2").run, _convert_="all")["trainer"]
    made = trainer(default_root_dir=tmp_path, logger=False)
    assert made.precision == "bf16-mixed" and made.accumulate_grad_batches == 2


@pytest.mark.parametrize(
    "words, expected",
    [
        ([], ("fp32", False, False)),
        (["trainer=ddp"], ("fp32", False, False)),
        (["trainer=gpu"], ("bf16", True, True)),
        (["compile=false", "trainer=gpu"], ("bf16", False, True)),
        (["experiment=digits", "trainer=gpu", "precision=fp32"], ("fp32", True, True)),
    ],
)
def test_a_trainer_brings_what_its_device_likes_and_the_command_line_wins(words, expected):
    composed = config(*words)
    assert (composed.precision, composed.compile, composed.channels_last) == expected


def test_the_run_id_depends_on_what_a_trainer_brings_and_not_on_the_trainer():
    spelled_out = config("trainer=cpu", "precision=bf16", "compile=true", "channels_last=true")
    assert run_id(config("trainer=gpu"), "") == run_id(spelled_out, "") != run_id(config("trainer=cpu"), "")
    for several in (["trainer=ddp", "devices=2", "nodes=2"], ["trainer=fsdp", "devices=4"]):
        assert run_id(config("trainer=auto"), "") == run_id(config(*several), "")


@pytest.mark.parametrize("group", ["schedule", "prediction", "weighting", "timesteps/draw"])
def test_the_lists_of_leaves_that_other_tests_run_over_are_complete(group):
    elsewhere = {"timesteps/draw": leaves.DRAWS, "prediction": leaves.PREDICTIONS | leaves.VARIANCES | leaves.MIXTURES}
    listed = elsewhere.get(group) or getattr(leaves, f"{group.upper()}S")
    assert sorted(listed) == LEAVES[group]
    for name, leaf in listed.items():
        node = config(f"{group}={name}", *NEEDS.get(f"{group}={name}", []))
        built = instantiate(OmegaConf.select(node, group.replace("/", ".")), _convert_="all")
        assert type(built) is type(leaf)


@pytest.mark.parametrize("name", LEAVES["experiment"])
def test_an_experiment_names_its_run_folder_after_itself(name):
    assert config(f"experiment={name}").name == name


SWITCHED = {
    "digits": ["experiment=digits"],
    "cifar10": ["data=cifar10", "network=unet_cifar", "trainer=gpu", "batch=128", "budget.images=4000000"],
}


@pytest.mark.parametrize("where", SWITCHED)
@pytest.mark.parametrize("sweep", ["predictions_by_timesteps", "small_batch", "learning_rates"])
def test_a_sweep_runs_on_digits_and_on_cifar10(sweep, where):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        whole = compose("train", [f"sweep={sweep}", *SWITCHED[where]], return_hydra_config=True)
    params = {name: values.split(",") for name, values in whole.hydra.sweeper.params.items()}
    for which in (0, -1):
        words = {word.partition("=")[0]: word for word in SWITCHED[where]}
        words |= {name: f"{name}={values[which]}" for name, values in params.items()}
        composed = config(f"sweep={sweep}", *words.values())
        assert composed.name == sweep and composed.data._target_.lower().endswith(where)
        run = instantiate(composed.run, _convert_="all")
        with torch.device("meta"):
            denoiser = run["denoiser"](spec=ImageSpec(3, {"digits": 16, "cifar10": 32}[where], 10))
            assert run["module"](denoiser=denoiser).configure_optimizers().param_groups
