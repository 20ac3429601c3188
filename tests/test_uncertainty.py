"""Weights that divide by the error they have seen."""

import pytest
import torch

from smallbatch.errors import UserError
from smallbatch.notation import NoiseLevel, Observed
from smallbatch.predictions import Terms
from smallbatch.uncertainty import Normalised, Uncertainty, UncertaintyBinned
from smallbatch.weightings import InV, MinSNR, Plain

cases = pytest.mark.parametrize
GRID = torch.linspace(-7, 7, 141)


def curve(logsnr):
    """A loss that spans a factor of 55 over the noise levels."""
    return (-2 + 2 * (logsnr / 3).sin()).exp()


def rows(count, seed=0):
    """log-SNRs in -8..8, and errors that scatter by a half of what they are on average."""
    drawn = torch.Generator().manual_seed(seed)
    logsnr = 16 * torch.rand(count, generator=drawn) - 8
    noise = torch.randn(count, 8, generator=drawn).square().mean(dim=1)
    return logsnr, (curve(logsnr) * noise)[:, None]


def level(logsnr):
    alpha, sigma = (x.sigmoid().sqrt()[:, None, None, None] for x in (logsnr, -logsnr))
    return NoiseLevel(torch.zeros_like(logsnr), alpha, sigma)


def weighted(weighting, logsnr, error):
    terms = Terms(error, torch.ones_like(error), error, error)
    return (weighting(terms, level(logsnr)) * error).sum(dim=1)


def fit(weighting, logsnr, error, steps=300):
    """Trains u alone, to convergence."""
    optimizer = torch.optim.LBFGS(
        weighting.parameters(), max_iter=steps, history_size=30, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = (weighted(weighting, logsnr, error) + weighting.penalty(level(logsnr))).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weighting


def watch(weighting, logsnr, error, batch=250):
    """Shows the weighting the rows, `batch` an optimizer step."""
    for x, e in zip(logsnr.split(batch), error.split(batch), strict=True):
        each = weighted(weighting, x, e).detach()
        weighting.observe(Observed(x, x, x, loss=each, weighted=each, slope=each, pooled=each, factor=e))
    return weighting


@cases("leaf", [Uncertainty, UncertaintyBinned])
def test_training_begins_as_with_the_base(leaf):
    logsnr, error = rows(64)
    torch.testing.assert_close(weighted(leaf(MinSNR()), logsnr, error), weighted(MinSNR(), logsnr, error))


def test_trained_to_the_end_exp_u_is_the_error_and_every_level_counts_one():
    grid, error = GRID.double(), curve(GRID.double())
    trained = fit(Uncertainty(Plain()).double(), grid, error[:, None])
    torch.testing.assert_close(trained.u(grid).exp(), error, rtol=0.01, atol=0)
    torch.testing.assert_close(weighted(trained, grid, error[:, None]), torch.ones_like(grid), rtol=0.01, atol=0)


def test_columns_share_u_which_is_the_error_of_their_sum():
    grid, error = GRID.double(), curve(GRID.double())[:, None] * torch.tensor([0.5, 1.5])
    trained = fit(Uncertainty(Plain()).double(), grid, error)
    torch.testing.assert_close(trained.u(grid).exp(), error.sum(dim=1), rtol=0.01, atol=0)
    torch.testing.assert_close(weighted(trained, grid, error), torch.ones_like(grid), rtol=0.01, atol=0)


def test_learned_and_closed_form_agree_on_a_noisy_loss_and_every_level_then_counts_one():
    learned = fit(Uncertainty(Plain()), *rows(20_000), steps=40)
    closed = watch(UncertaintyBinned(Plain()), *rows(150_000))
    torch.testing.assert_close(learned.u(GRID), closed.u(GRID), rtol=0, atol=0.1)
    logsnr, error = rows(64_000, seed=1)
    for weighting in (learned, closed):
        each = weighted(weighting, logsnr, error).detach()
        levels = [each[(logsnr - middle).abs() < 1].mean().item() for middle in (-6, -4, -2, 0, 2, 4, 6)]
        assert levels == pytest.approx([1] * 7, abs=0.05)


def test_the_closed_form_takes_the_error_under_its_base():
    binned = watch(UncertaintyBinned(InV(), halflife_images=1e6), *rows(100_000))
    expected = curve(GRID) * (1 + GRID.exp())  # a gain of 1: an error of x0
    torch.testing.assert_close(binned.u(GRID).exp(), expected, rtol=0.15, atol=0)


def test_a_bin_that_saw_nothing_keeps_the_prior():
    binned = watch(UncertaintyBinned(Plain()), *rows(10_000))
    assert binned.u(torch.tensor([-30.0, -9.5, 9.5, 30.0])).tolist() == [0, 0, 0, 0]
    assert (binned.u(GRID) < -0.01).all()


def test_the_closed_form_resumes_bit_for_bit():
    logsnr, error = rows(4000)
    whole = watch(UncertaintyBinned(Plain()), logsnr, error)
    resumed = UncertaintyBinned(Plain())
    resumed.load_state_dict(watch(UncertaintyBinned(Plain()), logsnr[:2000], error[:2000]).state_dict())
    watch(resumed, logsnr[2000:], error[2000:])
    assert torch.equal(resumed.u(GRID), whole.u(GRID)) and not torch.equal(whole.u(GRID), torch.zeros(141))


def test_fourier_features_do_not_depend_on_the_global_generator():
    state = torch.get_rng_state()
    first = Uncertainty(Plain())
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    assert torch.equal(Uncertainty(Plain()).frequency, first.frequency)


def test_autocast_does_not_round_u():
    trained = fit(Uncertainty(Plain()), GRID, curve(GRID)[:, None], steps=5)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = trained.u(GRID)
    assert torch.equal(rounded, trained.u(GRID))


@cases("leaf", [Uncertainty, UncertaintyBinned])
def test_a_weight_that_already_divides_is_no_base(leaf):
    assert issubclass(leaf, Normalised)
    with pytest.raises(UserError, match="choose a fixed weight"):
        leaf(Uncertainty(Plain()))


@cases("settings", [{"bins": 1}, {"low": 3.0, "high": 3.0}, {"prior_rows": 0.0}, {"halflife_images": 0.0}])
def test_bins_that_cannot_be_are_refused(settings):
    with pytest.raises(UserError, match=f"{next(iter(settings))}="):
        UncertaintyBinned(Plain(), **settings)
