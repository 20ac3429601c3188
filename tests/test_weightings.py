"""Loss weights."""

import pytest
import torch

from smallbatch import weightings as W
from tests.leaves import PREDICTIONS, SCHEDULES, WEIGHTINGS

cases = pytest.mark.parametrize


def weighted(weighting, prediction, schedule):
    """Losses of one image guess, stated in each prediction's own space, and the log-SNR."""
    torch.manual_seed(0)
    level = SCHEDULES[schedule](torch.linspace(0.05, 0.95, 9).double())
    x0, eps, guess = torch.randn(3, 9, 3, 4, 4, dtype=torch.float64)
    pair = level.unmix(level.mix(x0, eps), guess)
    a, b = prediction.basis(level)
    terms = prediction.terms(a * pair.x0 + b * pair.eps, x0, eps, level)
    return weighting(terms, level), terms.error, level


@cases("schedule", SCHEDULES)
@cases("name", [name for name, w in WEIGHTINGS.items() if isinstance(w, W.OnX0)])
def test_a_weight_is_the_same_for_every_prediction(name, schedule):
    losses = [weighted(WEIGHTINGS[name], prediction, schedule)[0] for prediction in PREDICTIONS.values()]
    for loss in losses[1:]:
        torch.testing.assert_close(loss, losses[0], atol=1e-6, rtol=1e-6)


@cases("space", ["x0", "eps", "v"])
@cases("output", ["x0", "eps", "v"])
def test_all_nine_pairs_of_output_and_loss_space_give_the_error_of_that_space(output, space):
    loss, _, _ = weighted(WEIGHTINGS[f"in_{space}"], PREDICTIONS[output], "cosine")
    plain, _, _ = weighted(WEIGHTINGS["plain"], PREDICTIONS[space], "cosine")
    torch.testing.assert_close(loss, plain)


def test_min_snr_reproduces_the_published_cases():
    for name, case in {
        "x0": lambda snr: snr.clamp(max=5),
        "eps": lambda snr: snr.clamp(max=5) / snr,
        "v": lambda snr: snr.clamp(max=5) / (snr + 1),
    }.items():
        loss, error, level = weighted(W.MinSNR(5.0), PREDICTIONS[name], "cosine")
        torch.testing.assert_close(loss / error, case(level.logsnr.flatten(1).exp()))


def test_edms_weight_makes_its_own_output_plain():
    loss, error, _ = weighted(W.EDMWeight(0.5), PREDICTIONS["edm"], "edm")
    torch.testing.assert_close(loss, error)
