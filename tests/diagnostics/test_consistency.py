"""Consistency, where what must be alike is known."""

from contextlib import nullcontext

import pytest
import torch

from smallbatch.diagnostics.consistency import Consistency, Source, using
from smallbatch.errors import UserError
from smallbatch.metrics.extractors import Extractor, Features
from smallbatch.sampler import Sampler, Trailing
from smallbatch.solvers import DDIM, Ancestral
from tests.diagnostics import Saying, case_of
from tests.leaves import PREDICTIONS, SCHEDULES
from tests.tiny import tiny_denoiser

SCHEDULE = SCHEDULES["cosine"]
SOLVERS = {"ddim": DDIM(), "ancestral": Ancestral()}


def twins(nudge=0.01):
    """Two denoisers of nearly the same weights."""
    first, second = tiny_denoiser(), tiny_denoiser()
    with torch.no_grad():
        second.network.conv.weight.mul_(1 + nudge)
    return first, second


def found(*denoisers, solvers=SOLVERS, **settings):
    table = Consistency(solvers, images=6, **settings).measure(case_of(*denoisers, batch=5)).table
    return {(one["of"], one["and"], one["measure"]): one for one in table}


@pytest.mark.parametrize("solver", SOLVERS)
def test_networks_that_are_nearly_the_same_make_the_same_of_one_noise_alone(solver):
    table = found(*twins())
    for measure in ("correlation", "ssim"):
        one = table[f"a {solver}", f"b {solver}", measure]
        assert one["paired"] > 0.95 > 0.5 > one["unpaired"] and one["share"] == 1 > one["chance"]
    far = table[f"a {solver}", f"b {solver}", "rmse"]
    assert far["paired"] < 0.1 * far["unpaired"] and far["share"] is None


def test_pairs_differ_in_the_run_or_in_the_solver():
    pairs = {(one, other) for one, other, _ in found(*twins())}
    assert pairs == {
        *(("a ddim", "a ancestral"), ("b ddim", "b ancestral")),
        *(("a ddim", "b ddim"), ("a ancestral", "b ancestral")),
    }


def test_what_depends_on_the_label_alone_is_no_more_alike_from_one_noise():
    """Chance is that of images with the same label: here all of it."""

    class OfLabel(Saying):
        def forward(self, x_t, level, condition, keep=None):
            pattern = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
            return pattern[condition.label]

    twice = OfLabel(SCHEDULE, PREDICTIONS["x0"], 0.0), OfLabel(SCHEDULE, PREDICTIONS["x0"], 0.0)
    for one in found(*twice, solvers={}).values():
        assert one["paired"] == pytest.approx(one["unpaired"], abs=1e-5)
        assert one["measure"] == "rmse" or one["share"] == one["chance"] == 1


def test_values_are_means_over_numbers_of_both_noises():
    diagnostic, case = Consistency({}, images=4), case_of(*twins(0.5))
    table = {one["measure"]: one for one in diagnostic.measure(case).table}
    (a, b), (c, d) = (diagnostic.images_of(case, source) for source in (Source(one, "") for one in case.subjects))
    per_number = torch.stack([127.5 * (x - y).square().mean(dim=(1, 2, 3)).sqrt() for x, y in ((a, c), (b, d))]).mean(0)
    assert table["rmse"]["paired"] == pytest.approx(per_number.mean().item(), rel=1e-5)
    assert table["rmse"]["paired_se"] == pytest.approx(per_number.std().item() / 2, rel=1e-4)
    assert not torch.allclose(a, b, atol=0.1)


class Mean(Extractor):
    name, dimension, identity = "mean", 2, "mean"

    def prepare(self, data):
        self.ready = True

    def on(self, device):
        assert self.ready
        return nullcontext(
            lambda pixels: Features(torch.stack([pixels.float().mean((1, 2, 3)), torch.ones(len(pixels))], 1))
        )


def test_features_are_compared_by_their_cosine():
    one = found(*twins(), solvers={}, extractor=Mean())["a", "b", "mean"]
    assert 0.99 < one["paired"] <= 1.00001 and one["share"] == 1


def test_a_single_run_is_compared_with_itself_under_another_solver_or_refused():
    assert {key[:2] for key in found(tiny_denoiser())} == {("a ddim", "a ancestral")}
    with pytest.raises(UserError, match=r"give run=\[A,B\], or two diagnostics.consistency.solvers"):
        found(tiny_denoiser(), solvers={"ddim": DDIM()})


def test_another_solver_keeps_the_rest_of_the_sampler():
    sampler = Sampler(DDIM(), Trailing(), 7, guidance=2.0)
    other = using(sampler, SOLVERS["ancestral"])
    assert (other.steps, other.guidance, other.solver) == (7, 2.0, SOLVERS["ancestral"])
    assert isinstance(sampler.solver, DDIM)


def test_the_picture_and_the_line_have_every_pair():
    diagnostic = Consistency(SOLVERS, images=4)
    answer = diagnostic.measure(case_of(*twins()))
    assert diagnostic.line(answer.table).count("SSIM") == 4
    assert diagnostic.figure(answer.table).width > 1000 and answer.images["images"].width > 600


@pytest.mark.parametrize("settings", [{"images": 1}, {"threshold": 1.5}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(UserError, match=f"diagnostics.consistency.{next(iter(settings))}"):
        Consistency({}, **settings)
