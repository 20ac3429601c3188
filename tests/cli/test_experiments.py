"""The published recipes: their plans have the published numbers, and each starts at a reduced width."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from smallbatch.data.captions import Captions
from smallbatch.data.encoding import Encoders, Work, encode
from smallbatch.data.imagenet import classes
from smallbatch.data.stamp import SHARDS, STAMP
from smallbatch.latents.vae import Vae
from smallbatch.notation import ImageSpec
from smallbatch.text.clip import Clip
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
    "microdit_stage1": (1165.442, 250_000, 512, 45.6),  # by its published widths, without what reads the text
    "microdit_stage2": (1165.442, 30_000, 61.44, 117.4),
    "microdit_stage3": (1165.442, 50_000, 102.4, 176.0),
    "microdit_stage4": (1165.442, 5_000, 10.24, 497.6),
}
STAGES = [name for name in PUBLISHED if name.startswith("microdit_stage")]
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
        "microdit_stage": [],
    }


def words(experiment, made):
    (data,) = (name for name in made if name in experiment)
    return [f"experiment={experiment}", *made[data]]


def described(folder, size):
    """What a store of the published latents and text features says of itself, and the encoder that it names."""
    from transformers import CLIPTextConfig

    CLIPTextConfig(hidden_size=1024, max_position_embeddings=77).save_pretrained(folder / "clip")
    spec = ImageSpec(4, size, 0, latents=True)._asdict()
    text = Clip(str(folder / "clip"), length=77, pad=0).described()
    stamp = {"format": SHARDS, "spec": spec, "class_names": [], "counts": {"train": 1, "held_out": 1}, "made_with": {}}
    stamp |= {"made_from": "", "latents": {}, "text": text, "storage": "float16", "captions": True, "rows": 1}
    (folder / STAMP).write_text(json.dumps(stamp))
    return [f"data.path={folder}", f"text.name={folder / 'clip'}"]


@pytest.fixture(scope="session")
def encoded(tmp_path_factory):
    """A real store, small: latents of 16 pixels and features of 12 tokens."""
    from tests.latents.models import save_vae
    from tests.text.models import save_clip

    folder = tmp_path_factory.mktemp("encoded")
    save_clip(folder / "clip")
    save_vae(folder / "vae", scaling_factor=0.5)
    (folder / "photos").mkdir()
    for i in range(8):
        Image.fromarray(np.full((32, 32, 3), 30 * i, np.uint8)).save(folder / "photos" / f"{i}.png")
        (folder / "photos" / f"{i}.txt").write_text("a red cat")
    data = Captions(str(folder / "photos"), batch=4, seed=0, size=32, held_out=0.3)
    encoders = Encoders(Vae(str(folder / "vae")), Clip(str(folder / "clip"), length=12), "float16")
    encode(data, {}, encoders, folder / "store", 2**20, Work(0, 1, torch.device("cpu"), lambda: None, 4))
    text = [f"text.name={folder / 'clip'}", "text.length=12", "text.pad=null"]
    return [f"data.path={folder / 'store'}", *text, "precision=fp32", "devices=1", "accumulation=1"]


def test_every_experiment_is_held_against_what_was_published():
    assert sorted(PUBLISHED) == sorted({*EXPERIMENTS} - {*OURS})


@pytest.mark.parametrize("experiment", sorted({*PUBLISHED} - {*STAGES[1:3]}))  # of the four, the extremes: seconds each
def test_the_plan_has_the_published_numbers(experiment, made, smallbatch, tmp_path):
    named = words(experiment, made)
    if experiment in STAGES:
        named += ["devices=1", *described(tmp_path, 32 if experiment < "microdit_stage3" else 64)]
    smallbatch("train", *named, "trainer=cpu", "dry_run=true", "out=plan.json")
    plan = json.loads(Path("plan.json").read_text())
    parameters, steps, images, gmacs = PUBLISHED[experiment]
    assert round(plan["parameters"] / 1e6, 3) == parameters
    assert (plan["steps"], plan["images"]) == (steps, images * 1e6)
    assert plan["flops"] == plan["flops_per_image"] * plan["images"]
    more = plan["flops_per_image"] / 6e9 / gmacs - 1 if gmacs else 0
    assert 0 <= more < 0.04 if experiment in STAGES else abs(more) < 0.005


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_starts_on_a_cpu_at_a_reduced_width(experiment, made, smallbatch, encoded):
    size = ["data.size=16"] if "imagenet" in experiment or experiment == "digits" else []
    size += ["data.low_size=4"] if experiment == "imagenet_sr_64_256" else []
    network = MICRODIT if "microdit" in experiment else UNET
    size += ["network.head_width=8", "network.experts=4", *encoded] if experiment in STAGES else []
    out = smallbatch("train", *words(experiment, made), *SMALL, *network, *size)
    (run,) = Path("runs", experiment).iterdir()
    assert (run / "model.safetensors").exists() and (run / "samples").exists() and str(run) in out


def test_a_plan_needs_no_data(smallbatch):
    experiment = "experiment=guided_diffusion_imagenet64"
    assert "295,904,454" in smallbatch("train", experiment, "data.path=nowhere", "dry_run=true")
