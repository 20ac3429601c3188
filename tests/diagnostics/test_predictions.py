"""Which prediction is best at which noise level, where the errors are known."""

from math import exp

import pytest
import torch

from smallbatch.diagnostics.diagnostic import column, names
from smallbatch.diagnostics.predictions import Predictions, bins
from smallbatch.errors import UserError
from smallbatch.predictions import X0, Eps, V
from smallbatch.schedules import LogLinear
from tests.diagnostics import Saying, case_of
from tests.leaves import MIXTURES, PATHS, SCHEDULES
from tests.tiny import tiny_denoiser

EVEN = LogLinear(PATHS["preserving"], exp(-3), exp(3))  # log-SNR from 6 to -6
ONES = torch.ones(4, 1, 8, 8)  # an estimate of 0 errs by 1


def measured(*denoisers, images=8, **settings):
    return Predictions(images, **settings).measure(case_of(*denoisers, images=ONES)).table


def test_equally_good_heads_flip_at_snr_one_in_their_own_spaces_and_v_never_wins():
    table = measured(Saying(EVEN, MIXTURES["mixed_min_raw"], 0.0, 0.0, 0.0))
    for row in table:
        winner = "x0" if row["logsnr"] > 0 else "eps"
        assert row["raw_wins"] == (row["head"] == winner) and row["behind"] == pytest.approx(0, abs=1e-3)
        assert row["x0_mse"] == pytest.approx(1, rel=1e-3)
    assert "x0 of a at log-SNR 0 to 6" in Predictions().line(table).split("own space: ")[1]


def test_three_runs_flip_alike_and_the_best_may_never_win_raw():
    """v has a ninth of the others' errors less, and yet nowhere the least in its own space."""
    table = measured(Saying(EVEN, X0(), 0.0), Saying(EVEN, Eps(), 0.0), Saying(EVEN, V(), 1 - 0.9**0.5))
    by_head = {head: column(table, "raw_wins", head=head) for head in ("x0", "eps", "v")}
    assert by_head == {"x0": [0, 0, 0, 1, 1, 1], "eps": [1, 1, 1, 0, 0, 0], "v": [0] * 6}
    assert column(table, "wins", head="v") == [1] * 6
    assert column(table, "behind", head="x0") == pytest.approx([1 / 9] * 6, rel=1e-3)
    line = Predictions().line(table)
    assert "least error: v of c at log-SNR -6 to 6; the next has 1.11 to 1.11 times as much" in line
    assert "own space: eps of b at log-SNR -6 to 0, x0 of a at log-SNR 0 to 6" in line


def test_errors_are_means_over_the_bin_with_their_standard_errors():
    table, size = measured(Saying(EVEN, X0(), 0.0), Saying(EVEN, Eps(), 0.0), images=50), 50
    for row in table:
        logsnr = row["low"] + (row["high"] - row["low"]) * (torch.arange(size).double() + 0.5) / size
        v = 1 + logsnr.exp()
        assert row["v_mse"] == pytest.approx(v.mean().item(), rel=1e-3)
        assert row["v_mse_se"] == pytest.approx((v.std() / size**0.5).item(), rel=1e-3)


def test_bins_lie_between_multiples_of_their_width_within_what_all_schedules_reach():
    linear, edm = (case_of(tiny_denoiser(SCHEDULES[name])).subjects[0] for name in ("ddpm_linear", "edm"))
    torch.testing.assert_close(
        bins([linear], 2.0), torch.tensor([-10.1177, *range(-8, 9, 2), 9.2102]), rtol=0, atol=1e-3
    )
    torch.testing.assert_close(
        bins([linear, edm], 4.0), torch.tensor([-8.7641, -4, 0, 4, 8, 9.2102]), rtol=0, atol=1e-3
    )


def test_runs_without_a_common_log_snr_and_a_run_with_nobody_to_compare_are_refused():
    apart = LogLinear(PATHS["preserving"], exp(-6), exp(-4))
    with pytest.raises(UserError, match="no log-SNR is reached by all"):
        measured(Saying(EVEN, X0(), 0.0), Saying(apart, X0(), 0.0))
    with pytest.raises(UserError, match="give several runs, or one of a mixed prediction"):
        measured(Saying(EVEN, X0(), 0.0))
    with pytest.raises(UserError, match=r"diagnostics\.predictions: width=0"):
        Predictions(width=0.0)


def test_more_entrants_than_colours_are_drawn():
    table = measured(*[tiny_denoiser(EVEN, MIXTURES["mixed_blend"])] * 3, images=2)
    assert names(table, "of") == ["a", "b", "c"] and names(table, "head") == ["x0", "eps", "v"]
    assert len(Predictions().figure(table).getcolors(1 << 24)) > 50
