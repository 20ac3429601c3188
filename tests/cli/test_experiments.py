"""The published recipes: their plans have the published numbers, and each starts at a reduced width."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smallbatch.data.imagenet import classes
from tests.data.test_cifar10 import write as write_cifar10

# (parameters in millions, steps, images in millions, forward GMACs an image), as published
PUBLISHED = {
    "improved_diffusion_cifar10": (52.546, 500_000, 64, None),
    "guided_diffusion_imagenet64": (295.904, 540_000, 1105.92, 109.7),
    "guided_diffusion_imagenet256": (553.838, 1_980_000, 506.88, None),
    "cifar10_one_gpu": (35.746, 93_750, 12, None),  # DDPM's network has 35.7
    "imagenet_sr_64_256": (311.796, 500_000, 128, None),
    "cifar10_sr_8_32": (35.750, 62_500, 8, None),  # DDPM's network and the stem of three more channels
    "edm_cifar10": (57.118, 390_625, 200, 22.1),  # DDPM++ has 55.7 and 21.2: our blocks, its widths
}
OURS = ("digits", "digits_sr", "microdit_shapes_text")
EXPERIMENTS = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "experiment").glob("*.yaml"))
# for 16 pixels on a CPU, in seconds
SMALL = ["trainer=cpu", "batch=4", "budget.images=8", "data_std=0.5"]
SMALL += ["curve.points=4", "validation.count=4", "samples.rows=1", "sampler.steps=2"]
UNET = ["network.width=32", "network.blocks=1", "network.multipliers=[1,1]"]
UNET += ["network.attention_at=[]", "network.head_width=null", "network.heads=4"]
MICRODIT = ["network.width=32", "network.depth=3", "network.mixer_width=32", "network.multiple=8"]


@pytest.fixture
def made(tmp_path):
    """Small data in the official formats."""
    write_cifar10(tmp_path / "cifar10")
    for part in ("train", "val"):
        for number, synset in enumerate(list(classes())[:3]):
            folder = tmp_path / "ilsvrc" / part / synset
            folder.mkdir(parents=True)
            for k in range(3):
                Image.fromarray(np.full((70, 80, 3), 60 * number + k, np.uint8)).save(folder / f"{k}.JPEG")
    return {
        "cifar10": [f"data.path={tmp_path / 'cifar10'}", "data.official=false"],
        "imagenet": [f"data.path={tmp_path / 'ilsvrc'}"],
        "digits": [],
        "shapes": [],
    }


def words(experiment, made):
    (data,) = (name for name in made if name in experiment)
    return [f"experiment={experiment}", *made[data]]


def test_every_experiment_is_held_against_what_was_published():
    assert sorted(PUBLISHED) == sorted({*EXPERIMENTS} - {*OURS})


@pytest.mark.parametrize("experiment", PUBLISHED)
def test_the_plan_has_the_published_numbers(experiment, made, smallbatch):
    smallbatch("train", *words(experiment, made), "trainer=cpu", "dry_run=true", "out=plan.json")
    plan = json.loads(Path("plan.json").read_text())
    parameters, steps, images, gmacs = PUBLISHED[experiment]
    assert round(plan["parameters"] / 1e6, 3) == parameters
    assert (plan["steps"], plan["images"]) == (steps, images * 1e6)
    assert plan["flops"] == plan["flops_per_image"] * plan["images"]
    assert gmacs is None or abs(plan["flops_per_image"] / 6e9 / gmacs - 1) < 0.005


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_starts_on_a_cpu_at_a_reduced_width(experiment, made, smallbatch):
    size = ["data.size=16"] if "imagenet" in experiment or experiment == "digits" else []
    size += ["data.low_size=4"] if experiment == "imagenet_sr_64_256" else []
    network = MICRODIT if "microdit" in experiment else UNET
    out = smallbatch("train", *words(experiment, made), *SMALL, *network, *size)
    (run,) = Path("runs", experiment).iterdir()
    assert (run / "model.safetensors").exists() and (run / "samples").exists() and str(run) in out


def test_a_plan_needs_no_data(smallbatch):
    experiment = "experiment=guided_diffusion_imagenet64"
    assert "295,904,454" in smallbatch("train", experiment, "data.path=nowhere", "dry_run=true")
