"""Sums that stream by hold what the features themselves would say."""

import pytest
import torch

from smallbatch.errors import UserError
from smallbatch.metrics.moments import MomentSums, moments, where_float64

cases = pytest.mark.parametrize


def cloud(n=103, d=7, seed=0):
    """Of very unequal scales, and off the origin."""
    source = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=source) * 10.0 ** torch.linspace(-2, 2, d)
    return torch.randn(n, d, generator=source) @ mixing + 3


def summed(x, batch=64, blocks=1):
    sums = MomentSums(x.shape[1], blocks)
    for rows in torch.arange(len(x)).split(batch):
        sums.add(x[rows], rows)
    return sums


def equal(found, x):
    assert found.n == len(x)
    torch.testing.assert_close(found.mean, x.double().mean(dim=0), rtol=1e-10, atol=0)
    expected = x.double().T.cov()
    assert (found.covariance - expected).norm() < 1e-10 * expected.norm()
    assert torch.equal(found.covariance, found.covariance.T)


@cases("batch", [1, 7, 64, 1000])
@cases("blocks", [1, 3, 10])
def test_moments_are_those_of_all_rows_whatever_the_batches_and_blocks(batch, blocks):
    x = cloud()
    equal(summed(x, batch, blocks).moments(), x)


def test_moments_of_features_at_hand():
    equal(moments(cloud().double()), cloud())


@cases("batch", [7, 64])
def test_a_block_is_left_out_by_the_number_of_its_rows(batch):
    x = cloud()
    sums = summed(x, batch, blocks=4)
    for block in range(4):
        equal(sums.without(block), x[torch.arange(len(x)) % 4 != block])


def test_rows_may_come_in_any_order_and_in_shares():
    x, order = cloud(), torch.randperm(103, generator=torch.Generator().manual_seed(1))
    one, two = MomentSums(7, 3), MomentSums(7, 3)
    one.add(x[order[:40]], order[:40])
    two.add(x[order[40:]], order[40:])
    for a, b, whole in zip(one.tensors(), two.tensors(), summed(x, blocks=3).tensors(), strict=True):
        torch.testing.assert_close(a + b, whole, rtol=1e-12, atol=1e-9)


def test_memory_depends_on_features_and_blocks_alone():
    few, many = summed(cloud(20), blocks=3), summed(cloud(5000), blocks=3)
    for sums in (few, many):
        assert sum(tensor.untyped_storage().nbytes() for tensor in sums.tensors()) == 3 * (7 * 7 + 7 + 1) * 8


def test_autocast_changes_nothing():
    x = cloud()
    with torch.autocast("cpu", torch.bfloat16):
        assert (x.T @ x).dtype == torch.bfloat16
        inside = summed(x).moments()
    assert torch.equal(inside.covariance, summed(x).moments().covariance)


def test_sums_made_in_inference_mode_take_more_outside_it():
    with torch.inference_mode():
        sums, x = MomentSums(7), cloud()
        sums.add(x[:50], torch.arange(50))
    sums.add(x[50:], torch.arange(50, 103))
    equal(sums.moments(), cloud())


def test_one_image_has_no_covariance():
    with pytest.raises(UserError, match="n=1 is too small for a covariance"):
        summed(cloud(1)).moments()


def test_where_there_is_no_float64_the_cpu_sums():
    assert where_float64("mps") == torch.device("cpu") and where_float64("cuda:1") == torch.device("cuda:1")
