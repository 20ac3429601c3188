"""Scores that need the features of single images: kernel distance, Inception Score, precision and recall."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from smallbatch.errors import UserError
from smallbatch.metrics.moments import where_float64

SUBSETS, SUBSET = 100, 1000
SPLITS = 10
NEIGHBOURS = 3
ROWS = 1000  # of a matrix of distances held at once
SEED = 2020  # torch-fidelity's, so that the same features meet in the same subsets


class KernelDistance(NamedTuple):
    """`error`: standard error of the mean, from the chance in both sets of images and in the choice of subsets."""

    mean: float
    error: float
    marks: tuple[str, ...]


class InceptionScore(NamedTuple):
    """`std`: standard deviation over the splits, as published; it is no standard error."""

    mean: float
    std: float


class PrecisionRecall(NamedTuple):
    """Shares, 0..1: of generated images that lie among real ones, of real images that lie among generated ones."""

    precision: float
    recall: float


def kernel_distance(generated: Float[Tensor, "n d"], real: Float[Tensor, "m d"]) -> KernelDistance:
    """Unbiased squared MMD with the kernel (x.y / d + 1)^3, mean over subsets. Binkowski et al. 2018 (1801.01401), 3.

    The mean is torch-fidelity's, in float64, for its float32 is percents off where the distance is near 0. Not so the
    error: subsets share images, and their spread over the root of their number is far below the standard error.
    """
    n, m = len(generated), len(real)
    _refuse_fewer_than(2, min(n, m), "a kernel distance")
    size, chosen = min(SUBSET, n, m), np.random.RandomState(SEED)
    count = 1 if n == m == size else SUBSETS  # else all were the same
    parts = [_subset(_some(generated, size, chosen), _some(real, size, chosen)).cpu() for _ in range(count)]
    mmd, x, y, xx, yy, xy = torch.stack(parts, dim=1)
    own = (4 * x / n + 4 * y / m).mean().clamp(min=0)
    shared = (2 * xx / n**2 + 2 * yy / m**2 + 4 * xy / (n * m)).mean()
    error = (own + shared.clamp(min=0) + mmd.var(correction=0) / count).sqrt()
    marks = () if size == SUBSET else (f"subsets of {size} images instead of {SUBSET}",)
    return KernelDistance(float(mmd.mean()), float(error), marks)


def inception_score(logits: Float[Tensor, "n k"]) -> InceptionScore:
    """exp of the mean KL divergence of p(class | image) from p(class). Salimans et al. 2016 (1606.03498), section 4.

    In 10 splits of the shuffled images. Probabilities stay above 0: a class that no image is near would be 0 * inf.
    """
    _refuse_fewer_than(SPLITS, len(logits), "an Inception Score")
    likely = logits.to(where_float64(logits.device)).double().log_softmax(dim=1).clamp(min=-700)
    score = isc_features_to_metric(likely, splits=SPLITS, rng_seed=SEED)
    return InceptionScore(score[KEY_METRIC_ISC_MEAN], score[KEY_METRIC_ISC_STD])


def precision_recall(generated: Float[Tensor, "n d"], real: Float[Tensor, "m d"]) -> PrecisionRecall:
    """Images nearer to one of the other set than its third neighbour there. Kynkäänniemi et al. 2019 (1904.06991), 3.

    Both depend on n and m: compare only scores of equal numbers, best n = m. Distances do not depend on the origin, and
    torch.cdist, which subtracts squared norms, loses fewest digits where the norms are small: at the mean.
    """
    _refuse_fewer_than(NEIGHBOURS + 1, min(len(generated), len(real)), "precision and recall")
    origin = real.mean(dim=0)
    score = prc_features_to_metric(
        generated - origin,
        real - origin,
        prc_neighborhood=NEIGHBOURS,
        prc_batch_size=ROWS,
        save_cpu_ram=True,
        verbose=False,
    )
    return PrecisionRecall(score[KEY_METRIC_PRECISION], score[KEY_METRIC_RECALL])


def _some(features: Float[Tensor, "n d"], size: int, chosen: np.random.RandomState) -> Float64[Tensor, "size d"]:
    rows = torch.from_numpy(chosen.choice(len(features), size, replace=False))
    return features[rows.to(features.device)].to(where_float64(features.device)).double()


def _subset(x: Float64[Tensor, "s d"], y: Float64[Tensor, "s d"]) -> Float64[Tensor, "6"]:
    """The squared MMD, and the variances of which its own is made (Hoeffding's decomposition).

    Those of an image's own part, of x and of y, and of what is left to pairs: xx, yy, xy. Like the estimators of
    Sutherland & Deka 2019 (1906.02104), with terms of relative order 1/s left out.
    """
    between = _kernel(x, y)
    of_x, of_y, mean = between.mean(dim=1), between.mean(dim=0), between.mean()
    xy = between.square().mean() - of_x.square().mean() - of_y.square().mean() + mean.square()
    (x_own, xx), (y_own, yy) = _pairs(_kernel(x, x)), _pairs(_kernel(y, y))
    x_own, y_own = x_own - of_x, y_own - of_y
    own = x_own.var() - (xx + xy) / len(x), y_own.var() - (yy + xy) / len(y)
    return torch.stack([x_own.mean() + y_own.mean(), *own, xx, yy, xy])


def _kernel(x: Float64[Tensor, "n d"], y: Float64[Tensor, "m d"]) -> Float64[Tensor, "n m"]:
    return torch.addmm(x.new_ones(1), x, y.T, alpha=1 / x.shape[1]).pow_(3)


def _pairs(kernel: Float64[Tensor, "s s"]) -> tuple[Float64[Tensor, " s"], Float64[Tensor, ""]]:
    """Each image's mean over the others, and the mean square of what the means of a pair do not say of it."""
    others, own = len(kernel) - 1, kernel.diagonal()
    mean = (kernel.sum(dim=1) - own) / others
    square = (kernel.square().sum() - own.square().sum()) / (len(kernel) * others)
    return mean, square - 2 * mean.square().mean() + mean.mean().square()


def _refuse_fewer_than(least: int, n: int, what: str) -> None:
    if n < least:
        raise UserError(f"n={n} is too small for {what}: it needs at least {least} images")
