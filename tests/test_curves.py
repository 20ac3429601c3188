"""Loss curves: measured, written, read."""

import pytest
import torch
from omegaconf import OmegaConf

from smallbatch.cli.naming import run_id
from smallbatch.curves import COLUMNS, curve, measure, middle, read, row_of, rows_of, write
from smallbatch.densities import Density
from smallbatch.draws import IID
from smallbatch.errors import UserError
from smallbatch.masking import Unmasked
from smallbatch.notation import Batch, Condition
from smallbatch.objective import Objective
from smallbatch.randomness import Step
from smallbatch.timesteps import Timesteps
from tests.leaves import PREDICTIONS, SCHEDULES, TABLES, WEIGHTINGS
from tests.tiny import tiny_denoiser

cases = pytest.mark.parametrize


@cases("schedule", SCHEDULES.values(), ids=SCHEDULES)
@cases("points", [1, 7, 999, 1000, 1001, 4096])
def test_every_row_has_its_even_share_of_the_points(schedule, points):
    rows = rows_of(schedule, points)
    counts = row_of(torch.arange(points), points, rows).bincount()
    assert len(counts) == rows == min(points, 1000) and counts.max() - counts.min() <= 1 and counts.min() >= 1


@cases("table", TABLES.values(), ids=TABLES)
def test_on_a_table_each_index_is_a_row(table):
    rows = rows_of(table, 4096)
    assert torch.equal(table.index(middle(torch.arange(rows), rows)), torch.arange(table.steps))
    zero = torch.ones(rows, dtype=torch.float64)
    torch.testing.assert_close(curve(table, zero, zero).logsnr, table.table)


class At(Density):
    """Always the same times: u is not asked."""

    def __init__(self, t):
        super().__init__()
        self.t = t

    def forward(self, u, schedule, progress):
        return self.t, torch.full_like(u, 3.0)


@cases("prediction", PREDICTIONS.values(), ids=PREDICTIONS)
@cases("weighting", WEIGHTINGS.values(), ids=WEIGHTINGS)
def test_what_is_measured_is_what_training_minimises_without_importance(prediction, weighting):
    """The two draw other noise: means over many rows agree."""
    denoiser, n = tiny_denoiser(prediction=prediction), 4096
    x0, condition = torch.rand(n, 1, 8, 8) * 2 - 1, Condition(torch.arange(n) % 3)
    t = torch.full((n,), 0.4)
    measured = measure(denoiser, weighting, Batch(x0, condition), list(range(n)), t)
    trained = Objective(Timesteps(IID(), At(t)), weighting, Unmasked())(denoiser, x0, condition, Step(0, 0, 0, 0.0))
    torch.testing.assert_close(measured.mean(), trained.observed.weighted.mean(), rtol=0.02, atol=0)
    assert measured.shape == (n,) and not measured.requires_grad


def test_a_measurement_depends_on_the_points_and_not_on_how_they_are_grouped():
    denoiser, t = tiny_denoiser(), torch.linspace(0.1, 0.9, 6)
    x0, label = torch.rand(6, 1, 8, 8), torch.arange(6) % 3
    whole = measure(denoiser, WEIGHTINGS["plain"], Batch(x0, Condition(label)), list(range(6)), t)
    half = measure(denoiser, WEIGHTINGS["plain"], Batch(x0[3:], Condition(label[3:])), [3, 4, 5], t[3:])
    torch.testing.assert_close(whole[3:], half)


def made(name="cosine", rows=50):
    n = torch.full((rows,), 4.0).double()
    return curve(SCHEDULES[name], torch.rand(rows).double() * 4 + 1e-3, n)


@cases("name", ["cosine", "ddpm_linear"])
def test_a_curve_comes_back_from_its_file(name, tmp_path):
    kept = made(name)
    write(kept, tmp_path / "loss_curve.csv")
    back = read(tmp_path / "loss_curve.csv")
    assert (back.schedule, back.steps) == (kept.schedule, kept.steps) and torch.equal(back.n, kept.n)
    for column in ("time", "logsnr", "loss"):
        torch.testing.assert_close(getattr(back, column), getattr(kept, column), rtol=1e-6, atol=1e-6)
    assert (tmp_path / "loss_curve.csv").read_text().startswith(",".join(COLUMNS))


HEAD = ",".join(COLUMNS) + "\n"


@cases(
    "text, line",
    [
        ("", "it needs rows"),
        (HEAD, "it needs rows"),
        ("a,b\n1,2\n", "time"),
        (HEAD + "Cosine,,0.5,1,1,1\nCosine,,0.8,0,1,1\n", "time must rise to 1 in even steps"),
        (HEAD + "Cosine,,0.5,1,1,1\nLogistic,,1,0,1,1\n", "all of one schedule"),
        (HEAD + "Cosine,,0.5,1,nan,1\nCosine,,1,0,1,1\n", "not every number is finite"),
        (HEAD + "Cosine,,0.5,1,-1,1\nCosine,,1,0,1,1\n", "a loss lies below 0"),
        (HEAD + "Cosine,,0.5,1,x,1\nCosine,,1,0,1,1\n", "could not convert"),
        (HEAD + "Cosine,,0.5\n", "no loss curve"),
    ],
)
def test_a_file_that_is_no_curve_is_refused_in_one_line(text, line, tmp_path):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(UserError, match=line) as refused:
        read(tmp_path / "bad.csv")
    assert "\n" not in str(refused.value) and "bad.csv" in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"timesteps.proposal.curve=.*nowhere.csv cannot be read \(No such file"):
        read(tmp_path / "nowhere.csv")


def config(curve):
    timesteps = {"proposal": {"slots": 10, "curve": None if curve is None else str(curve)}}
    known = {"budget": {"money": None}, "data": {"name": "digits"}, "timesteps": timesteps, "init_from": None}
    return OmegaConf.create(known)


def test_a_run_is_named_by_what_a_curve_says_and_not_by_where_it_lies(tmp_path):
    a, copy, other = (tmp_path / f"{name}.csv" for name in ("a", "copy", "other"))
    for path in (a, other):
        write(made(), path)
    copy.write_text(a.read_text())
    assert run_id(config(a), "") == run_id(config(copy), "") != run_id(config(other), "")
    assert run_id(config(None), "") != run_id(config(a), "")
    with pytest.raises(UserError, match=r"nowhere\.csv cannot be read"):
        run_id(config(tmp_path / "nowhere.csv"), "")


def test_other_timesteps_keep_their_name():
    plain = OmegaConf.create({**config(None), "timesteps": {"density": "uniform"}})
    assert run_id(plain, "") == run_id(plain, "") != run_id(config(None), "")
