"""Trajectory and colour, where both are known: a denoiser of one value, an oracle, a solver that asks twice."""

import math

import pytest
import torch

from smallbatch.churn import Churn
from smallbatch.data.images import to_float
from smallbatch.diagnostics.colour import ColourDrift
from smallbatch.diagnostics.trajectory import Trajectory, to_final, to_next
from smallbatch.diagnostics.walks import watched
from smallbatch.errors import UserError
from smallbatch.notation import Condition
from smallbatch.randomness import SampleNoise
from smallbatch.sampler import Sampler, Trailing
from smallbatch.solvers import DDIM, Heun
from tests.diagnostics import Saying, case_of
from tests.leaves import PREDICTIONS, SCHEDULES
from tests.tiny import tiny_denoiser

SCHEDULE = SCHEDULES["ddpm_linear"]
GREY = 127.5


@pytest.mark.parametrize("solver", [DDIM(), Heun()])
def test_a_walk_has_an_estimate_for_every_step_and_ends_with_the_image(solver):
    denoiser, noise, told = tiny_denoiser(), SampleNoise(0, [4, 7], (1, 8, 8)), Condition(torch.tensor([0, 1]))
    sampler = Sampler(solver, Trailing(), 5)
    walk = watched(denoiser, sampler, noise, told)
    torch.testing.assert_close(walk.t, torch.tensor([1.0, 0.8, 0.6, 0.4, 0.2]))
    torch.testing.assert_close(walk.logsnr, denoiser.schedule.logsnr(walk.t))
    assert torch.equal(walk.x0[-1], sampler(denoiser, noise, told))
    x_t = denoiser.schedule(torch.ones(2)).sigma * noise(0)
    first = sampler.denoise(denoiser, told)(x_t, denoiser.schedule(torch.ones(2))).x0
    torch.testing.assert_close(walk.x0[0], first)


def test_a_churned_walk_falls_from_where_every_step_starts():
    sampler = Sampler(Heun(), Trailing(), 5, churn=Churn(2.0))
    walk = watched(tiny_denoiser(), sampler, SampleNoise(0, [4, 7], (1, 8, 8)), Condition(torch.tensor([0, 1])))
    assert len(walk.t) == 5 and (walk.t.diff() < 0).all() and (walk.t[1:] > torch.tensor([0.8, 0.6, 0.4, 0.2])).all()


def test_distances_and_movements_are_root_mean_squares_in_grey_levels():
    x0 = torch.tensor([0.0, 0.5, 0.1]).view(3, 1, 1, 1, 1).expand(3, 2, 1, 4, 4)
    torch.testing.assert_close(to_final(x0)[:, 0], GREY * torch.tensor([0.1, 0.4, 0.0]))
    torch.testing.assert_close(to_next(x0)[:, 1], GREY * torch.tensor([0.5, 0.4, 0.0]))


def test_the_table_of_trajectories_does_not_depend_on_how_many_are_sampled_at_once():
    tables = [Trajectory(5, 2, 3).measure(case_of(tiny_denoiser(), batch=batch)).table for batch in (5, 2)]
    for whole, parts in zip(*tables, strict=True):
        for key in ("distance", "distance_se", "change", "change_se"):
            assert parts[key] == pytest.approx(whole[key], rel=1e-3, abs=1e-3)
    *moving, last = tables[0]
    assert [one["step"] for one in tables[0]] == [1, 2, 3, 4] and last["distance"] == 0
    rises = [then["logsnr"] - one["logsnr"] for one, then in zip(moving, tables[0][1:], strict=True)]
    assert [one["change_per_logsnr"] * rise for one, rise in zip(moving, rises, strict=True)] == pytest.approx(
        [one["change"] for one in moving]
    )


def test_a_trajectory_is_drawn_and_said():
    diagnostic = Trajectory(4, 2, 3)
    found = diagnostic.measure(case_of(tiny_denoiser(), Saying(SCHEDULE, PREDICTIONS["x0"], 0.5)))
    assert "b: x0 starts 0.0 grey levels from the image" in diagnostic.line(found.table)
    assert diagnostic.figure(found.table).width > 1000
    assert found.images["images"].height == pytest.approx(4 / 3 * found.images["images"].width, rel=0.4)


def test_colours_of_a_denoiser_of_one_value_are_known():
    images = to_float(torch.arange(24, dtype=torch.uint8).mul(8).view(24, 1, 1, 1).expand(24, 3, 8, 8))
    images[:, 1] += 20 / GREY
    denoiser = Saying(SCHEDULE, PREDICTIONS["x0"], 0.5)
    denoiser.spec = denoiser.spec._replace(channels=3)
    data, *table = ColourDrift(24).measure(case_of(denoiser, images=images, batch=7)).table
    mean, spread = 4 * 23, 8 * math.sqrt(24 * 25 / 12)
    assert data["of"] == "data" and data["mean"] == pytest.approx(mean) and data["spread"] == pytest.approx(spread)
    table = table[2:]  # rows of the data's other channels
    assert len(table) == 4 * 3 and {one["step"] for one in table} == {1, 2, 3, 4}
    for one in table:
        assert one["mean"] == pytest.approx(1.5 * GREY, rel=1e-4) and one["spread"] == pytest.approx(0, abs=1e-3)
        assert one["drift"] == pytest.approx(1.5 * GREY - mean - 20 * (one["channel"] == 1), rel=1e-4)
        assert one["drift_se"] == pytest.approx(spread / math.sqrt(24), rel=1e-3)


def test_colours_are_drawn_for_every_channel_and_said_against_the_data():
    diagnostic, case = ColourDrift(6), case_of(tiny_denoiser(), tiny_denoiser())
    table = diagnostic.measure(case).table
    assert diagnostic.line(table).count("grey levels from the data's") == 2 and "(data: " in diagnostic.line(table)
    assert diagnostic.figure(table).height > 700


@pytest.mark.parametrize(
    "leaf, settings", [(Trajectory, {"shown": 1}), (Trajectory, {"images": 1}), (ColourDrift, {"images": 1})]
)
def test_too_few_are_refused(leaf, settings):
    with pytest.raises(UserError, match=f"{next(iter(settings))}=1 must be at least 2"):
        leaf(**settings)
