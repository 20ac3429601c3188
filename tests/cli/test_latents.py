"""Latents and text features by the commands: made once, trained on, drawn from, scored by the images themselves."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smallbatch.cli.main import main
from smallbatch.data.shards import Shards
from tests.cli.test_text import RED, SMALL
from tests.outcome import recorded, same_run
from tests.processes import within

FEW = [*(word for word in SMALL if not word.startswith("data.")), "curve.points=8", "data.workers=0"]
TRAIN = ["train", *FEW, "data=shards", "~data.size", "network.patch=2", "masking=none"]
MASKED = ["masking=deferred", "masking.ratio=0.5"]
LONG = ["budget.images=128", "checkpoint.every_images=16", "log.every_images=16", "validation.every_images=128"]
LONG += ["data.window=1"]  # one shard after another


@pytest.fixture(scope="session")
def heard(clip_folder):
    return ["text=clip", f"text.name={clip_folder}", "text.length=12", "text.pad=null"]


@pytest.fixture(scope="session")
def told(photos, vae_folder):
    """What `prepare` is told of images and latents; eight rows are a shard."""
    images = ["data=captions", f"data.path={photos}", "data.size=16", "data.held_out=0.1"]
    return ["prepare", *images, "latents=vae", f"latents.name={vae_folder}", "shard_mib=0.014"]


def command(*words):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["smallbatch", *map(str, words)])
        main()


@pytest.fixture(scope="session")
def store(told, heard, tmp_path_factory):
    out = tmp_path_factory.mktemp("stores") / "STORE"
    command(*told, *heard, f"out={out}")
    return out


@pytest.fixture
def run(trained, store, heard):
    words = [*TRAIN[1:], f"data.path={store}", *heard, *MASKED]
    return trained(*words, "validation.every_images=64", "samples.every_images=64", "name=told")


def test_a_run_on_latents_draws_pixels_of_prompts_and_is_scored_by_the_images(run, photos, smallbatch, refused):
    (grid,) = (run / "samples").iterdir()
    assert Image.open(grid).width > 10 * 16  # ten columns of decoded images
    words = [f"run={run}", "steps=2"]
    smallbatch("sample", *words, f"prompts={RED}", "n=3", "guidance=2", "out=red.npz")
    smallbatch("sample", *words, "n=2", "out=held_out.npz")
    images = np.load("red.npz")["arr_0"]
    assert images.shape == (3, 16, 16, 3) and images.dtype == np.uint8 and Image.open("red.png")
    assert len(Path("held_out.txt").read_text().splitlines()) == len(np.load("held_out.npz")["arr_0"]) == 2
    asked = [*words, "n=4", "metrics=prompts", "out=scores.json"]
    images = ["data=captions", f"data.path={photos}", "data.size=16", "data.held_out=0.1"]
    smallbatch("evaluate", *asked, *images)
    scores = {score["name"]: score for score in json.loads(Path("scores.json").read_text())["metrics"]}
    assert scores["prompt_accuracy_real@3"]["value"] == 1 and scores["prompt_accuracy@4"]["n"] == 4
    assert not [mark for mark in scores["prompt_accuracy@4"]["marks"] if "other images" in mark]
    line = refused("evaluate", *asked)
    assert f"run={run}: its data holds latents, which are no images to compare with: give data=" in line
    assert "has size 16, the data 32: give data.size=16" in refused("evaluate", *asked, *images, "data.size=32")


def test_what_latents_are_not_good_for_is_refused_with_what_is(run, store, photos, heard, refused):
    latents = ["data=shards", f"data.path={store}"]
    assert "latents are no images to compare with" in refused(*TRAIN, *latents[1:], *heard, "metrics=prompts")
    assert "data= holds latents" in refused("reference", *latents, "extractor=classifier", "out=r.npz")
    np.savez("samples.npz", np.zeros((2, 16, 16, 3), np.uint8))
    assert "data= holds latents" in refused("evaluate", "samples=samples.npz", *latents)
    line = refused("diagnose", f"run={run}", "diagnostic=colour", "out=d")
    assert line.endswith(f"diagnostic=colour measures pixels, and run={run} draws latents: leave one out")
    images = ["data=captions", f"data.path={photos}", "data.size=16"]
    assert "the data holds pixels: use the same" in refused("diagnose", f"run={run}", "diagnostic=slots", *images)
    assert "a zip holds images, and these are latents" in refused("prepare", *latents, "out=a.zip")
    assert f"{store} is read by data=shards, not data=store" in refused("prepare", "data=store", latents[1], "out=a")


def test_a_packed_store_names_what_reads_it(smallbatch, refused):
    smallbatch("prepare", "data=digits", "data.size=8", "out=digits")
    assert "digits is read by data=store, not data=shards" in refused(*TRAIN, "data.path=digits", "text=none")


def test_other_latents_and_other_texts_than_a_run_has_learned_are_refused(run, told, heard, refused, smallbatch):
    smallbatch(*told, *heard, "latents.scale=2", "storage=pooled", "out=other")
    words = [*TRAIN, "data.path=other", *heard, f"init_from={run}"]
    line = refused(*words)
    assert "has learned latents of " in line and "scale=0.5" in line and "the data holds latents of " in line
    assert "scale=2.0" in line and line.endswith(": use the same")
    line = refused("sample", f"run={run}", "n=2", "data=shards", "data.path=other")
    assert f"run={run} hears 12 tokens of 32, the data brings 1 tokens of 32: give data of the same storage=" in line
    line = refused(*TRAIN, "data.path=other", *heard, "text.length=8")
    assert "data.path=other holds features of another text encoder: give text=clip text.name=" in line
    assert "text.length=12" in line


def test_without_a_text_the_images_alone_are_learned(store, smallbatch):
    smallbatch(*TRAIN, f"data.path={store}", "text=none", "name=silent")
    (run,) = Path("runs/silent").iterdir()
    known = json.loads((run / "model.json").read_text())
    assert known["text"] is None and known["latents"]["scale"] == 0.5 and known["spec"]["latents"]
    smallbatch("sample", f"run={run}", "n=2", "steps=2", "out=two.npz")
    assert np.load("two.npz")["arr_0"].shape == (2, 16, 16, 3)


@pytest.fixture
def undisturbed(trained, store, heard):
    return trained(*TRAIN[1:], f"data.path={store}", *heard, *LONG, "name=undisturbed")


def of(name):
    (found,) = Path("runs", name).iterdir()
    return found


def reached(name):
    found = [*Path("runs", name).glob("*/metrics.jsonl")]
    text = found[0].read_text().rpartition("\n")[0] if found else ""
    return json.loads(text.rpartition("\n")[2])["images"] if text else 0


def test_a_run_killed_in_the_middle_of_an_epoch_ends_as_if_it_had_not_been(undisturbed, store, heard, smallbatch):
    words = [*TRAIN, f"data.path={store}", *heard, *LONG, "name=killed"]
    process = multiprocessing.get_context("fork").Process(target=command, args=words)
    process.start()
    assert within(60, lambda: reached("killed") >= 48 or not process.is_alive())
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL and 48 <= reached("killed") < 128
    assert "resuming" in smallbatch(*words)
    same_run(undisturbed, of("killed"))


def test_a_run_whose_shards_lie_elsewhere_goes_on_once_they_can_be_had(undisturbed, store, heard, smallbatch, refused):
    there = Path(shutil.copytree(store, "there"))
    Path("here").mkdir()
    shutil.copy(store / "store.json", "here")
    last = order(store)[-1] // 8
    (there / "train" / f"chunk-{last}-0.bin").rename("away")
    words = [*TRAIN, "data.path=here", f"data.shards=local:{there.absolute()}", *heard, *LONG, "name=elsewhere"]
    assert f"chunk-{last}-0.bin cannot be copied (FileNotFoundError" in refused(*words)
    assert 0 < recorded(of("elsewhere"))[-1]["images"] < 42
    Path("away").rename(there / "train" / f"chunk-{last}-0.bin")
    assert "resuming" in smallbatch(*words)
    same_run(undisturbed, of("elsewhere"))
    assert of("elsewhere").name == undisturbed.name


def order(store):
    """Of the first epoch's rows."""
    data = Shards(str(store), batch=16, seed=0, window=1)
    return data.image_order[range(len(data.parts.train))].indices.tolist()


