"""A run that enlarges small images, from training to its scores."""

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from smallbatch.cli import sample
from smallbatch.data.digits import Digits
from smallbatch.errors import UserError
from smallbatch.notation import ImageSpec
from smallbatch.recorded import read
from tests.cli import TINY

ENLARGING = [*TINY, "data.low_size=4", "metrics=quick", "metrics.n=64", "metrics.every_images=320"]


def images(file):
    return np.load(file)["arr_0"].astype(int)


def test_a_run_enlarges_held_out_images_and_those_of_a_folder(smallbatch, trained, refused):
    folder = trained(*ENLARGING)
    assert "metrics/recognised@64" in {row["name"] for row in read(folder)}
    words = [f"run={folder}", "steps=2", "sampler=ddim"]
    width, height = Image.open(next(folder.glob("samples/*.png"))).size
    assert 10 * height == 3 * width  # the small one, the sample and the truth
    smallbatch("sample", *words, "n=7", "batch=4", "out=own.npz")
    held_out = Digits(batch=1, seed=0, size=8).held_out_store
    assert np.load("own.npz")["arr_1"].tolist() == held_out.labels[:7].tolist()

    Path("film").mkdir()
    for frame in range(2):
        Image.fromarray(held_out.pixels[0, 0].numpy()).save(f"film/{frame}.png")
    still = ["images=film", "noise=one", f"labels={held_out.labels[0]}", "out=film.npz"]
    assert "2 of 2 images had their middle shrunk by area to 4x4" in smallbatch("sample", *words, *still)
    assert np.abs(images("film.npz") - images("own.npz")[0]).max() <= 2  # a small image of a file has 8 bits

    smallbatch("evaluate", *words, "n=64", "out=scores.json")
    assert "enlarged from 64 held-out images" in Path("scores.json").read_text()
    Image.new("L", (5, 3)).save("film/2.png")
    assert "2.png is 5x3, smaller than the 4x4" in refused("sample", *words, *still)
    assert "the data None: give data.low_size=4" in refused("sample", *words, "data=digits", "data.size=8")


def test_a_run_that_enlarges_nothing_takes_no_images():
    config = OmegaConf.create({"run": "runs/plain", "images": "FOLDER"})
    with pytest.raises(UserError, match="images=FOLDER: run=runs/plain enlarges no images: leave images out"):
        sample.asked_of(config, ImageSpec(1, 8, 10), None, "cpu")
