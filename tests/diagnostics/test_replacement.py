"""Replacement, where it must give the truth, and where it must change nothing."""

from dataclasses import replace

import pytest
import torch

from smallbatch.diagnostics.diagnostic import Part
from smallbatch.diagnostics.replacement import Replacement, replaced
from smallbatch.diagnostics.windows import NOTHING, bounds, fixed
from smallbatch.errors import UserError
from smallbatch.likeness import CAP
from smallbatch.notation import Batch, Condition
from smallbatch.oracle import GaussianOracle
from smallbatch.randomness import SampleNoise
from smallbatch.sampler import Sampler, Trailing
from smallbatch.solvers import DDIM, Ancestral
from tests.diagnostics import Saying, case_of
from tests.leaves import PREDICTIONS, SCHEDULES
from tests.tiny import tiny_denoiser

ORACLE = GaussianOracle(mean=0.3, std=0.5)
SCHEDULE = SCHEDULES["ddpm_linear"]
CPU = torch.device("cpu")


def from_oracle(steps, solver=None, count=20):
    """The truth, and what comes out with it in `steps` of `count` for what the oracle says."""
    x0 = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    sampler = Sampler(solver or DDIM(), Trailing(), count)
    return x0, replaced(ORACLE, SCHEDULE, sampler, x0, SampleNoise(0, range(3), (1, 4, 4)), steps)


@pytest.mark.parametrize("solver", [DDIM(), Ancestral()])
@pytest.mark.parametrize("steps", [range(20), range(19, 20)])
def test_a_window_with_the_last_step_gives_the_truth_whatever_was_learned(steps, solver):
    x0, found = from_oracle(steps, solver)
    assert torch.equal(found, x0)


def test_without_a_window_the_denoisers_own_image_comes_out():
    x0, found = from_oracle(NOTHING)
    noise, level = SampleNoise(0, range(3), (1, 4, 4)), SCHEDULE(torch.ones(3))
    *_, own = Sampler(DDIM(), Trailing(), 20).walk(ORACLE, SCHEDULE, noise, x0)
    assert torch.equal(found, own) and not torch.allclose(own, x0, atol=0.1)
    x_t = level.mix(x0, noise(0))
    linear = ORACLE.mean + ORACLE.std * (x_t - level.alpha * ORACLE.mean) / ORACLE.spread(level)  # of infinitely many
    torch.testing.assert_close(from_oracle(NOTHING, count=200)[1], linear, atol=0.05, rtol=0)


def test_the_truth_at_all_but_the_last_step_leaves_what_the_last_one_gets_wrong():
    x0, found = from_oracle(range(19))
    last, noise = SCHEDULE(torch.full((3,), 1 / 20)), SampleNoise(0, range(3), (1, 4, 4))(0)
    torch.testing.assert_close(found, ORACLE(last.mix(x0, noise), last).x0, atol=1e-4, rtol=0)


def test_windows_hold_the_steps_between_their_ends_and_nothing_else():
    times = Trailing()(SCHEDULE, 50, CPU)
    held = {one.name: one.steps for one in fixed(times, [(1, 10), (10, 100), (100, 500), (1, 20)], 1)}
    assert held == {"[10, 100]": range(45, 49), "[100, 500]": range(25, 46)}  # t = 20 is the last step, left alone
    for steps in (range(25, 46), range(50), range(0, 3), range(49, 50)):
        low, high = bounds(times, steps)
        assert ((low <= times) & (times < high)).nonzero().flatten().tolist() == list(steps)


def rows_of(case, **settings):
    case.sampler.steps = 10
    return Replacement(images=4, width=3, **settings).measure(case).table


def test_the_table_has_windows_with_and_without_the_last_steps():
    table = rows_of(case_of(tiny_denoiser(SCHEDULE), Saying(SCHEDULE, PREDICTIONS["x0"], 0.0)), excluded=2)
    for one in table:
        ends = one["kind"] != "none" and one["last_t"] == 100
        assert (one["psnr"] == CAP and one["drift"] == 0) if ends else one["psnr"] < 30
        assert not (ends and one["excluded"])
        assert one["kind"] == "none" or one["gain_per_step"] == pytest.approx(one["gain"] / one["steps"])
    for of in "ab":
        assert [o["steps"] for o in table if o["kind"] == "sliding" and o["excluded"] and o["of"] == of] == [3, 3]
    assert {o["window"] for o in table if o["of"] == "b" and o["excluded"] == 0} >= {"[10, 100]", "[1, 500]"}


def test_what_makes_one_image_of_all_gains_nothing_before_the_end():
    """It forgets x_t, so that the truth before it changes nothing."""
    table = rows_of(case_of(Saying(SCHEDULE, PREDICTIONS["x0"], 0.5)))
    assert all(abs(one["gain"]) < 1e-3 for one in table if one["excluded"])
    assert all(one["gain"] > 30 for one in table if one["last_t"] == 100)


def test_the_line_says_which_windows_hold_no_step_and_the_picture_is_drawn():
    diagnostic, case = Replacement(images=4, width=3), case_of(tiny_denoiser(SCHEDULE))
    found = diagnostic.measure(case)
    assert "no step lies in [1, 10], [10, 100]: give more steps" in diagnostic.line(found.table)
    assert "give the truth, by construction" in diagnostic.line(found.table)
    assert diagnostic.figure(found.table).width > 1000 and found.images["images"].height > 300


def test_a_sample_is_held_against_the_small_image_that_was_told():
    case = case_of(Saying(SCHEDULE, PREDICTIONS["x0"], 0.5))
    take = case.held_out.take
    part = Part(24, lambda numbers: Batch(take(numbers).x0, Condition(image=torch.full((len(numbers), 1, 2, 2), 0.3))))
    first, *_ = rows_of(replace(case, held_out=part))
    assert first["kind"] == "none" and first["fidelity"] == pytest.approx(0.2 * 127.5, rel=1e-4)
    assert all(one["fidelity"] is None for one in rows_of(case))


@pytest.mark.parametrize(
    "settings, said",
    [
        (
            {"windows": [[1, 50]], "width": 2},
            r"windows: \[1, 50\] holds none of the sampler's 4 steps, which go from 1000 to 250",
        ),
        ({"width": 4}, "width=4 beside excluded=1 does not fit into the sampler's 4 steps"),
    ],
)
def test_what_does_not_fit_the_sampler_is_refused(settings, said):
    with pytest.raises(UserError, match=said):
        Replacement(**settings).measure(case_of(tiny_denoiser(SCHEDULE)))


@pytest.mark.parametrize("settings", [{"windows": [[1, 1200]]}, {"windows": [[5]]}, {"images": 1}, {"excluded": -1}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(UserError, match=f"diagnostics.replacement.{next(iter(settings))}"):
        Replacement(**settings)
