"""Proposals: where they draw, what corrects for it, and what they learn."""

import pytest
import torch

from smallbatch import densities
from smallbatch.draws import IID, Stratified
from smallbatch.errors import UserError
from smallbatch.notation import Observed
from smallbatch.proposals import Importance, LossProportional, PooledGradient, RootLoss, between
from smallbatch.randomness import Step
from smallbatch.timesteps import Timesteps
from tests.chi_square import fits
from tests.leaves import DENSITIES, DRAWS, PROPOSALS, SCHEDULES

cases = pytest.mark.parametrize
CPU = torch.device("cpu")
EVERY = cases("proposal", PROPOSALS.values(), ids=PROPOSALS)
MOVING = {name: proposal for name, proposal in PROPOSALS.items() if name != "as_drawn"}
EVERY_MOVING = cases("proposal", MOVING.values(), ids=MOVING)
LEARNED = {"root_loss": (RootLoss, 0.5), "pooled": (PooledGradient, 0.5), "proportional": (LossProportional, 1.0)}


def loss(u):
    """Falls steeply, as that of eps does."""
    return 0.1 + 2 * (-6 * u).exp()


def seen(u, loss=loss):
    """What a step reports whose every signal is loss(u)."""
    value, none = loss(u), torch.zeros_like(u)
    return Observed(t=u, u=u, logsnr=none, loss=value, weighted=value, slope=value, pooled=value, factor=value[:, None])


def taught(proposal, rows=20_000, loss=loss):
    proposal.observe(seen(torch.rand(rows, generator=torch.Generator().manual_seed(1)), loss))
    return proposal


def draw(proposal, n, schedule="ddpm_linear", draw=IID(), index=0):  # noqa: B008
    timesteps = Timesteps(draw, densities.Uniform(), proposal)
    return timesteps(Step(3, index, n * index, 0.0), n, SCHEDULES[schedule], CPU)


@EVERY_MOVING
@cases("schedule", ["ddpm_linear", "cosine"])
def test_points_follow_the_knots_and_not_others(proposal, schedule):
    u = draw(proposal := taught(proposal()), 200_000, schedule).u
    mass, place = proposal.knots(SCHEDULES[schedule])
    assert fits(u, place, mass.diff())
    tilted = mass.diff() * torch.linspace(0.9, 1.1, len(mass) - 1)
    assert not fits(u, place, tilted)


@EVERY_MOVING
def test_points_are_even_between_knots(proposal):
    u = draw(proposal := taught(proposal()), 200_000).u
    _, place = proposal.knots(SCHEDULES["ddpm_linear"])
    piece = torch.searchsorted(place[1:-1].contiguous(), u.to(place), right=True)
    inside = (u - place[piece]) / place.diff()[piece]
    assert fits(inside.clamp(0, 1), torch.linspace(0, 1, 21), torch.ones(20))


@EVERY
def test_q_is_the_density_of_the_points_and_its_mean_is_one(proposal):
    proposal, n = taught(proposal()), 200_000
    u, q = proposal((torch.arange(n) + 0.5) / n, SCHEDULES["ddpm_linear"])
    spacing = u.double().diff() * n  # of evenly drawn points: 1 / q
    same = q[1:] == q[:-1]
    torch.testing.assert_close((1 / spacing[same]).mean(), q[1:][same].double().mean(), rtol=0.02, atol=0)
    torch.testing.assert_close((1 / q.double()).mean(), torch.tensor(1.0).double(), rtol=1e-3, atol=0)
    assert (u.diff() >= 0).all() and (u >= 0).all() and (u < 1).all() and u[-1] > 0.999


