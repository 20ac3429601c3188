"""Slots of equal loss."""

from itertools import pairwise

import pytest
import torch

from smallbatch.curves import Curve, write
from smallbatch.densities import LogNormal, Uniform
from smallbatch.draws import Rounds
from smallbatch.errors import UserError
from smallbatch.notation import Observed
from smallbatch.randomness import Step
from smallbatch.schedules import VariancePreserving
from smallbatch.slots import CurveSlots, OnlineSlots, PaperSlots, slots
from smallbatch.tables import LinearBetas
from smallbatch.timesteps import Timesteps
from tests.chi_square import fits
from tests.leaves import CONTINUOUS, SCHEDULES

cases = pytest.mark.parametrize
CPU = torch.device("cpu")
TABLE = SCHEDULES["ddpm_linear"]
STARTS = (0, 5, 13, 23, 37, 56, 82, 120, 177, 277)
ENDS = (5, 13, 23, 37, 56, 82, 120, 177, 277, 1000)
PAPER_MEANS = (144.6, 90.4, 72.3, 51.6, 38.1, 27.8, 19.0, 12.7, 7.2, 1.0)  # relative loss of each of the ten slots


def paper_loss():
    """A loss per timestep that is as Table 1 says in every slot, and constant there."""
    sizes = torch.tensor(ENDS) - torch.tensor(STARTS)
    return torch.tensor(PAPER_MEANS).repeat_interleave(sizes)


def curve_of(loss, schedule=TABLE, name="LinearBetas"):
    time = torch.arange(1, len(loss) + 1) / len(loss)
    steps = getattr(schedule, "steps", None)
    return Curve(name, steps, time, schedule.logsnr(time), loss, torch.ones(len(loss), dtype=torch.long))


def seen(u, loss):
    none = torch.zeros_like(u)
    return Observed(t=u, u=u, logsnr=none, loss=loss, weighted=loss, slope=none, pooled=none, factor=loss[:, None])


def drawn(proposal, n=100_000, schedule=TABLE, correction=1.0):
    timesteps = Timesteps(Rounds(proposal.slots), Uniform(), proposal, correction)
    return timesteps(Step(1, 0, 0, 0.0), n, schedule, CPU)


def test_the_papers_slots_are_its_ten_ranges():
    mass, place = PaperSlots().knots(TABLE)
    assert (place * 1000).round().long().tolist() == [*STARTS, 1000]
    torch.testing.assert_close(place * 1000, (place * 1000).round(), rtol=0, atol=1e-4)
    torch.testing.assert_close(mass.diff(), torch.full((10,), 0.1).double())


def test_drawn_timesteps_fall_into_the_papers_ranges_in_every_round():
    index = TABLE.index(drawn(PaperSlots()).t).view(-1, 10)
    slot = torch.searchsorted(torch.tensor(ENDS), index, right=True).sort(dim=1).values
    assert (slot == torch.arange(10)).float().mean() > 0.9999  # a table gives 1/1000 of a step to the one before
    counts = torch.bincount(index.flatten(), minlength=1000)
    sizes = torch.tensor(ENDS) - torch.tensor(STARTS)
    expected = (1 / (10.0 * sizes)).repeat_interleave(sizes)
    points = torch.repeat_interleave(torch.arange(1000.0), counts)
    assert fits(points, torch.arange(1001.0) - 0.5, expected)
    assert not fits(points, torch.arange(1001.0) - 0.5, torch.ones(1000))


def test_the_papers_importance_is_ten_times_the_slots_share_of_time():
    t, importance, _ = drawn(PaperSlots())
    sizes = torch.tensor(ENDS) - torch.tensor(STARTS)
    low, high = importance[t <= 0.004], importance[t > 0.5]
    torch.testing.assert_close(low, torch.full_like(low, 10 * sizes[0] / 1000))
    torch.testing.assert_close(high, torch.full_like(high, 10 * sizes[-1] / 1000))
    assert (drawn(PaperSlots(), correction=0.0).importance == 1).all()


@cases("schedule", CONTINUOUS.values(), ids=CONTINUOUS)
def test_the_papers_slots_lie_at_the_same_noise_on_every_schedule(schedule):
    place = PaperSlots().knots(schedule)[1]
    ends = TABLE.logsnr(torch.tensor(ENDS[:-1]) / 1000)
    torch.testing.assert_close(schedule.logsnr(place[1:-1].float()), ends, atol=2e-3, rtol=0)
    Timesteps(Rounds(10), Uniform(), PaperSlots()).check(schedule)


@cases("count", [1, 2, 7, 10, 50])
def test_slots_of_a_curve_follow_the_rule_of_the_paper(count):
    loss = torch.rand(1000, generator=torch.Generator().manual_seed(count)) + 3 * torch.exp(-torch.arange(1000) / 100)
    place = CurveSlots(curve_of(loss), count).knots(TABLE)[1]
    slot = (count * loss.double().cumsum(0) / loss.double().sum() - 1e-9).ceil()  # k = ceil(S c_t)
    ends = [int((slot <= k).sum()) for k in range(count + 1)]
    assert (place * 1000).round().long().tolist() == ends
    held = torch.stack([loss[a:b].sum() for a, b in pairwise(ends)])
    assert (held / loss.sum() - 1 / count).abs().max() < loss.max() / loss.sum()  # equal, but for one timestep


