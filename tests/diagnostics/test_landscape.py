import copy
from functools import partial

import pytest
import torch
from torch.nn.utils import vector_to_parameters

from smallbatch.denoiser import Continuous, Denoiser
from smallbatch.diagnostics.curvature import hessian, leading
from smallbatch.diagnostics.diagnostic import column
from smallbatch.diagnostics.directions import filter_normalised, weights_of
from smallbatch.diagnostics.landscape import Landscape
from smallbatch.diagnostics.stretches import stretches
from smallbatch.diagnostics.training_loss import Rows, within
from smallbatch.ema import trainable
from smallbatch.errors import UserError
from smallbatch.networks.unet import UNet
from smallbatch.notation import ImageSpec
from smallbatch.predictions import X0, V
from smallbatch.randomness import Step
from smallbatch.weightings import Plain
from tests.diagnostics import case_of
from tests.diagnostics.level import level_denoiser
from tests.leaves import SCHEDULES
from tests.tiny import tiny_denoiser


def rows_of(denoiser):
    return Rows(within((0.1, 0.6), Plain(), denoiser.schedule), case_of().held_out, 8, Step(0, 0, 0, 0.0), 4)


def by_differences(denoiser, rows, width=0.01):
    """The Hessian, column by column."""
    start, found = weights_of(denoiser.network), []
    for way in width * torch.eye(len(start)):
        moved = [copy.deepcopy(denoiser) for _ in range(2)]
        for one, weights in zip(moved, (start + way, start - way), strict=True):
            vector_to_parameters(weights, one.network.parameters())
        after, before = (rows.gradient(one) for one in moved)
        found.append((after - before) / (2 * width))
    return torch.stack(found)


def test_the_leading_eigenvalues_are_those_of_the_whole_hessian():
    denoiser = tiny_denoiser()
    rows = rows_of(denoiser)
    values, vectors = leading(hessian(denoiser, rows), weights_of(denoiser.network), 3, seed=0)
    whole = by_differences(denoiser, rows)
    torch.testing.assert_close(torch.tensor(values), torch.linalg.eigvalsh(whole).flip(0)[:3], rtol=0.02, atol=1e-3)
    torch.testing.assert_close(whole @ vectors[0], values[0] * vectors[0], rtol=0.02, atol=0.02 * values[0])


def test_attention_can_be_differentiated_twice():
    """The Hessian is symmetric, and its product the change of the gradient."""
    torch.manual_seed(0)
    network = partial(UNet, width=32, multipliers=[1], blocks=1, attention_at=[8], heads=1)
    denoiser = Denoiser(network, SCHEDULES["cosine"], V(), Continuous(), ImageSpec(1, 8, 3))
    for weight in denoiser.network.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    product = hessian(denoiser, rows_of(denoiser))
    u, v = torch.randn(2, len(weights_of(denoiser.network)))
    torch.testing.assert_close(u @ product(v), v @ product(u), rtol=1e-3, atol=1e-3)


def test_where_nothing_curves_there_is_no_leading_curvature():
    with pytest.raises(UserError, match=r"finds no curvature .* not trained.*landscape\.eigenvalues=0"):
        leading(torch.zeros_like, torch.zeros(10), 1, seed=0)


def test_a_direction_is_as_long_as_the_network_in_every_filter():
    network = tiny_denoiser().network
    one, other = (filter_normalised(network, 0, number) for number in (1, 2))
    parts = one.split([weight.numel() for weight in trainable(network).values()])
    for part, weight in zip(parts, trainable(network).values(), strict=True):
        length = weight.detach().flatten(1).norm(dim=1) if weight.ndim > 1 else torch.zeros(len(weight))
        torch.testing.assert_close(part.view_as(weight).reshape(len(weight), -1).norm(dim=1), length)
    assert not torch.equal(one, other)


def test_bins_are_even_in_logsnr_and_share_out_all_of_time():
    denoiser = tiny_denoiser(SCHEDULES["ddpm_linear"])
    (subject,) = (case := case_of(denoiser)).subjects
    made = stretches(case, subject, 5)
    first, last = denoiser.schedule.logsnr(torch.tensor([0.0, 1.0])).tolist()
    assert made.logsnr == pytest.approx([first + (place + 0.5) / 5 * (last - first) for place in range(5)])
    assert made.shares.sum().item() == pytest.approx(1) and made.shares.argmin() == 0
    mean, error = made.estimates(torch.arange(10.0, dtype=torch.float64).view(5, 2))
    assert mean[0] == pytest.approx((made.shares * torch.tensor(mean[1:])).sum().item())
    assert error[1:] == pytest.approx([0.5] * 5)


def test_a_line_between_two_levels_is_a_parabola():
    """v's error falls as b^2 - 2 b mean(v) + mean(v^2), so between -1 and 1 it lies 1 - a^2 below the straight line."""
    runs = [level_denoiser(SCHEDULES["cosine"], V(), value) for value in (-1.0, 1.0)]
    diagnostic = Landscape(bins=2, rows=4, points=5, directions=1, eigenvalues=0)
    table = diagnostic.measure(case_of(*runs)).table
    for bin in ("all", 0, 1):
        rise = column(table, "rise", what="line", bin=bin)
        assert rise == pytest.approx([0, -0.75, -1, -0.75, 0], abs=1e-4)
    assert [run.network.value.item() for run in runs] == [-1, 1]
    ends = column(table, "value", what="line", bin=0)[::4]
    assert ends == pytest.approx([column(table, "value", what="direction", bin=0, of=of)[2] for of in "ab"])
    assert "on the line" in diagnostic.line(table) and diagnostic.figure(table).width > 600


def test_curvature_over_all_times_is_that_of_the_bins_by_their_time():
    denoiser = tiny_denoiser()
    before = {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}
    diagnostic = Landscape(bins=2, rows=2, points=3, directions=0, eigenvalues=1, hessian_rows=4)
    table = diagnostic.measure(case_of(denoiser)).table
    level, *bins = column(table, "value", what="eigenvalue", position=1)
    assert min(bins) / 2 < level < sum(bins) / 2 * 1.01  # both bins hold half of cosine's time
    torch.testing.assert_close(denoiser.state_dict(), before, rtol=0, atol=0)
    assert "largest eigenvalue is" in diagnostic.line(table) and diagnostic.figure(table).height > 500


def test_there_is_no_line_between_other_networks():
    runs = [tiny_denoiser(spec=ImageSpec(1, 8, classes)) for classes in (3, 4)]
    with pytest.raises(UserError, match="has another network"):
        Landscape().measure(case_of(*runs))
    with pytest.raises(UserError, match=r"predicts X0, run=.* V: give one at a time"):
        Landscape().measure(case_of(tiny_denoiser(), tiny_denoiser(prediction=X0())))


@pytest.mark.parametrize("wrong, said", [({"points": 10}, "must be odd"), ({"rows": 1}, "at least 2")])
def test_settings_that_make_no_sense_are_refused(wrong, said):
    with pytest.raises(UserError, match=said):
        Landscape(**wrong)
