"""Noise schedules and paths."""

import pytest
import torch

from smallbatch import schedules as S
from tests.leaves import PATHS, SCHEDULES

cases = pytest.mark.parametrize
FINE = torch.linspace(0, 1, 1001)


@cases("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_both_ends_are_finite_and_logsnr_falls(schedule):
    level = schedule(FINE)
    assert level.alpha.isfinite().all() and level.sigma.isfinite().all()
    assert (level.alpha > 0).all() and (level.sigma > 0).all()
    assert (schedule.logsnr(FINE).diff() <= 0).all()


@cases("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_time_inverts_logsnr(schedule):
    t = torch.linspace(0.02, 0.98, 49)
    torch.testing.assert_close(schedule.time(schedule.logsnr(t)), schedule.snap(t), atol=1e-4, rtol=1e-4)


@cases("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_logsnr_beyond_the_ends_gives_the_nearest_end(schedule):
    ends = schedule.time(torch.tensor([-40.0, 40.0]))
    torch.testing.assert_close(schedule.logsnr(ends), schedule.logsnr(torch.tensor([1.0, 0.0])))


@cases("path", PATHS.values(), ids=PATHS)
def test_a_path_has_the_logsnr_it_was_given(path):
    logsnr = torch.linspace(-14, 14, 29, dtype=torch.float64)
    alpha, sigma = path(logsnr)
    torch.testing.assert_close(2 * (alpha / sigma).log(), logsnr)


def test_paths_keep_their_invariants():
    logsnr = torch.linspace(-14, 14, 29)
    sums = {name: path(logsnr) for name, path in PATHS.items()}
    one = torch.ones_like(logsnr)
    torch.testing.assert_close(sums["preserving"][0] ** 2 + sums["preserving"][1] ** 2, one)
    torch.testing.assert_close(sums["exploding"][0], one)
    torch.testing.assert_close(sums["straight"][0] + sums["straight"][1], one)


@cases("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_the_unit_level_has_the_same_logsnr_on_the_unit_circle(schedule):
    level = schedule(FINE)
    unit = level.unit
    torch.testing.assert_close(unit.alpha.square() + unit.sigma.square(), torch.ones_like(unit.alpha))
    torch.testing.assert_close(unit.logsnr, level.logsnr, atol=1e-3, rtol=1e-4)


@cases("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_unmix_undoes_mix(schedule):
    level = schedule(torch.linspace(0.1, 0.9, 5).double())
    x0, eps = torch.randn(2, 5, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(level.unmix(level.mix(x0, eps), x0).eps, eps, atol=1e-5, rtol=1e-5)


def test_rectified_flow_is_a_straight_line_in_t():
    t = torch.linspace(0.01, 0.99, 99)
    level = SCHEDULES["rectified_flow"](t)
    torch.testing.assert_close(level.sigma.flatten(), t)
    torch.testing.assert_close(level.alpha.flatten(), 1 - t)


def test_the_cosine_schedule_is_cosine_and_shifts_in_logsnr():
    t = torch.linspace(0.01, 0.99, 99)
    level = SCHEDULES["cosine"](t)
    torch.testing.assert_close(level.alpha.flatten(), (t * torch.pi / 2).cos())
    shifted = S.Cosine(S.VariancePreserving(), shift=-2.0)
    torch.testing.assert_close(shifted.logsnr(t), SCHEDULES["cosine"].logsnr(t) - 2)


def test_ddpm_linear_matches_its_published_figures():
    table = SCHEDULES["ddpm_linear"]
    snr = table.table.exp()
    assert snr[258] > 1 > snr[259]  # crosses 1 between indices 258 and 259
    signal = table.table.double().sigmoid()
    assert abs(signal[-1] - 4.036e-5) < 1e-8
    assert abs(signal[0] - (1 - 1e-4)) < 1e-7


@cases("steps", [1, 10, 50, 1000, 4000])
def test_a_table_stands_at_its_own_times_and_gives_every_index_the_same_mass(steps):
    last = min(0.02, 0.5 * steps / 1000)
    table = S.LinearBetas(S.VariancePreserving(), steps=steps, first=last / 200, last=last)
    own = torch.arange(1, steps + 1) / steps
    assert table.index(own).tolist() == list(range(steps))
    torch.testing.assert_close(table.snap(own), own)
    counts = table.index((torch.arange(steps * 100) + 0.5) / (steps * 100)).bincount(minlength=steps)
    assert (counts - 100).abs().max() <= 1


def test_before_gives_the_previous_index_and_clean_data_before_the_first():
    table = SCHEDULES["ddpm_linear"]
    level = table(torch.tensor([0.001, 0.002, 0.5, 1.0]))
    before = table.before(level)
    assert before.alpha.flatten()[0] == 1 and before.sigma.flatten()[0] == 0
    signal = table.table.sigmoid()
    torch.testing.assert_close(before.alpha.flatten()[1:] ** 2, signal[[0, 498, 998]])


def test_posterior_coefficients_equal_the_published_ones():
    table = S.LinearBetas(S.VariancePreserving())
    table.table = table.table.double()
    level = table((torch.tensor([0.0, 1, 14, 15, 999]).double() + 1) / 1000)
    before = table.before(level)
    step = (level.alpha / before.alpha).square()
    c_x0 = (before.alpha * (1 - step) / level.sigma.square()).flatten()
    c_xt = (step.sqrt() * before.sigma.square() / level.sigma.square()).flatten()
    expected = torch.tensor([[1, 0], [0.545, 0.455], [0.1055, 0.8945], [0.0999, 0.9], [0.00013, 0.98995]]).double()
    torch.testing.assert_close(torch.stack([c_x0, c_xt], dim=1), expected, atol=6e-4, rtol=0)
    assert c_x0[3] < 0.1 < c_x0[2]