def test_the_papers_loss_gives_the_papers_slots():
    place = CurveSlots(curve_of(paper_loss())).knots(TABLE)[1]
    assert ((place * 1000).round() - torch.tensor([*STARTS, 1000])).abs().max() <= 1


def test_slots_of_a_continuous_curve_hold_equal_loss():
    schedule, t = SCHEDULES["cosine"], (torch.arange(1000) + 0.5) / 1000
    place = CurveSlots(curve_of((-3 * t).exp(), schedule, "Cosine"), 10).knots(schedule)[1]
    held = (1 - (-3 * place).exp()) / (1 - torch.tensor(-3.0).exp())
    torch.testing.assert_close(held, torch.linspace(0, 1, 11).double(), atol=4e-3, rtol=0)


def learned(loss_at, count=10, steps=40, **settings):
    """Slots that met a known loss where they drew themselves."""
    proposal = OnlineSlots(count, **settings)
    for index in range(steps):
        step = Timesteps(Rounds(count), Uniform(), proposal)(Step(0, index, 2000 * index, 0.0), 2000, TABLE, CPU)
        proposal.observe(seen(step.u, loss_at(step.u)))
    return proposal


def test_slots_learned_online_hold_equal_loss():
    proposal = learned(lambda u: (-3 * u).exp())
    place = proposal.knots(TABLE)[1]
    held = (1 - (-3 * place).exp()) / (1 - torch.tensor(-3.0).exp())
    torch.testing.assert_close(held, torch.linspace(0, 1, 11).double(), atol=2e-3, rtol=0)
    u = drawn(proposal).u
    assert fits(u, place, torch.ones(10)) and not fits(u, torch.linspace(0, 1, 11), torch.ones(10))


@cases("bins, off", [(128, 3), (1000, 1.5)])
def test_slots_learned_online_from_the_papers_losses_are_close_to_the_papers(bins, off):
    loss = paper_loss()
    place = learned(lambda u: loss[TABLE.index(u)], steps=60, bins=bins).knots(TABLE)[1] * 1000
    gap = (place - torch.tensor([*STARTS, 1000])).abs()
    assert (gap <= torch.tensor([*STARTS, 1000]).clamp(min=30) * 0.01 + off).all(), place


def test_online_slots_are_even_until_every_bin_was_seen_and_bins_without_loss_break_nothing():
    proposal = OnlineSlots(4, bins=8)
    proposal.observe(seen(torch.arange(7) / 8, torch.arange(7.0)))
    torch.testing.assert_close(proposal.knots(TABLE)[1], torch.linspace(0, 1, 5).double())
    proposal.observe(seen(torch.tensor([0.99]), torch.tensor([0.0])))
    place = proposal.knots(TABLE)[1]
    assert (place.diff() > 0).all() and place[0] == 0 and place[-1] == 1 and place[1] > 0.3
    q = proposal(torch.rand(1000), TABLE)[1]
    assert q.isfinite().all() and (q > 0).all()


def test_the_factory_reads_a_curve_or_learns(tmp_path):
    write(curve_of(paper_loss()), tmp_path / "loss_curve.csv")
    assert isinstance(slots(7), OnlineSlots) and slots(7).slots == 7
    fixed = slots(10, str(tmp_path / "loss_curve.csv"))
    torch.testing.assert_close(fixed.edges, CurveSlots(curve_of(paper_loss())).edges)


SHORT = LinearBetas(VariancePreserving(), steps=25)
SPIKE = torch.tensor([1000.0, *[1.0] * 999])


@cases(
    "proposal, schedule, density, line",
    [
        (OnlineSlots(30), SHORT, Uniform(), "slots=30, but the schedule has 25 timesteps: take 25 or fewer"),
        (PaperSlots(), SHORT, Uniform(), "slot 2 of 10 would hold no time of LinearBetas of 25 timesteps"),
        (PaperSlots(), TABLE, LogNormal(), "slots are of even time, not of LogNormal's: leave timesteps.density"),
        (CurveSlots(curve_of(SPIKE)), TABLE, Uniform(), "slot 2 of 10 would hold no time"),
        (
            CurveSlots(curve_of(paper_loss())),
            SHORT,
            Uniform(),
            "of 1000 timesteps, and this .* LinearBetas of 25 times",
        ),
        (CurveSlots(curve_of(paper_loss())), SCHEDULES["cosine"], Uniform(), "1000 timesteps, and .* Cosine, continu"),
        (CurveSlots(curve_of(paper_loss())), SCHEDULES["iddpm_cosine"], Uniform(), "LinearBetas .* CosineBetas"),
    ],
)
def test_slots_that_do_not_fit_are_refused(proposal, schedule, density, line):
    with pytest.raises(UserError, match=line):
        Timesteps(Rounds(proposal.strata), density, proposal).check(schedule)


@cases("proposal", [OnlineSlots(20), PaperSlots(), CurveSlots(curve_of(paper_loss()))])
def test_slots_that_fit_are_taken(proposal):
    schedule = SHORT if isinstance(proposal, OnlineSlots) else TABLE
    Timesteps(Rounds(proposal.strata), Uniform(), proposal).check(schedule)


def test_slots_are_counted_in_whole_numbers():
    with pytest.raises(UserError, match=r"timesteps.proposal.slots=0 must be a whole number"):
        slots(0)


def test_rounds_that_do_not_follow_the_slots_are_refused():
    with pytest.raises(UserError, match=r"strata=7 follows the 10 slots"):
        Timesteps(Rounds(7), Uniform(), OnlineSlots(10)).check(TABLE)
