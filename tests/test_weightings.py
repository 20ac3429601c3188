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
    return weighting(terms, level) * terms.error, terms.error, level


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


PUBLISHED = {  # as each paper and its followers state the weight on the error of eps, v, x0
    "snr": (lambda s: torch.ones_like(s), lambda s: s / (s + 1), lambda s: s),
    "min_snr": (lambda s: s.clamp(max=5) / s, lambda s: s.clamp(max=5) / (s + 1), lambda s: s.clamp(max=5)),
    "truncated_snr": (lambda s: s.clamp(min=1) / s, lambda s: s.clamp(min=1) / (s + 1), lambda s: s.clamp(min=1)),
    "soft_min_snr": (lambda s: 4 / (s + 4), lambda s: 4 * s / ((s + 4) * (s + 1)), lambda s: 4 * s / (s + 4)),
    "p2": (lambda s: 1 / (1 + s), lambda s: s / (1 + s) ** 2, lambda s: s / (1 + s)),
    "debias": (lambda s: s**-0.5, lambda s: s**0.5 / (s + 1), lambda s: s**0.5),
    "sigmoid": (
        lambda s: (2 - s.log()).sigmoid(),
        lambda s: (2 - s.log()).sigmoid() * s / (s + 1),
        lambda s: (2 - s.log()).sigmoid() * s,
    ),
}


@cases("name", PUBLISHED)
def test_a_weight_reproduces_its_published_cases(name):
    for space, case in zip(["eps", "v", "x0"], PUBLISHED[name], strict=True):
        loss, error, level = weighted(WEIGHTINGS[name], PREDICTIONS[space], "cosine")
        torch.testing.assert_close(loss / error, case(level.logsnr.flatten(1).exp()))


def test_p2_has_its_published_power():
    loss, error, level = weighted(W.P2(k=2.0, gamma=0.5), PREDICTIONS["eps"], "cosine")
    torch.testing.assert_close(loss / error, (2 + level.logsnr.flatten(1).exp()) ** -0.5)


def test_soft_min_snr_reproduces_its_case_for_edms_output():
    loss, error, level = weighted(W.SoftMinSNR(gamma=0.5**-2), PREDICTIONS["edm"], "edm")
    variance = level.sigma.flatten(1).square()
    torch.testing.assert_close(loss / error, variance * 0.25 / (variance + 0.25) ** 2)


def test_edms_weight_makes_its_own_output_plain():
    loss, error, _ = weighted(W.EDMWeight(0.5), PREDICTIONS["edm"], "edm")
    torch.testing.assert_close(loss, error)
