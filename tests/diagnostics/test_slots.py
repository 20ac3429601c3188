"""Slots of equal loss, where the loss is known."""

from math import exp, log

import pytest
import torch

from smallbatch.diagnostics.slots import WIDTHS, Slots, cut
from smallbatch.errors import UserError
from smallbatch.predictions import X0, Eps
from smallbatch.schedules import LogLinear
from smallbatch.tables import LinearBetas
from tests.diagnostics import Saying, case_of
from tests.leaves import PATHS, SCHEDULES

TABLE = LinearBetas(PATHS["preserving"], 100)
ONES = torch.ones(4, 1, 8, 8)  # an estimate of 0 errs by 1 everywhere


def measured(prediction, schedule=TABLE, **settings):
    return Slots(images=2, **settings).measure(case_of(Saying(schedule, prediction, 0.0), images=ONES)).table


def values(table, name):
    return [row[name] for row in table]


def test_the_same_loss_everywhere_makes_slots_of_the_same_width():
    table = measured(X0())
    assert values(table, "steps") == [10] * 10 and values(table, "first") == [*range(0, 100, 10)]
    assert values(table, "to_last") == pytest.approx([1] * 10, rel=1e-4)


def test_a_loss_like_snr_makes_the_slots_of_its_integral():
    """An estimate of 0 errs by SNR in eps, here exp(6 - 12 t), of which 1 - exp(-12 t) lies before t."""
    even = LogLinear(PATHS["preserving"], exp(-3), exp(3))
    expected = [-1000 / 12 * log(1 - k / 4 * (1 - exp(-12))) for k in range(4)]
    table = measured(X0(), even, error="eps_mse", slots=4)
    assert values(table, "first") == pytest.approx(expected, abs=1)
    assert [table[0]["logsnr_first"], table[-1]["logsnr_last"]] == pytest.approx([6 - 0.012, -6], abs=1e-4)
    assert values(measured(Eps(), even, slots=4), "steps") == values(table, "steps")


def test_every_slot_holds_its_share_within_a_timestep_and_widths_and_means_are_inverse():
    loss = torch.linspace(1, 0.01, 1000).double() ** 3
    table = cut(SCHEDULES["ddpm_linear"], loss, 0.1 * loss, 10)
    assert values(table, "share") == pytest.approx([0.1] * 10, abs=(loss.max() / loss.sum()).item())
    for row in table:
        assert row["to_last"] == pytest.approx(row["share"] / table[-1]["share"] * table[-1]["steps"] / row["steps"])
        mine = loss[row["first"] : row["last"] + 1]
        assert row["mean_se"] == pytest.approx(0.1 * mine.square().sum().sqrt().item() / len(mine))
    assert values(table, "paper") == WIDTHS == [5, 8, 10, 14, 19, 26, 38, 57, 100, 723]


def test_the_papers_means_give_back_its_slots():
    means = torch.tensor([144.6, 90.4, 72.3, 51.6, 38.1, 27.8, 19.0, 12.7, 7.2, 1.0]).double()
    loss = means.repeat_interleave(torch.tensor(WIDTHS))
    table = cut(SCHEDULES["ddpm_linear"], loss, loss, 10)
    assert values(table, "steps") == pytest.approx(WIDTHS, abs=1)
    assert values(table, "to_last") == pytest.approx(means.tolist(), rel=0.1)


def test_a_timestep_that_holds_more_than_its_share_leaves_slots_out():
    loss = torch.tensor([10.0, *[1.0] * 9]).double()
    table = cut(LinearBetas(PATHS["preserving"], 30), loss, loss, 5)
    assert [(row["slot"], row["first"], row["last"]) for row in table] == [(3, 0, 1), (4, 2, 5), (5, 6, 9)]


def test_other_numbers_of_slots_and_several_runs_are_drawn_and_told():
    case = case_of(Saying(TABLE, X0(), 0.0), Saying(TABLE, Eps(), 0.0), images=ONES)
    diagnostic = Slots(slots=4, images=2)
    table = diagnostic.measure(case).table
    assert {row["paper"] for row in table} == {None}
    assert "a: slots of equal loss are 25, 25, 25, 25 timesteps wide" in diagnostic.line(table)
    assert len(diagnostic.figure(table).getcolors(1 << 24)) > 50


def test_what_makes_no_slots_is_refused():
    with pytest.raises(UserError, match=r"diagnostics\.slots\.slots=1 must"):
        Slots(slots=1)
    with pytest.raises(UserError, match=r"diagnostics\.slots\.error='eps' is not known: use one of loss, x0_mse"):
        Slots(error="eps")
    with pytest.raises(UserError, match=r"diagnostics\.slots\.slots=101, but the curve of a has 100 rows"):
        measured(X0(), slots=101)
