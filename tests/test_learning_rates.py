"""Learning rates and Adam's memory, counted in images."""

import pytest
import torch

from smallbatch.errors import UserError
from smallbatch.learning_rates import Constant, Cosine, InverseSqrt, LinearCooldown
from smallbatch.optimizers import adamw


@pytest.mark.parametrize("leaf", [Constant(100), Cosine(100), InverseSqrt(10_000, 100), LinearCooldown(100)])
def test_warm_up_is_a_straight_line_in_images(leaf):
    assert [leaf(images, 0.0) for images in (25, 50, 100, 200)] == pytest.approx([0.25, 0.5, 1.0, 1.0])


def test_each_shape_passes_through_its_known_points():
    assert [Cosine()(1, p) for p in (0.0, 0.5, 1.0)] == pytest.approx([1, 0.5, 0])
    assert [Cosine(floor=0.1)(1, p) for p in (0.0, 0.5, 1.0)] == pytest.approx([1, 0.55, 0.1])
    assert [InverseSqrt(100)(n, 0.0) for n in (50, 100, 400)] == pytest.approx([1, 1, 0.5])
    assert [LinearCooldown(cooldown=0.2)(1, p) for p in (0.0, 0.8, 0.9, 1.0)] == pytest.approx([1, 1, 0.5, 0])


def test_a_cooldown_outside_the_budget_is_refused():
    with pytest.raises(UserError, match=r"cooldown=1\.5"):
        LinearCooldown(cooldown=1.5)


def test_adams_second_moment_halves_in_the_same_images_for_every_batch():
    for batch in (8, 64, 512):
        (group,) = adamw([torch.nn.Parameter(torch.zeros(1))], batch, lr=1e-3, beta2_halflife_images=64e3).param_groups
        assert group["betas"][1] ** (64_000 / batch) == pytest.approx(0.5)
