"""Text to image by the commands: training with hidden patches, prompts, what samples show, another's weights."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smallbatch.recorded import read
from tests.cli import UNDRAWN

SMALL = [word for word in UNDRAWN if not word.startswith(("experiment", "network", "data"))]
SMALL += ["network.width=16", "network.depth=2", "network.head_width=8", "network.mixer_width=16", "network.decoder=1"]
SMALL += [
    "network.multiple=8",
    "network.experts=2",
    "experiment=microdit_shapes_text",
    "data.size=16",
    "budget.images=64",
]
TELLING = [*SMALL, "name=told", "validation.every_images=64", "samples.every_images=64"]
RED, SHAPE = "a large red circle on a grey background", "a small square"


@pytest.fixture(scope="session")
def judged(tmp_path_factory):
    """By two judges, of which one is a small CLIP."""
    from tests.text.models import save_whole_clip

    folder = tmp_path_factory.mktemp("clip")
    save_whole_clip(folder)
    return ["metrics.scores=[prompt_accuracy,clip_score]", f"metrics.clip.name={folder}"]


@pytest.fixture
def told(trained, judged):
    return trained(*TELLING, "masking=deferred", "masking.ratio=0.5", "metrics=prompts", "metrics.n=24", *judged)


def test_a_run_that_hears_captions_is_prompted_and_judged_by_what_it_shows(smallbatch, told, judged, refused):
    folder = told
    scores = {row["name"]: row["value"] for row in read(folder) if row["name"].startswith("metrics/")}
    assert scores["metrics/prompt_accuracy_real@24"] == 1 > scores["metrics/prompt_accuracy@24"]
    assert abs(scores["metrics/clip_score@24"] - scores["metrics/clip_score_real@24"]) > 1e-3
    words = [f"run={folder}", "steps=2", "guidance=2"]
    Path("prompts.txt").write_text(f"{RED}\n\n{SHAPE} of crimson\n")
    said = smallbatch("sample", *words, "prompts=prompts.txt", "n=5", "out=five.npz")
    assert "'crimson' was never seen: heard as unknown" in said and len(np.load("five.npz")["arr_0"]) == 5
    assert Path("five.txt").read_text().splitlines() == [RED, f"{SHAPE} of crimson"] * 2 + [RED]
    picture = Image.open("five.png")
    assert picture.width > 5 * 144 and picture.height > 144  # the prompts stand below
    smallbatch("sample", *words, f"prompts=[{RED},{RED}]", "noise=one", "out=same.npz")
    first, second = np.load("same.npz")["arr_0"]
    assert np.array_equal(first, second)
    asked = [f"prompts={RED}", "n=6", "metrics=prompts", "metrics.floor=false", *judged]
    assert "±" in smallbatch("evaluate", *words, *asked, "out=a.json")
    named = {score["name"]: score for score in json.loads(Path("a.json").read_text())["metrics"]}
    assert named["prompt_accuracy@6"]["n"] == named["prompt_colour@6"]["n"] == 6 and "prompt_relation@6" not in named
    assert named["clip_score@6"]["error"] > 0 and named["clip_score@6"]["extractor"].startswith("clip ")
    assert "'crimson' is not known" in refused("evaluate", *words, "prompts=a crimson circle", "n=6", "metrics=prompts")
    assert "prompts=nothing.txt" not in smallbatch("sample", *words, "n=2", "out=held_out.npz")
    assert len(Path("held_out.txt").read_text().splitlines()) == 2


def test_training_goes_on_from_the_weights_of_a_masked_run_with_its_words(smallbatch, told):
    smallbatch("train", *TELLING, "name=next", f"init_from={told}", "budget.images=32")
    (after,) = Path("runs/next").iterdir()
    known = [json.loads((run / "model.json").read_text())["text"] for run in (told, after)]
    assert known[0] == known[1] and known[0]["words"][:2] == ["a", "above"]


def test_captions_are_scored_by_their_images_in_inceptions_features(
    smallbatch, tmp_path, inception_file, judged, monkeypatch
):
    """By a kernel distance: FID takes seconds for its roots."""
    monkeypatch.setenv("SMALLBATCH_CACHE", "cache")
    Path("cats").mkdir()
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    for i, image in enumerate(images):
        Image.fromarray(image).save(f"cats/{i}.png")
        Path(f"cats/{i}.txt").write_text("a red cat")
    np.savez("samples.npz", images[:2])
    Path("prompts.txt").write_text("a red cat\n" * 2)
    words = [
        "samples=samples.npz",
        "data=captions",
        "data.path=cats",
        "data.held_out=0.4",
        "prompts=prompts.txt",
        "n=2",
    ]
    words += ["metrics=captions", "metrics.scores=[kernel,clip_score]", *judged[1:], "out=scores.json"]
    smallbatch("evaluate", *words, f"extractor.weights={inception_file}")
    named = [score["name"] for score in json.loads(Path("scores.json").read_text())["metrics"]]
    assert named[:2] == ["kid@2", "clip_score@2"] and any(name.startswith("clip_score_real@") for name in named)


@pytest.mark.parametrize(
    "words, line",
    [
        (
            ["data=digits", "data.size=16"],
            "text: Digits has no captions: choose data=captions or data=shapes, or leave text out",
        ),
        (["network=unet", "network.width=8"], "text: UNet hears no text: network=microdit_shapes, or text=none"),
        (["text=none", "metrics=prompts"], "metrics.scores=prompt_accuracy needs prompts: choose text=words"),
        (["text=none", "metrics=captions"], "metrics.scores=clip_score needs prompts: choose text=words"),
        (["masking=naive", "masking.ratio=0.99"], "masking.ratio=0.99 keeps none of 64 patches"),
        (["text=clip"], "text.name=apple/DFN5B-CLIP-ViT-H-14-378 is not on this machine and cannot be downloaded"),
        (["network.patch=5"], "network.patch=5 does not divide the image size 16"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(words, line, refused, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    kept = [word for word in TELLING if not (words[0].startswith("network=") and word.startswith("network."))]
    assert line in refused("train", *kept, *words) and not Path("runs").exists()


def test_a_unet_cannot_be_spared_patches(refused):
    line = refused("train", *UNDRAWN, "masking=deferred")
    assert "masking=deferred: UNet sees every pixel: network=dit_s, or masking=none" in line


def test_prompts_are_for_runs_that_hear_a_text(trained, refused):
    folder = trained(*UNDRAWN, "network.class_conditional=false")
    assert f"prompts={SHAPE}: run={folder} hears no text" in refused("sample", f"run={folder}", f"prompts={SHAPE}")
