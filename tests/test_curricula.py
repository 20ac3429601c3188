"""Densities that move with the progress of training."""

import pytest
import torch

from smallbatch.curricula import CLTS, CLTSInLogSNR, EasyToHard
from smallbatch.errors import UserError
from smallbatch.notation import Observed
from smallbatch.tables import LinearBetas
from tests.chi_square import fits
from tests.leaves import CONTINUOUS, PATHS, SCHEDULES, TABLES

cases = pytest.mark.parametrize
NORMAL = torch.distributions.Normal(0.0, 1.0)
EDGES = torch.linspace(0, 1, 51, dtype=torch.float64)
COSINE = SCHEDULES["cosine"]


def points(density, progress, schedule=COSINE, n=200_000):
    u = torch.rand(n, generator=torch.Generator().manual_seed(0))
    t, importance = density(u, schedule, progress)
    assert (importance == 1).all() and (t >= 0).all() and (t <= 1).all()
    return t


def cut(x, mean, std, low, high):
    """The distribution function of N(mean, std^2) cut to low..high."""
    at, first, last = (NORMAL.cdf((torch.as_tensor(v).double() - mean) / std) for v in (x, low, high))
    return (at - first) / (last - first)


def in_logsnr(schedule, t):
    """The distribution function over time of the Gaussian that CLTSInLogSNR ends at."""
    ends, at = schedule.logsnr(torch.tensor([1.0, 0.0])), schedule.logsnr(t.float()).double()
    return 1 - cut(at, -0.43, 2.0, *ends)


@cases("progress, c", [(0.0, 0.0), (0.1, 0.25), (0.2, 0.5), (0.4, 1.0), (0.9, 1.0)])
@cases("mean, std", [(0.3, 0.3), (1.0, 0.05), (0.0, 2.0)])
def test_clts_is_a_mixture_of_even_and_a_cut_gaussian(progress, c, mean, std):
    t = points(CLTS(mean, std, length=0.4), progress)
    law = (1 - c) * EDGES + c * cut(EDGES, mean, std, 0, 1)
    kept = law.diff() > 1e-4
    edges = torch.cat([EDGES[:-1][kept], EDGES[1:][kept][-1:]])
    inside = t[(t >= edges[0]) & (t <= edges[-1])]
    assert fits(inside, edges, law.diff()[kept])


def test_another_mixture_is_told_apart():
    t = points(CLTS(length=0.5), progress=0.25)
    assert fits(t, EDGES, (0.5 * EDGES + 0.5 * cut(EDGES, 0.3, 0.3, 0, 1)).diff())
    assert not fits(t, EDGES, (0.45 * EDGES + 0.55 * cut(EDGES, 0.3, 0.3, 0, 1)).diff())
    assert not fits(t, EDGES, (0.5 * EDGES + 0.5 * cut(EDGES, 0.33, 0.3, 0, 1)).diff())


def test_the_moments_of_clts_are_those_of_its_closed_form():
    a, b = torch.tensor(-1.0).double(), torch.tensor(7 / 3).double()
    share, density = NORMAL.cdf(b) - NORMAL.cdf(a), lambda z: NORMAL.log_prob(z).exp()
    mean = 0.3 + 0.3 * (density(a) - density(b)) / share
    square = mean**2 + 0.09 * (1 + (a * density(a) - b * density(b)) / share - ((density(a) - density(b)) / share) ** 2)
    u = (torch.arange(20_000) + 0.5) / 20_000
    for progress, c in ((0.25, 0.5), (0.5, 1.0)):
        t = CLTS(length=0.5)(u, COSINE, progress)[0].double()
        torch.testing.assert_close(t.mean(), (1 - c) / 2 + c * mean, rtol=0, atol=1e-5)
        torch.testing.assert_close(t.square().mean(), (1 - c) / 3 + c * square, rtol=0, atol=1e-5)


def test_on_a_table_every_index_gets_the_mass_of_its_interval():
    schedule = LinearBetas(PATHS["preserving"], steps=50)
    index = schedule.index(points(CLTS(), 0.25, schedule)).double()
    assert fits(index + 0.5, torch.arange(51.0), (0.5 * EDGES + 0.5 * cut(EDGES, 0.3, 0.3, 0, 1)).diff())


@cases("progress, c", [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (1.0, 1.0)])
@cases("schedule", CONTINUOUS.values(), ids=CONTINUOUS)
def test_in_logsnr_the_gaussian_is_cut_to_the_schedule(schedule, progress, c):
    t = points(CLTSInLogSNR(), progress, schedule)
    masses = (1 - c) * EDGES.diff() + c * in_logsnr(schedule, EDGES).diff()
    kept = masses > 1e-5
    edges, shares = torch.cat([EDGES[:1], EDGES[1:][kept]]), masses[kept]
    assert masses[~kept].sum() < 1e-4 and fits(t, torch.cat([edges[:-1], EDGES[-1:]]), shares)


def test_in_logsnr_a_table_gives_each_index_what_is_nearest_to_it():
    schedule = LinearBetas(PATHS["preserving"], steps=50)
    index = schedule.index(points(CLTSInLogSNR(), 1.0, schedule)).double()
    between = (schedule.table[1:] + schedule.table[:-1]) / 2
    law = 1 - cut(torch.cat([schedule.table[:1], between, schedule.table[-1:]]), -0.43, 2.0, *schedule.table[[-1, 0]])
    kept = torch.arange(3, 45)  # what lies outside is rare
    inside = index[(index >= 3) & (index < 45)]
    assert len(inside) > 0.9 * len(index) and fits(inside + 0.5, torch.arange(3.0, 46.0), law.diff()[kept])


