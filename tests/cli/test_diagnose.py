"""`smallbatch diagnose` from a trained run to files, and the runs that it will not compare."""

import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from smallbatch.cli import cases
from smallbatch.data.digits import Digits
from smallbatch.diagnostics.diagnostic import Subject
from smallbatch.errors import UserError
from smallbatch.notation import ImageSpec
from smallbatch.weightings import Plain
from tests.cli import TINY
from tests.tiny import tiny_denoiser

DIGITS = Digits(batch=1, seed=0)


def knows(classes, name="a"):
    return Subject(name, tiny_denoiser(spec=ImageSpec(1, 8, classes)), Plain(), Path(name))


def test_every_diagnostic_leaves_a_table_a_picture_and_a_line_in_the_run(smallbatch, trained):
    folder = trained(*TINY)
    said = smallbatch(
        "diagnose", f"run={folder}", "diagnostic=[coefficients,colour]", "diagnostics.colour.images=8", "steps=2"
    )
    assert Path(folder, "diagnostics", "colour.csv").read_text().count("data") == 1
    for name in ("coefficients", "colour"):
        assert Image.open(folder / "diagnostics" / f"{name}.png").width > 600
        line = json.loads((folder / "diagnostics" / f"{name}.json").read_text())["line"]
        assert f"{name}: {line}" in said and folder.name in line
    assert "other images" not in said


def test_held_out_images_that_a_run_may_have_seen_are_said_to_be_others(tmp_path, capsys):
    data = "  _target_: smallbatch.data.digits.Digits\n  batch: 1\n  seed: 0\n"
    (tmp_path / "config.yaml").write_text(f"data:\n{data}")
    known = {"denoiser": {}, "spec": {"channels": 1, "size": 8, "classes": 10}, "class_names": [], "images": 1}
    for fingerprint, said in (("another", True), (DIGITS.fingerprint, False)):
        (tmp_path / "model.json").write_text(json.dumps(known | {"data_fingerprint": fingerprint}))
        cases.data_of(OmegaConf.create({"run": str(tmp_path)}), [knows(10, str(tmp_path))])
        assert ("held against other images than the run was trained on" in capsys.readouterr().out) == said


def test_runs_are_named_by_what_tells_them_apart(tmp_path):
    paths = [tmp_path / "a" / "eps" / "1", tmp_path / "b" / "eps" / "1"]
    assert cases.names_of(paths) == ["a/eps/1", "b/eps/1"]
    assert cases.names_of(paths[:1]) == ["eps/1"] and cases.names_of([]) == []
    with pytest.raises(UserError, match="names a run twice"):
        cases.names_of([paths[0], paths[0] / ".." / "1"])


def test_labels_mean_the_same_to_all_who_are_told_them():
    cases.refuse_unlike([knows(3), knows(0), knows(3)])
    with pytest.raises(UserError, match="run= names runs of 3 and 10 classes"):
        cases.refuse_unlike([knows(3), knows(10)])
    cases.refuse_other_classes(knows(0), DIGITS)
    cases.refuse_other_classes(knows(10), DIGITS)
    with pytest.raises(UserError, match="run=a knows 3 classes, the data 10"):
        cases.refuse_other_classes(knows(3), DIGITS)


@pytest.mark.parametrize("target, learns", [("uncertainty.Uncertainty", True), ("weightings.Plain", False)])
def test_a_weighting_that_had_learned_is_said_to_be_as_at_the_start(tmp_path, monkeypatch, capsys, target, learns):
    base = "\n  base: {_target_: smallbatch.weightings.Plain}" if learns else ""
    (tmp_path / "config.yaml").write_text(f"weighting:\n  _target_: smallbatch.{target}{base}\n")
    monkeypatch.setattr(cases.runs, "load", lambda folder, device: tiny_denoiser())
    cases.subject(tmp_path, "a", torch.device("cpu"))
    assert ("what its weighting had learned" in capsys.readouterr().out) == learns
