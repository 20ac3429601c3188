"""What outputs mean."""

import pytest
import torch

from tests.leaves import PREDICTIONS, SCHEDULES

cases = pytest.mark.parametrize


def a_batch(schedule, rows=9):
    level = schedule(torch.linspace(0.05, 0.95, rows).double())
    x0, eps, out = torch.randn(3, rows, 3, 4, 4, dtype=torch.float64)
    return level, x0, eps, out


@cases("schedule", SCHEDULES.values(), ids=SCHEDULES)
@cases("name", PREDICTIONS)
def test_decoding_the_target_recovers_image_and_noise(name, schedule):
    prediction = PREDICTIONS[name]
    level, x0, eps, _ = a_batch(schedule)
    a, b = prediction.basis(level)
    got = prediction.decode(a * x0 + b * eps, level.mix(x0, eps), level)
    torch.testing.assert_close(got.x0, x0, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(got.eps, eps, atol=1e-4, rtol=1e-4)


@cases("schedule", SCHEDULES.values(), ids=SCHEDULES)
@cases("name", PREDICTIONS)
def test_the_two_readings_mix_to_x_t(name, schedule):
    level, x0, eps, out = a_batch(schedule)
    x_t = level.mix(x0, eps)
    torch.testing.assert_close(level.mix(*PREDICTIONS[name].decode(out, x_t, level)[:2]), x_t, atol=1e-6, rtol=1e-6)


@cases("schedule", SCHEDULES.values(), ids=SCHEDULES)
@cases("name", PREDICTIONS)
def test_gain_is_the_derivative_of_the_image_estimate(name, schedule):
    prediction = PREDICTIONS[name]
    level, x0, eps, out = a_batch(schedule)
    x_t = level.mix(x0, eps)
    bump = prediction.decode(out + 1, x_t, level).x0 - prediction.decode(out, x_t, level).x0
    gain = prediction.terms(out, x0, eps, level).gain
    torch.testing.assert_close(bump.abs().mean(dim=(1, 2, 3)), gain.flatten(), atol=1e-6, rtol=1e-6)


@cases("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_errors_of_equal_image_estimates_stand_as_one_snr_and_one_plus_snr(schedule):
    level, x0, eps, guess = a_batch(schedule)
    x_t = level.mix(x0, eps)
    pair, snr = level.unmix(x_t, guess), level.logsnr.flatten().exp()
    error = {}
    for name in ("x0", "eps", "v"):
        a, b = PREDICTIONS[name].basis(level)
        error[name] = PREDICTIONS[name].terms(a * pair.x0 + b * pair.eps, x0, eps, level).error.flatten()
    torch.testing.assert_close(error["eps"], snr * error["x0"])
    torch.testing.assert_close(error["v"], (1 + snr) * error["x0"])


def test_edm_targets_have_unit_variance_at_every_level():
    level = SCHEDULES["edm"](torch.linspace(0, 1, 9).double())
    a, b = PREDICTIONS["edm"].basis(level)
    torch.testing.assert_close(a.square() * 0.25 + b.square(), torch.ones_like(a))


def test_flow_is_the_time_derivative_of_the_straight_path():
    t = torch.tensor([0.3, 0.6], dtype=torch.float64)
    x0, eps = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64)
    forward, back = (SCHEDULES["rectified_flow"](t + d).mix(x0, eps) for d in (1e-6, -1e-6))
    a, b = PREDICTIONS["flow"].basis(SCHEDULES["rectified_flow"](t))
    torch.testing.assert_close((forward - back) / 2e-6, a * x0 + b * eps, atol=1e-6, rtol=1e-6)


@cases("name", PREDICTIONS)
def test_a_linear_head_has_no_loss_besides_its_error(name):
    level, x0, eps, out = a_batch(SCHEDULES["cosine"])
    assert PREDICTIONS[name].terms(out, x0, eps, level).unweighted == 0


@cases("name", PREDICTIONS)
def test_the_error_over_seen_pixels_averages_to_the_error_over_all(name):
    level, x0, eps, out = a_batch(SCHEDULES["cosine"])
    seen = torch.zeros(2, 9, 1, 4, 4, dtype=torch.float64)
    seen[0, :, :, :2], seen[1, :, :, 2:] = 1, 1
    whole = PREDICTIONS[name].terms(out, x0, eps, level)
    halves = [PREDICTIONS[name].terms(out, x0, eps, level, part).error for part in seen]
    torch.testing.assert_close(sum(halves) / 2, whole.error)


def test_pooled_is_the_squared_spatial_mean_of_the_residual():
    level, x0, eps, _ = a_batch(SCHEDULES["cosine"])
    constant = torch.tensor([1.0, 2.0, 3.0]).double().view(1, 3, 1, 1)
    pooled = PREDICTIONS["eps"].terms(eps + constant, x0, eps, level).pooled
    torch.testing.assert_close(pooled, torch.full_like(pooled, 14.0))