@cases("density", [CLTS(), CLTS(mean=0.0, std=0.01), CLTSInLogSNR(), CLTSInLogSNR(std=0.01), EasyToHard()])
@cases("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_both_ends_and_the_seam_of_the_mixture_are_finite(density, schedule):
    u = torch.tensor([0.0, 1e-30, 0.25, 0.5, 0.75, 1 - 2**-24])
    for progress in (0.0, 1e-9, 0.25, 0.5, 1.0):
        t, _ = density(u, schedule, progress)
        assert (t >= 0).all() and (t <= 1).all()


@cases("make", [CLTS, CLTSInLogSNR, EasyToHard])
@cases("length", [0.0, -1.0, 1.5, float("nan")])
def test_a_length_that_is_no_share_of_the_budget_is_refused(make, length):
    with pytest.raises(UserError, match=f"length={length} is a share of the budget"):
        make(length=length)


def test_a_mean_outside_the_axis_is_refused():
    with pytest.raises(UserError, match=r"mean=1\.2 is a time"):
        CLTS(mean=1.2)
    with pytest.raises(UserError, match=r"mean=20 must lie in the schedule's log-SNR, -15 to 15"):
        CLTSInLogSNR(mean=20).check(COSINE)
    CLTSInLogSNR().check(TABLES["ddpm_linear"])


def seen(t, weighted):
    blank = torch.zeros_like(t)
    return Observed(t, blank, blank, blank, weighted, blank, blank, t[:, None])


def trained(density, steps, loss=lambda i, t: torch.ones_like(t), budget=1000, start=0, schedule=COSINE, rows=64):
    """How many clusters each step found open."""
    opened = []
    for i in range(start, start + steps):
        u = torch.rand(rows, generator=torch.Generator().manual_seed(i))
        t, _ = density(u, schedule, i / budget)
        opened.append(density.opened.clamp(min=density.due).item())
        density.observe(seen(schedule.snap(t), loss(i, t)))
    return opened


@cases("progress, opened", [(0.0, 1), (0.1, 10), (0.2, 20), (0.7, 20)])
def test_easy_to_hard_is_even_over_the_open_clusters(progress, opened):
    t = points(EasyToHard(clusters=20, length=0.2), progress)
    assert 0 <= t.min() - (1 - opened / 20) < 1e-4
    inside = torch.linspace(1 - opened / 20, 1, 31).clamp(max=1).index_fill_(0, torch.tensor(0), 0)
    assert fits(t, inside, torch.ones(30))


def test_easy_to_hard_ends_as_the_baseline():
    u = torch.rand(1000)
    assert torch.equal(EasyToHard(length=0.2)(u, COSINE, 0.2)[0], u)


def test_without_a_stall_clusters_open_at_an_even_pace():
    falling = lambda i, t: torch.full_like(t, 0.9**i)  # noqa: E731
    opened = trained(EasyToHard(clusters=11, length=0.2, halflife_images=500), 300, falling)
    assert opened == [1 + min(i // 20, 10) for i in range(300)]


def test_a_stall_opens_the_next_cluster_after_its_patience():
    opened = trained(EasyToHard(clusters=5, length=1.0, patience_images=640), 100)
    assert [opened.index(count) for count in range(1, 6)] == [0, 11, 22, 33, 44]  # one row group sets the low, ten wait


@cases("schedule", ["cosine", "rectified_flow", "ddpm_linear"])
def test_open_clusters_only_grow_and_no_row_falls_outside(schedule):
    density, noisy = EasyToHard(length=0.3, patience_images=300), lambda i, t: torch.rand(len(t)) + t
    opened = torch.tensor(trained(density, 400, noisy, schedule=SCHEDULES[schedule]))
    assert (opened.diff() >= 0).all() and opened[0] == 1 and opened[300] == 20


def test_a_cluster_that_has_seen_nothing_does_not_stall():
    density = EasyToHard(clusters=2, length=1.0, patience_images=64)
    for _ in range(10):
        density.observe(seen(torch.full((64,), 0.3), torch.ones(64)))
    assert density.opened.item() == 1 and density.stalled_for.item() == 0


def test_a_warm_up_resumes_bit_for_bit():
    noisy = lambda i, t: torch.rand(len(t), generator=torch.Generator().manual_seed(i)) + t  # noqa: E731
    whole, first, second = (EasyToHard(patience_images=500) for _ in range(3))
    run = trained(whole, 120, noisy)
    trained(first, 60, noisy)
    second.load_state_dict(first.state_dict())
    assert trained(second, 60, noisy, start=60) == run[60:] and 1 < run[60] < 20
    assert all(torch.equal(a, b) for a, b in zip(second.buffers(), whole.buffers(), strict=True))


def test_more_clusters_than_times_are_refused():
    with pytest.raises(UserError, match=r"clusters=20 must be at most schedule\.steps=10"):
        EasyToHard(clusters=20).check(LinearBetas(PATHS["preserving"], steps=10, last=0.005))
    EasyToHard(clusters=20).check(COSINE)