@EVERY
@cases("name", ["uniform", "lognormal", "toward_noise"])
def test_a_corrected_mean_is_that_of_the_density(proposal, name):
    proposal, n = taught(proposal()), 100_000
    values = {}
    for key, moved in {"base": None, "moved": proposal}.items():
        timesteps = Timesteps(IID(), DENSITIES[name], moved)
        t, importance, _ = timesteps(Step(5, 0, 0, 0.0), n, SCHEDULES["cosine"], CPU)
        values[key] = importance.double() * loss(t.double())
    gap = values["moved"].mean() - values["base"].mean()
    assert gap.abs() < 4 * sum(v.var() / n for v in values.values()).sqrt()


@EVERY_MOVING
def test_without_correction_the_mean_is_another(proposal):
    timesteps = Timesteps(Stratified(), densities.Uniform(), taught(proposal()), correction=0.0)
    t, importance, _ = timesteps(Step(5, 0, 0, 0.0), 10_000, SCHEDULES["ddpm_linear"], CPU)
    assert (importance == 1).all() and loss(t).mean() > 1.1 * loss(torch.linspace(0, 1, 10_000)).mean()


@cases("ranks, micros", [(r, m) for r in (1, 2, 4) for m in (1, 2, 4)])
@cases("name", DRAWS)
@EVERY
def test_any_split_over_ranks_and_micro_batches_forms_the_same_global_set(proposal, name, ranks, micros):
    timesteps = Timesteps(DRAWS[name], densities.Uniform(), taught(proposal(), rows=3000))
    where = [dict(rank=r, ranks=ranks, micro=m, micros=micros) for m in range(micros) for r in range(ranks)]
    steps = [Step(0, 7, 7 * 48, 0.0, **here) for here in where]
    parts = [timesteps(step, 48 // len(where), SCHEDULES["ddpm_linear"], CPU) for step in steps]
    whole = timesteps(Step(0, 7, 7 * 48, 0.0), 48, SCHEDULES["ddpm_linear"], CPU)
    for column, expected in zip(zip(*parts, strict=True), whole, strict=True):
        torch.testing.assert_close(torch.cat(column), expected, rtol=0, atol=0)


@EVERY
@cases("rows", [64, 20_000])
def test_a_proposal_that_is_restored_goes_on_bit_for_bit(proposal, rows):
    """64 rows leave most of them in their warm-up."""
    straight, before = taught(proposal(), rows), taught(proposal(), rows)
    resumed = proposal()
    resumed.load_state_dict(before.state_dict())
    for either in (straight, resumed):
        either.observe(seen(torch.rand(4000, generator=torch.Generator().manual_seed(2))))
    a, b = draw(straight, 1000), draw(resumed, 1000)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@cases("name", LEARNED)
def test_learned_proposals_follow_the_power_of_their_signal(name):
    made, power = LEARNED[name]
    proposal, middles = made(bins=20), (torch.arange(20) + 0.5) / 20
    for _ in range(5):
        proposal.observe(seen(middles.repeat(100)))
    drive = loss(middles).double() ** power
    q = proposal.uniform + (1 - proposal.uniform) * drive / drive.mean()
    q = q.clamp(proposal.least, proposal.most)
    torch.testing.assert_close(proposal.wanted(), q / q.mean(), rtol=1e-5, atol=0)


@cases("name", LEARNED)
def test_learned_proposals_are_uniform_until_every_bin_was_seen(name):
    proposal = LEARNED[name][0](bins=8)
    proposal.observe(seen(torch.arange(7).repeat(9) / 8))
    assert (proposal.wanted() == 1).all()
    proposal.observe(seen(torch.tensor([0.99])))
    assert proposal.wanted().std() > 0.1


def test_learned_proposals_are_clipped_and_scaled_to_a_mean_of_1_and_a_loss_of_zero_is_uniform():
    spike = taught(RootLoss(), loss=lambda u: (u < 1 / 32) * 1e6 + 1e-9).wanted()
    assert spike.min() * (1 + 1e-9) >= 0.3 and 1 < spike.max() <= 4 / (31 * 0.3 + 4) * 32 + 1e-9
    assert (taught(LossProportional(), loss=torch.zeros_like).wanted() == 1).all()


def test_the_correction_of_a_loss_proportional_draw_evens_out_the_loss():
    proposal = taught(LossProportional(bins=20, uniform=1e-6), rows=200_000)
    u, importance = draw(proposal, 10_000, draw=Stratified())[2], draw(proposal, 10_000, draw=Stratified())[1]
    corrected = importance * loss(u)
    assert corrected.std() / corrected.mean() < 0.1 < loss(u).std() / loss(u).mean()


class ByHand:
    """The loss-second-moment resampler as improved-diffusion states it, row by row."""

    def __init__(self, steps, history=10, uniform=0.001):
        self.losses, self.history, self.uniform = [[] for _ in range(steps)], history, uniform

    def observe(self, u, loss):
        for place, value in zip(u.tolist(), loss.tolist(), strict=True):
            row = self.losses[int(place * len(self.losses))]
            row.append(value)
            del row[: -self.history]

    def p(self):
        n = len(self.losses)
        if min(map(len, self.losses)) < self.history:
            return torch.full((n,), 1 / n).double()
        root = torch.tensor([(sum(v**2 for v in row) / self.history) ** 0.5 for row in self.losses]).double()
        return (1 - self.uniform) * root / root.sum() + self.uniform / n


@cases("batch", [1, 7, 64, 300])  # with 300 rows in 8 bins, a step holds more of a bin than the history
def test_importance_is_improved_diffusions_resampler_step_by_step(batch):
    ours, theirs, source = Importance(steps=8), ByHand(8), torch.Generator().manual_seed(batch)
    for _ in range(600 // batch + 2):
        u = torch.rand(batch, generator=source) ** 1.2
        value = torch.randn(batch, generator=source).exp()
        ours.observe(seen(u, lambda _, value=value: value))
        theirs.observe(u, value)
        torch.testing.assert_close(ours.wanted() / 8, theirs.p(), rtol=1e-6, atol=0)
    assert theirs.p().std() > 0


def test_importance_is_one_over_t_p():
    proposal = taught(Importance(steps=100))
    _, importance, u = draw(proposal, 1000)
    p = proposal.wanted() / 100
    torch.testing.assert_close(importance, (1 / (100 * p[(u * 100).long()])).float(), rtol=1e-5, atol=1e-6)


def test_importance_refuses_a_table_of_another_length_and_takes_its_own():
    with pytest.raises(UserError, match=r"steps=10, .* 1000 timesteps: use timesteps.proposal.steps=1000"):
        Timesteps(IID(), densities.Uniform(), Importance(10)).check(SCHEDULES["ddpm_linear"])
    Timesteps(IID(), densities.Uniform(), Importance(1000)).check(SCHEDULES["ddpm_linear"])
    Timesteps(IID(), densities.Uniform(), Importance(10)).check(SCHEDULES["cosine"])


@cases(
    "make, line",
    [
        (lambda: Importance(steps=0), "steps=0 must be a whole number"),
        (lambda: Importance(history=0), "history=0 must be a whole number"),
        (lambda: Importance(uniform=0), "uniform=0 must lie above 0"),
        (lambda: RootLoss(bins=0), "bins=0 must be a whole number"),
        (lambda: RootLoss(uniform=1.5), "uniform=1.5 must lie above 0"),
        (lambda: RootLoss(least=2.0), "least=2.0 and most=4.0 must have 1"),
        (lambda: RootLoss(halflife_images=0), "halflife_images=0 must be above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, line):
    with pytest.raises(UserError, match=line):
        make()


def test_between_reads_off_straight_lines():
    mass, place = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0.0, 0.1, 1.0])
    moved, q = between(torch.tensor([0.0, 0.25, 0.5, 0.75]), mass, place)
    torch.testing.assert_close(moved, torch.tensor([0.0, 0.05, 0.1, 0.55]))
    torch.testing.assert_close(q, torch.tensor([5.0, 5.0, 0.5 / 0.9, 0.5 / 0.9]))
