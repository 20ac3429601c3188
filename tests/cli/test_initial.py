"""`smallbatch train init_from=RUN`: where training begins."""

import shutil
from pathlib import Path

import pytest
import torch

from smallbatch.cli import initial, runs
from smallbatch.cli.building import from_config
from smallbatch.cli.naming import run_id
from smallbatch.cli.train import build
from smallbatch.errors import UserError
from smallbatch.fusing import Gate
from smallbatch.mixtures import Mixture
from smallbatch.predictions import Eps
from smallbatch.teaching import OnHeads
from tests.cli import TINY
from tests.test_configs import config
from tests.tiny import tiny_denoiser

ABOUT = {
    "denoiser": {},
    "spec": {"channels": 1, "size": 8, "classes": 0},
    "class_names": [],
    "data_fingerprint": "",
    "images": 0,
}


def exported(denoiser, folder):
    Path(folder).mkdir()
    runs.save(Path(folder), denoiser, {}, ABOUT)
    return str(folder)


def test_a_new_run_begins_at_the_exported_weights_whatever_its_seed(trained):
    folder = trained(*TINY)
    begun = config(*TINY, f"init_from={folder}", "seed=5", "timesteps=uniform")
    module = build(begun, from_config(begun.run))
    kept = runs.load(folder).state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in module.denoiser.state_dict().items())


def test_the_id_follows_the_weights_and_not_where_they_lie(tmp_path):
    one = exported(tiny_denoiser(), tmp_path / "one")
    shutil.copytree(one, tmp_path / "copy")
    denoiser = tiny_denoiser()
    denoiser.network.conv.bias.data += 1
    other = exported(denoiser, tmp_path / "other")
    ids = [run_id(config(f"init_from={folder}"), "") for folder in (one, tmp_path / "copy", other, "null")]
    assert ids[0] == ids[1] and len(set(ids)) == 3


@pytest.mark.parametrize("more", [[], ["dry_run=true"]], ids=["train", "dry_run"])
def test_a_run_with_another_network_is_refused_before_a_folder_is_made(more, trained, refused):
    folder = trained(*TINY)
    line = refused("train", *TINY, f"init_from={folder}", "network.head_width=4", "network.width=4", *more)
    assert "has another network: network.embed.clock.0.weight has shape (32, 8), not (16, 4)" in line
    assert "init_from=nowhere holds no model.safetensors" in refused("train", *TINY, "init_from=nowhere", *more)
    assert len(list(Path("runs").glob("*/*"))) == 1


def test_what_the_prediction_has_learned_comes_along_where_both_have_it(tmp_path):
    gate = tiny_denoiser(prediction=Mixture(Gate(), OnHeads()))
    buffers = {name: value for name, value in gate.state_dict().items() if name.startswith("prediction.")}
    assert buffers
    for value in buffers.values():
        value.fill_(3)
    fresh = tiny_denoiser(prediction=Mixture(Gate(), OnHeads()))
    initial.load(fresh, exported(gate, tmp_path / "gate"))
    assert all((fresh.state_dict()[name] == 3).all() for name in buffers)
    with pytest.raises(UserError, match="another network"):
        initial.check(tiny_denoiser(prediction=Eps()), str(tmp_path / "gate"), None)
    initial.check(tiny_denoiser(prediction=Eps()), exported(tiny_denoiser(), tmp_path / "v"), None)
