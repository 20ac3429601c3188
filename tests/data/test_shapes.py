from itertools import islice
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

from smallbatch import pictures
from smallbatch.data.drawing import draw
from smallbatch.data.scenes import COLOURS, SHAPES, caption, scenes
from smallbatch.data.shapes import Shapes
from smallbatch.errors import UserError
from smallbatch.notation import ImageSpec


def shapes(**options):
    return Shapes(**({"batch": 8, "seed": 0, "size": 16} | options))


def test_there_is_a_class_for_every_colour_of_every_shape():
    data = shapes(size=64)
    assert data.spec == ImageSpec(3, 64, len(COLOURS) * len(SHAPES))
    assert len(set(data.class_names)) == data.spec.classes and "red circle" in data.class_names


def test_a_row_is_its_scene():
    store = shapes().train_store.take(torch.tensor([7, 2**40 - 1, 7]))
    expected = scenes(np.array([7, 2**40 - 1, 7]))
    assert (store.pixels.numpy() == draw(expected, 16)).all()
    assert store.labels.tolist() == expected.label.tolist()


def test_the_held_out_scenes_come_after_those_to_train_on():
    data = shapes()
    assert len(data.held_out_store) == 10_000
    last = torch.tensor([len(data.held_out_store) - 1])
    expected = draw(scenes(np.array([len(data.train_store) + 9_999])), 16)
    assert (data.held_out_store.take(last).pixels.numpy() == expected).all()


@pytest.mark.parametrize("row", [-1, 10_000])
def test_rows_beyond_the_held_out_part_are_refused(row):
    with pytest.raises(AssertionError, match="rows of"):
        shapes().held_out_store.take(torch.tensor([row]))


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on loggers
@pytest.mark.parametrize("workers", [0, 2])
def test_training_sees_scene_after_scene_whatever_the_seed(workers):
    data = shapes(seed=3, workers=workers)
    data.trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    data.setup("fit")
    rows = list(islice(data.train_dataloader(), 3))
    assert (torch.cat([store.pixels for store in rows]).numpy() == draw(scenes(np.arange(24)), 16)).all()


def test_the_fingerprint_is_that_of_the_scenes():
    assert shapes(seed=0).fingerprint == shapes(seed=1).fingerprint == "shapes, version 1"


@pytest.mark.parametrize("bad", [{"size": 15}, {"flip": True}])
def test_what_cannot_be_drawn_is_refused(bad):
    with pytest.raises(UserError, match=rf"data\.{next(iter(bad))}="):
        shapes(**bad)


def test_the_picture_in_the_docs_shows_the_first_scenes():
    rows = Shapes(batch=1, seed=0, size=64).train_store.take(torch.arange(20))
    shown = Image.open(Path(__file__).parents[2] / "docs" / "shapes.png")
    assert np.array_equal(np.asarray(shown), np.asarray(pictures.grid(rows.pixels, columns=10)))
    assert caption(scenes(np.array([2])).at(0)) == "a large orange square above a small red circle on a grey background"
