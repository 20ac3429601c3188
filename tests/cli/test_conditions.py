"""What a network is told of samples by their numbers."""

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from smallbatch.cli import conditions
from smallbatch.data.digits import Digits
from smallbatch.data.images import shrunk, to_float
from smallbatch.errors import UserError
from smallbatch.text.words import Words

DATA = Digits(batch=1, seed=0, size=8, low_size=4)
COUNT = len(DATA.held_out_store)


def asked(labels="auto", n=COUNT + 9, spec=DATA.spec):
    return conditions.from_held_out(OmegaConf.create({"n": n, "labels": labels, "seed": 0}), DATA, spec)


def test_sample_i_is_told_of_held_out_image_i_and_after_the_last_one_of_the_first():
    numbers = torch.tensor([5, 0, 5 + COUNT])
    truth = to_float(DATA.held_out_store.pixels[[5, 0, 5]])
    told = asked().told(numbers)
    assert torch.equal(told.image, shrunk(truth, 4)) and torch.equal(asked().truth(numbers), truth)
    assert told.label.tolist() == DATA.held_out_store.labels[[5, 0, 5]].tolist()


def test_a_class_that_is_named_goes_before_the_images_own_and_unknown_classes_are_left_out():
    assert asked("3").labels.tolist() == [3] * (COUNT + 9) and asked("none").labels is None
    assert asked(spec=DATA.spec._replace(classes=7)).labels is None
    assert asked(n=None).n == len(asked(n=None).labels) == 100


def test_images_of_a_folder_come_in_turn_and_without_a_class(tmp_path):
    for grey in (0, 255):
        Image.new("L", (4, 4), grey).save(tmp_path / f"{grey}.png")
    config = OmegaConf.create({"n": None, "labels": "auto", "seed": 0})
    few = conditions.from_files(config, str(tmp_path), DATA.spec)
    told = few.told(torch.tensor([1, 2, 3]))
    assert few.n == 2 and few.truth is None and told.label is None
    assert told.image[:, 0, 0, 0].tolist() == [1, -1, 1]


def prompted(prompts, n=None):
    encoder = Words(["a", "circle", "red"], length=3)
    config = OmegaConf.create({"n": n, "labels": "auto", "seed": 0, "prompts": prompts})
    return conditions.from_prompts(config, encoder, DATA.spec._replace(low_size=None, text=encoder.spec), "cpu")


def test_prompts_come_in_turn_and_what_is_not_heard_is_said(tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("a red circle\n\n a crimson circle \n")
    for given in (str(tmp_path / "prompts.txt"), ["a red circle", "a crimson circle"]):
        found = prompted(given, n=3)
        told = found.told(torch.arange(3))
        assert told.text.value.tolist() == [[1, 3, 2], [1, 0, 2], [1, 3, 2]] and told.label is None
        assert found.prompts == ["a red circle", "a crimson circle", "a red circle"]
        assert "'crimson' was never seen" in capsys.readouterr().out
    assert prompted("a circle").n == 1 and prompted("a red circle " * 100).n == 1
    for given in ("", [], ["  "]):
        with pytest.raises(UserError, match="holds no prompt"):
            prompted(given)
