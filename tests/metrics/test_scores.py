"""Kernel distance, Inception Score, precision and recall: closed forms, and torch-fidelity on the same features."""

import math

import pytest
import torch
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from smallbatch.errors import UserError
from smallbatch.metrics import scores
from smallbatch.metrics.scores import inception_score, kernel_distance, precision_recall
from smallbatch.randomness import generator

cases = pytest.mark.parametrize


def features(n, d, *seed):
    """At least 0, as those of networks that end in a mean over ReLUs."""
    return torch.randn(n, d, generator=generator(n, d, *seed)).abs()


def kid(a, b, size, subsets=100):
    return kid_features_to_metric(a, b, kid_subset_size=size, kid_subsets=subsets, verbose=False)[KEY_METRIC_KID_MEAN]


@cases("n, m", [(150, 120), (130, 260), (60, 60)])
@cases("shift", [0.05, 1.0])
def test_the_kernel_distance_is_torch_fidelitys(n, m, shift):
    a, b = features(n, 8, "a") + shift, features(m, 8, "b")
    found = kernel_distance(a, b).mean
    assert found == pytest.approx(kid(a.double(), b.double(), min(n, m)), rel=1e-9)
    assert found == pytest.approx(kid(a, b, min(n, m)), rel=1e-4)


def test_subsets_are_of_1000_images(monkeypatch):
    monkeypatch.setattr(scores, "SUBSETS", 3)
    a, b = features(1040, 4, "a") * 1.1, features(1010, 4, "b")
    found = kernel_distance(a, b)
    assert found.mean == pytest.approx(kid(a, b, 1000, subsets=3), rel=1e-4) and found.marks == ()


def test_smaller_subsets_are_marked():
    assert kernel_distance(features(70, 4), features(30, 4)).marks == ("subsets of 30 images instead of 1000",)


@cases("n, m", [(5, 5), (2, 2), (4, 9)])
def test_clouds_of_one_point_each_are_as_far_as_the_kernel_says(n, m):
    x, y = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0.0, 1.0, -2.0])
    found = kernel_distance(x.repeat(n, 1), y.repeat(m, 1))
    kernel = [((a * b).mean() + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    assert found.mean == pytest.approx(float(kernel[0] + kernel[1] - 2 * kernel[2]), rel=1e-6)
    assert found.error < 1e-6 * found.mean


def repeated(times, n, m, shift):
    """Means and errors of independent pairs of clouds."""
    pairs = ((features(n, 8, "a", i) + shift, features(m, 8, "b", i)) for i in range(times))
    return torch.tensor([kernel_distance(a, b)[:2] for a, b in pairs]).double().T


def test_halves_of_a_cloud_are_0_apart_on_average():
    halves = (features(200, 8, i).split(100) for i in range(300))
    mean, error = torch.tensor([kernel_distance(a, b)[:2] for a, b in halves]).double().T
    assert abs(mean.mean()) < 3 * mean.std() / math.sqrt(300) and (mean < 0).double().mean() > 0.3
    assert ((mean.abs() < 1.96 * error).double().mean()) >= 0.93


@cases("n, m, shift", [(100, 100, 0.0), (100, 100, 0.1), (100, 100, 0.5), (240, 100, 0.0), (240, 100, 0.5)])
def test_the_error_is_what_new_clouds_differ_by(n, m, shift, monkeypatch):
    monkeypatch.setattr(scores, "SUBSETS", 5)
    mean, error = repeated(120, n, m, shift)
    assert 0.8 < error.square().mean().sqrt() / mean.std() < 1.25


def test_the_spread_over_subsets_is_not(monkeypatch):
    monkeypatch.setattr(scores, "SUBSET", 50)
    monkeypatch.setattr(scores, "SUBSETS", 10)
    mean, error = repeated(60, 200, 200, 0.5)
    assert 0.8 < error.square().mean().sqrt() / mean.std() < 1.25
    a, b = features(200, 8, "a", 0) + 0.5, features(200, 8, "b", 0)
    spread = kid_features_to_metric(a, b, kid_subset_size=50, verbose=False)[KEY_METRIC_KID_STD]
    assert spread / math.sqrt(100) < 0.3 * mean.std()


def test_uniform_logits_score_1():
    found = inception_score(torch.full((100, 5), 3.0))
    assert found.mean == pytest.approx(1) and found.std == pytest.approx(0, abs=1e-12)


@cases("confidence", [60.0, 1e4])  # at 1e4, other classes have probability 0
@cases("classes", [1, 2, 7])
def test_sure_and_balanced_logits_score_their_number_of_classes(confidence, classes):
    """Splits are drawn, so that their classes are only nearly balanced; one class never comes."""
    logits = confidence * torch.eye(classes + 1)[torch.arange(14_000) % classes]
    assert inception_score(logits).mean == pytest.approx(classes, rel=0.005)


def test_the_inception_score_is_torch_fidelitys():
    logits = torch.randn(321, 9, generator=generator("logits")) * 3
    theirs = isc_features_to_metric(logits)
    assert inception_score(logits) == pytest.approx((theirs[KEY_METRIC_ISC_MEAN], theirs[KEY_METRIC_ISC_STD]), rel=1e-9)


def test_identical_clouds_have_precision_and_recall_1():
    x = features(300, 6)
    assert precision_recall(x, x.clone()) == (1, 1)


def test_far_clouds_have_precision_and_recall_0():
    assert precision_recall(features(300, 6, "a") + 100, features(200, 6, "b")) == (0, 0)


def test_one_of_two_clusters_has_precision_1_and_recall_a_half():
    one, other = features(150, 6, "a"), features(150, 6, "b") + 50
    assert precision_recall(one, torch.cat([one, other])) == (1, 0.5)
    assert precision_recall(torch.cat([one, other]), one) == (0.5, 1)


def test_broad_images_cover_narrow_ones_but_are_not_among_them():
    precision, recall = precision_recall(3 * torch.randn(400, 6, generator=generator(1)), features(400, 6))
    assert precision < 0.2 and recall > 0.9


@cases("n, m", [(300, 200), (1030, 1200)])  # more rows than are held at once
def test_precision_and_recall_are_torch_fidelitys(n, m):
    a, b = features(n, 16, "a") * 1.1, features(m, 16, "b")
    theirs = prc_features_to_metric(a, b, verbose=False)
    assert precision_recall(a, b) == pytest.approx((theirs[KEY_METRIC_PRECISION], theirs[KEY_METRIC_RECALL]), abs=1e-6)
    assert 0.1 < precision_recall(a, b).precision < 0.9


def test_precision_and_recall_do_not_depend_on_the_origin():
    a, b = (torch.randn(300, 6, generator=generator(seed)) for seed in (1, 2))
    away = [(cloud * 2**10).round() / 2**10 + 2**12 for cloud in (a, b)]  # exact in float32
    expected = precision_recall(a, b)
    assert precision_recall(*away) == pytest.approx(expected, abs=0.01)
    theirs = prc_features_to_metric(*away, verbose=False)[KEY_METRIC_PRECISION]
    assert abs(theirs - expected.precision) > 0.05  # without the shift to the mean


@cases(
    "score, line",
    [
        (lambda: kernel_distance(features(1, 3), features(5, 3)), "n=1 is too small for a kernel distance"),
        (lambda: inception_score(features(9, 3)), "n=9 is too small for an Inception Score: it needs at least 10"),
        (lambda: precision_recall(features(9, 3), features(3, 3)), "n=3 is too small for precision and recall"),
    ],
)
def test_too_few_images_are_refused(score, line):
    with pytest.raises(UserError, match=line):
        score()
