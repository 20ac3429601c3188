"""Every timesteps= and prediction= value trains on digits from the command line."""

from pathlib import Path

import pytest

from smallbatch.callbacks.record import read
from smallbatch.cli.main import conf_dir
from tests.cli import TINY

FEW = [*TINY, "batch=8", "budget.images=16", "validation.count=8", "sampler.steps=2", "curve.points=8"]
ON_A_TABLE = {"prediction=eps_learned_variance": ["schedule=ddpm_linear"]}
CHOICES = [
    f"{group}={file.stem}" for group in ("timesteps", "prediction") for file in (conf_dir() / group).glob("*.yaml")
]


@pytest.mark.parametrize("choice", sorted(CHOICES))
def test_a_choice_trains(choice, smallbatch):
    smallbatch("train", *FEW, choice, *ON_A_TABLE.get(choice, []))
    (run,) = Path("runs/digits").iterdir()
    last = [row for row in read(run) if row["name"] == "val/v_mse" and "logsnr" not in row][-1]
    assert last["images"] == 16 and last["value"] > 0


def test_a_sweep_of_two_groups_runs_every_job_and_is_reported(smallbatch):
    smallbatch("train", "-m", *FEW, "prediction=v,mixed_blend", "timesteps=uniform,slots", "seed=0")
    assert len(list(Path("runs/digits").iterdir())) == 4
    table = smallbatch("report", "runs=runs/digits", "baseline='prediction=v timesteps=uniform'").splitlines()
    assert "4 runs" in table[0] and len(table) == 4 + 4 and sum("baseline" in line for line in table) == 1
