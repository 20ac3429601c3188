"""Tables of log-SNR."""

import math

import pytest
import torch

from smallbatch import tables as T
from smallbatch.errors import UserError
from smallbatch.schedules import VariancePreserving
from tests.leaves import TABLES

cases = pytest.mark.parametrize


def test_ddpm_linear_matches_its_published_figures():
    table = TABLES["ddpm_linear"]
    snr = table.table.exp()
    assert snr[258] > 1 > snr[259]  # crosses 1 between indices 258 and 259
    signal = table.table.double().sigmoid()
    assert abs(signal[-1] - 4.036e-5) < 1e-8
    assert abs(signal[0] - (1 - 1e-4)) < 1e-7


@cases("steps", [1, 1000, 4000])
def test_iddpm_cosine_is_the_product_of_its_published_betas(steps):
    def bar(i):
        return math.cos((i / steps + 0.008) / 1.008 * math.pi / 2) ** 2

    signal, expected = 1.0, []
    for i in range(steps):
        signal *= 1 - min(1 - bar(i + 1) / bar(i), 0.999)
        expected.append(math.log(signal / (1 - signal)))
    table = T.CosineBetas(VariancePreserving(), steps=steps).table
    torch.testing.assert_close(table, torch.tensor(expected), atol=1e-6, rtol=1e-6)


@cases("steps", [1, 10, 50, 1000, 4000])
def test_a_table_stands_at_its_own_times_and_gives_every_index_the_same_mass(steps):
    last = min(0.02, 0.5 * steps / 1000)
    table = T.LinearBetas(VariancePreserving(), steps=steps, first=last / 200, last=last)
    own = torch.arange(1, steps + 1) / steps
    assert table.index(own).tolist() == list(range(steps))
    torch.testing.assert_close(table.snap(own), own)
    counts = table.index((torch.arange(steps * 100) + 0.5) / (steps * 100)).bincount(minlength=steps)
    assert (counts - 100).abs().max() <= 1


@cases("table", TABLES.values(), ids=TABLES)
def test_before_gives_the_previous_index_and_clean_data_before_the_first(table):
    level = table(torch.tensor([0.001, 0.002, 0.5, 1.0]))
    before = table.before(level)
    assert before.alpha.flatten()[0] == 1 and before.sigma.flatten()[0] == 0
    signal = table.table.sigmoid()
    torch.testing.assert_close(before.alpha.flatten()[1:] ** 2, signal[[0, 498, 998]])


def test_posterior_coefficients_equal_the_published_ones():
    table = T.LinearBetas(VariancePreserving())
    table.table = table.table.double()
    level = table((torch.tensor([0.0, 1, 14, 15, 999]).double() + 1) / 1000)
    before = table.before(level)
    step = (level.alpha / before.alpha).square()
    c_x0 = (before.alpha * (1 - step) / level.sigma.square()).flatten()
    c_xt = (step.sqrt() * before.sigma.square() / level.sigma.square()).flatten()
    expected = torch.tensor([[1, 0], [0.545, 0.455], [0.1055, 0.8945], [0.0999, 0.9], [0.00013, 0.98995]]).double()
    torch.testing.assert_close(torch.stack([c_x0, c_xt], dim=1), expected, atol=6e-4, rtol=0)
    assert c_x0[3] < 0.1 < c_x0[2]


@cases("leaf, steps", [(T.LinearBetas, 0), (T.CosineBetas, 0), (T.LinearBetas, 20)])
def test_a_table_of_too_few_steps_is_refused(leaf, steps):
    with pytest.raises(UserError, match=f"steps={steps} "):
        leaf(VariancePreserving(), steps=steps)
