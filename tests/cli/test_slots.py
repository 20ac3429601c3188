"""Slots from the loss curve of an earlier run."""

from pathlib import Path

from smallbatch.curves import read
from tests.cli import UNDRAWN

WORDS = [*UNDRAWN, "schedule=ddpm_linear", "schedule.steps=100", "curve.points=250"]


def test_a_run_measures_its_loss_curve_and_another_takes_its_slots_wherever_the_file_lies(smallbatch, trained):
    first = trained(*WORDS)
    assert read(first / "loss_curve.csv").n.sum() == 250
    Path("kept.csv").write_bytes((first / "loss_curve.csv").read_bytes())
    smallbatch("train", *WORDS, "timesteps=slots", f"timesteps.proposal.curve={first / 'loss_curve.csv'}")
    again = smallbatch("train", *WORDS, "timesteps=slots", "timesteps.proposal.curve=kept.csv")
    assert "already trained" in again and len(list(Path("runs/digits").iterdir())) == 2


def test_a_curve_of_another_schedule_is_refused_and_none_is_measured_where_none_is_asked(smallbatch, trained, refused):
    first = trained(*WORDS)
    words = [*UNDRAWN, "timesteps=slots", f"timesteps.proposal.curve={first / 'loss_curve.csv'}"]
    assert "LinearBetas of 100 timesteps, and this schedule is Cosine, continuous" in refused("train", *words)
    smallbatch("train", *UNDRAWN, "curve.points=null")
    assert len(list(Path("runs").glob("*/*/loss_curve.csv"))) == 1
