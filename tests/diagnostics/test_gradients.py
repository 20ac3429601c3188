import pytest
import torch

from smallbatch.diagnostics.diagnostic import column
from smallbatch.diagnostics.gradient_moments import saved
from smallbatch.diagnostics.gradients import Gradients
from smallbatch.diagnostics.jackknife import between_groups, jackknifed
from smallbatch.diagnostics.training_loss import Rows, within
from smallbatch.errors import UserError
from smallbatch.predictions import Eps
from smallbatch.randomness import Step
from smallbatch.weightings import Plain, Weighting
from tests.diagnostics import case_of
from tests.diagnostics.level import level_denoiser
from tests.leaves import SCHEDULES
from tests.tiny import tiny_denoiser


def test_the_jackknife_of_a_mean_is_its_standard_error():
    x = torch.randn(10, 3, dtype=torch.float64)
    mean, error = jackknifed(lambda groups: x[groups].mean(dim=0), 10)
    torch.testing.assert_close((mean, error), (x.mean(dim=0), x.std(dim=0) / 10**0.5))


def test_products_of_different_groups_leave_out_what_a_group_makes_with_itself():
    x = torch.randn(4, 7)
    expected = torch.stack([x[i] @ x[j] for i in range(4) for j in range(4) if i != j]).mean()
    torch.testing.assert_close(between_groups(x @ x.T), expected)


def test_no_density_saves_more_than_the_root_mean_square():
    square, of_all = torch.tensor([1.0, 9.0]), torch.tensor(0.0)
    torch.testing.assert_close(saved(square, of_all, torch.tensor([0.5, 1.5])), torch.tensor(1 - 4 / 5))
    others = torch.linspace(0.05, 1.95, 99)
    assert max(saved(square, of_all, torch.stack([q, 2 - q])) for q in others) <= 1 - 4 / 5 + 1e-6


def test_rows_do_not_depend_on_how_many_are_taken_at_once():
    case, denoiser = case_of(tiny_denoiser()), tiny_denoiser()
    objective = within((0.2, 0.4), Plain(), denoiser.schedule)
    whole, parts = (Rows(objective, case.train, 12, Step(0, 3, 0, 0.0), most) for most in (12, 5))
    torch.testing.assert_close(whole.losses(denoiser), parts.losses(denoiser))
    torch.testing.assert_close(whole.gradient(denoiser), parts.gradient(denoiser))
    assert [len(batch.x0) for batch, _ in parts.pieces()] == [4, 4, 4]


B, ROWS = 0.2, 32


class SecondHalf(Weighting):
    """The second half of time counts three times as much."""

    def forward(self, terms, level):
        return 1 + 2 * (level.t > 0.5)[:, None].to(terms.error)


@pytest.fixture(scope="module")
def table():
    runs = [level_denoiser(SCHEDULES["cosine"], Eps(), B) for _ in range(2)]
    found = Gradients(bins=2, rows=ROWS).measure(case_of(*runs, weighting=SecondHalf())).table
    assert all(run.network.value.item() == pytest.approx(B) and run.network.value.grad is None for run in runs)
    return found


@pytest.mark.parametrize(
    "what, bin, w, w_square",
    [
        ("mean", "all", 4, 0),
        ("within", "all", 0, 5),
        ("between", "all", -4, 5),
        ("within", 0, 0, 1),
        ("within", 1, 0, 9),
    ],
)
def test_of_one_weight_every_variance_is_known(table, what, bin, w, w_square):
    """A row's gradient is 2 w (b - mean eps), with w = 1 or 3, and mean eps over 64 pixels has the variance 1 / 64."""
    length = 1 / 64 if what == "within" else B**2
    found, error = (column(table, key, of="a", bin=bin, what=what)[0] for key in ("value", "se"))
    expected = 4 * length * (w + w_square)
    assert abs(found - expected) < 4 * error and error < expected / 2


def test_what_the_optimal_density_saves_is_known(table):
    square = 4 * (B**2 + 1 / 64)
    found, error = (column(table, key, of="a", what="saved by optimal")[0] for key in ("value", "se"))
    mean = 4 * B**2 * 4
    assert abs(found - (1 - (4 * square - mean) / (5 * square - mean))) < 4 * error < 0.4
    assert column(table, "value", of="a", what="q optimal") == pytest.approx([0.5, 1.5], abs=0.1)


def test_runs_meet_the_same_rows(table):
    assert column(table, "value", of="a") == column(table, "value", of="b")


def test_the_figure_and_the_line_name_what_is_saved(table):
    diagnostic = Gradients()
    assert diagnostic.figure(table).width > 600 and "saved by optimal" in diagnostic.line(table)


def test_rows_that_make_no_groups_are_refused():
    with pytest.raises(UserError, match=r"diagnostics.gradients.rows=20 must be a multiple of 8"):
        Gradients(rows=20)
