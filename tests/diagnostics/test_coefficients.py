"""What schedule, prediction and weighting imply."""

import pytest
import torch

from smallbatch.diagnostics.coefficients import Coefficients
from smallbatch.diagnostics.diagnostic import column
from smallbatch.errors import UserError
from smallbatch.predictions import X0, Eps, V
from smallbatch.weightings import MinSNR, Plain
from tests.diagnostics import case_of
from tests.leaves import MIXTURES, SCHEDULES
from tests.tiny import tiny_denoiser

LINEAR = SCHEDULES["ddpm_linear"]


def table(*runs, schedule=LINEAR, prediction=None, weighting=None, **settings):
    asked = Coefficients(schedule, prediction or Eps(), weighting or Plain(), **settings)
    return asked.measure(case_of(*runs)).table


def values(rows, name):
    return torch.tensor(column(rows, name), dtype=torch.float64)


def test_ddpms_posterior_mean_has_the_published_coefficients():
    rows = table()
    expected = {0: (1, 0), 1: (0.545, 0.455), 2: (0.389, 0.611), 5: (0.222, 0.778), 14: (0.1055, 0.8945)}
    expected |= {50: (0.036, 0.964), 100: (0.019, 0.981), 500: (0.0031, 0.9941), 999: (0.00013, 0.98995)}
    for t, (of_x0, of_xt) in expected.items():
        assert (rows[t]["t"], rows[t]["c_x0"], rows[t]["c_xt"]) == pytest.approx((t, of_x0, of_xt), abs=6e-4)
    assert rows[999]["c_x0"] == pytest.approx(0.00013, abs=5e-6) and rows[999]["c_xt"] == pytest.approx(
        0.98995, abs=5e-6
    )
    assert rows[14]["c_x0"] == pytest.approx(0.1055, abs=5e-5) and rows[14]["c_xt"] == pytest.approx(0.8945, abs=5e-5)
    assert rows[15]["c_x0"] < 0.1
    assert rows[258]["logsnr"] > 0 > rows[259]["logsnr"]


def test_the_line_tells_the_published_steps():
    diagnostic = Coefficients(LINEAR, Eps(), Plain())
    line = diagnostic.line(table())
    assert "for the first 15 of 1000 steps; SNR exceeds 1 for the first 259" in line


def test_coefficients_are_those_of_betas():
    """sqrt(ab_before) beta / (1 - ab) and sqrt(1 - beta) (1 - ab_before) / (1 - ab), from the betas themselves."""
    rows, betas = table(), torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    now = (1 - betas).cumprod(0)
    before = torch.cat([torch.ones(1).double(), now[:-1]])
    torch.testing.assert_close(values(rows, "c_x0"), before.sqrt() * betas / (1 - now), rtol=2e-3, atol=1e-7)
    torch.testing.assert_close(
        values(rows, "c_xt"), (1 - betas).sqrt() * (1 - before) / (1 - now), rtol=2e-3, atol=1e-6
    )


def test_gains_turn_errors_of_eps_and_v_into_errors_of_x0():
    rows = table()
    alpha, sigma = values(rows, "alpha"), values(rows, "sigma")
    torch.testing.assert_close(values(rows, "gain_eps"), sigma / alpha, rtol=1e-4, atol=0)
    torch.testing.assert_close(values(rows, "gain_v"), sigma, rtol=1e-4, atol=0)


@pytest.mark.parametrize("prediction, own", [(X0(), "weight_x0"), (Eps(), "weight_eps"), (V(), "weight_v")])
def test_the_plain_weight_is_one_in_the_predictions_own_space(prediction, own):
    weights = values(table(prediction=prediction), own)
    torch.testing.assert_close(weights, torch.ones(1000).double(), rtol=1e-3, atol=0)


def test_min_snr_weighs_x0_alike_for_every_prediction():
    for prediction in (X0(), Eps(), V()):
        rows = table(prediction=prediction, weighting=MinSNR(5.0))
        expected = values(rows, "logsnr").exp().clamp(max=5)
        torch.testing.assert_close(values(rows, "weight_x0"), expected, rtol=1e-3, atol=0)


def test_the_smallest_raw_loss_of_equal_heads_weighs_v_by_the_smaller_of_signal_and_noise():
    rows = table(prediction=MIXTURES["mixed_min_raw"])
    smaller = torch.minimum(values(rows, "alpha"), values(rows, "sigma")).square()
    torch.testing.assert_close(values(rows, "weight_v"), smaller, rtol=1e-3, atol=0)


def test_the_weight_per_log_snr_adds_up_to_the_mean_over_time():
    """A continuous schedule, whose log-SNR falls faster at its ends."""
    rows = table(schedule=SCHEDULES["cosine"], steps=2000)
    logsnr, per_unit = values(rows, "logsnr"), values(rows, "weight_per_logsnr")
    inside = logsnr.abs() < 8
    share = (values(rows, "t")[inside].max() - values(rows, "t")[inside].min()).item()
    assert -torch.trapezoid(per_unit[inside], logsnr[inside]).item() == pytest.approx(share, rel=5e-3)


def test_runs_bring_their_own_recipe_and_more_than_there_are_colours_are_drawn():
    runs = [tiny_denoiser(SCHEDULES[name], X0()) for name in ("iddpm_cosine", "edm", *["ddpm_linear"] * 5)]
    rows = table(*runs, steps=50)
    assert {len(column(rows, "t", of=name)) for name in "ab"} == {1000, 50}
    assert column(rows, "weight_x0", of="b") == pytest.approx([1] * 50)
    assert len(Coefficients(LINEAR, Eps(), Plain()).figure(rows).getcolors(1 << 24)) > 50


def test_a_single_step_has_no_step_before_it():
    with pytest.raises(UserError, match="steps=1 and a table's must be at least 2"):
        Coefficients(LINEAR, Eps(), Plain(), steps=1)
