"""Every timesteps= and prediction= value trains on digits from the command line."""

import math
from pathlib import Path

import pytest

from smallbatch.callbacks.record import read
from smallbatch.cli.main import conf_dir
from tests.cli import TINY

FEW = [*TINY, "batch=8", "budget.images=16", "validation.count=8", "sampler.steps=2", "curve.points=8"]
ON_A_TABLE = ("eps_learned_variance", "schedule=ddpm_linear")


@pytest.mark.parametrize("group", ["timesteps", "prediction"])
def test_every_choice_trains(group, smallbatch):
    choices = sorted(file.stem for file in (conf_dir() / group).glob("*.yaml") if file.stem != ON_A_TABLE[0])
    smallbatch("train", "-m", *FEW, f"{group}={','.join(choices)}")
    runs = [read(folder) for folder in Path("runs/digits").iterdir()]
    assert len(runs) == len(choices)
    for rows in runs:
        last = [row for row in rows if row["name"] == "val/v_mse" and "logsnr" not in row][-1]
        assert last["images"] == 16 and 0 < last["value"] < math.inf


def test_a_learned_variance_trains_on_a_table(smallbatch):
    smallbatch("train", *FEW, f"prediction={ON_A_TABLE[0]}", ON_A_TABLE[1])
    (run,) = Path("runs/digits").iterdir()
    assert max(row["images"] for row in read(run)) == 16


def test_a_sweep_of_two_groups_runs_every_job_and_is_reported(smallbatch):
    smallbatch("train", "-m", *FEW, "prediction=v,mixed_blend", "timesteps=uniform,slots", "seed=0")
    assert len(list(Path("runs/digits").iterdir())) == 4
    table = smallbatch("report", "runs=runs/digits", "baseline='prediction=v timesteps=uniform'").splitlines()
    assert "4 runs" in table[0] and len(table) == 4 + 4 and sum("baseline" in line for line in table) == 1