@pytest.mark.parametrize(
    "words, line",
    [
        (["text=words"], "text=words is trained with the network, on captions, which a store keeps: leave text out"),
        (["data=digits", "latents=none"], "text: Digits has no captions: choose data=captions, or leave text out"),
        (["out=a.zip"], "latents: a zip holds images alone: give out=STORE, a folder, or leave latents out"),
        (["out=a.zip", "latents=none"], "text: a zip holds images alone"),
        (["storage=int4"], "storage=int4 is not known: use one of float16, int8, pooled"),
        (["devices=0"], "devices=0 must be a whole number, at least 1"),
        (["text.length=77", "devices=2"], "text.length=77: "),  # by the one that would begin the others
        (["at_once=a"], "at_once=a must be a whole number, at least 1"),
        (["shard_mib=0"], "shard_mib=0 must be a number above 0, at most 1024"),
        (["shard_mib=4096"], "shard_mib=4096 must be a number above 0, at most 1024"),
        (["data.size=15"], "data.size=15: 2 does not divide it, as the autoencoder needs: use 14 or 16"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_prepared_is_refused_before_anything_is_written(words, line, told, heard, refused):
    given = [*told, *heard, "out=STORE"]
    for word in words:
        group = word.partition("=")[0]
        given = [one for one in given if not one.startswith((f"{group}=", f"{group}."))]
    assert line in refused(*given, *words) and not [path for path in Path().iterdir() if "lock" not in path.name]
