"""Every timesteps= and prediction= value trains on digits from the command line."""

import math
from itertools import cycle
from pathlib import Path

import pytest

from smallbatch.cli.main import conf_dir
from smallbatch.recorded import read
from tests.cli import UNDRAWN

FEW = [*UNDRAWN, "batch=8", "budget.images=16", "validation.count=8", "sampler.steps=2", "curve.points=8"]
FEW += ["network.multipliers=[1]", "network.attention_at=[]"]
PATCHES = [word for word in FEW if not word.startswith("network.")]
PATCHES += ["network=dit_digits", "network.width=8", "network.depth=1", "network.heads=2", "network.qk_norm=true"]
ON_A_TABLE = ("eps_learned_variance", "schedule=ddpm_linear")


def choices(group):
    return sorted(file.stem for file in (conf_dir() / group).glob("*.yaml") if file.stem != ON_A_TABLE[0])


def last_error(rows):
    return [row for row in rows if row["name"] == "val/v_mse" and "logsnr" not in row][-1]


@pytest.mark.parametrize("timesteps, prediction", zip(choices("timesteps"), cycle(choices("prediction")), strict=False))
def test_every_choice_trains(timesteps, prediction, smallbatch):
    smallbatch("train", *FEW, f"timesteps={timesteps}", f"prediction={prediction}")
    (run,) = Path("runs/digits").iterdir()
    last = last_error(read(run))
    assert last["images"] == 16 and 0 < last["value"] < math.inf


def test_no_choice_is_left_out():
    assert 0 < len(choices("prediction")) <= len(choices("timesteps"))


def test_a_learned_variance_trains_on_a_table(smallbatch):
    smallbatch("train", *FEW, f"prediction={ON_A_TABLE[0]}", ON_A_TABLE[1])
    (run,) = Path("runs/digits").iterdir()
    assert max(row["images"] for row in read(run)) == 16


def test_a_transformer_trains_and_samples(smallbatch):
    smallbatch("train", *PATCHES, "prediction=mixed_gate")
    (run,) = Path("runs/digits").iterdir()
    assert 0 < last_error(read(run))["value"] < math.inf
    assert "samples.npz" in smallbatch("sample", f"run={run}", "n=2", "out=samples.npz", "steps=2")


def test_a_sweep_of_two_groups_runs_every_job_and_is_reported(smallbatch):
    words = ["hydra/launcher=basic", "prediction=v,mixed_blend", "timesteps=uniform,slots", "seed=0"]
    smallbatch("train", "-m", *FEW, *words)
    assert len(list(Path("runs/digits").iterdir())) == 4
    table = smallbatch("report", "runs=runs/digits", "baseline='prediction=v timesteps=uniform'").splitlines()
    assert "4 runs" in table[0] and len(table) == 4 + 4 and sum("baseline" in line for line in table) == 1
