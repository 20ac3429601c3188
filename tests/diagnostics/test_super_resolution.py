import pytest
import torch

from smallbatch.data.images import shrunk
from smallbatch.diagnostics.diagnostic import column
from smallbatch.diagnostics.super_resolution import SuperResolution, measures
from smallbatch.errors import UserError
from smallbatch.likeness import CAP
from tests.diagnostics.enlarging import case_of, held_out, interpolating
from tests.tiny import tiny_denoiser


def test_the_truth_is_beyond_reproach():
    batch = held_out().take(torch.arange(6))
    found = measures(batch.x0, batch)
    assert (found.pop("psnr") == CAP).all() and torch.allclose(found.pop("ssim"), torch.ones(6))
    assert all(values.abs().max() < 1e-4 for values in found.values())


def test_a_channel_that_is_too_bright_is_a_drift_of_hue_and_one_common_to_all_is_not():
    batch = held_out().take(torch.arange(6))
    step = torch.tensor([0.1, 0.0, 0.0])[:, None, None]
    found = measures(batch.x0 + step, batch)
    assert torch.allclose(found["drift_red"], torch.tensor(12.75)) and found["drift_blue"].abs().max() < 1e-4
    assert torch.allclose(found["hue"], torch.tensor(12.75 * 2**0.5 / 3), atol=1e-4)
    assert measures(batch.x0 + 0.1, batch)["hue"].max() < 1e-4


def test_fidelity_is_how_far_the_shrunk_sample_lies_from_the_small_image():
    batch = held_out().take(torch.arange(6))
    detail = torch.tensor([0.1, -0.1]).repeat(8)  # means nothing to the small image
    assert measures(batch.x0 + detail, batch)["fidelity"].max() < 1e-4
    assert torch.allclose(measures(batch.x0 - 0.2, batch)["fidelity"], torch.tensor(25.5), atol=1e-4)
    assert torch.equal(batch.condition.image, shrunk(batch.x0, 4))


def test_a_run_that_interpolates_scores_what_interpolation_scores():
    table, images = SuperResolution(images=5).measure(case_of(interpolating()))
    for measure in ("psnr", "ssim", "drift", "hue", "fidelity", "drift_red"):
        assert column(table, "mean", of="a", measure=measure) == column(table, "mean", of="bicubic", measure=measure)
    assert {row["n"] for row in table} == {5} and all(row["error"] >= 0 for row in table)
    assert images["images"].width > 600


def test_no_figure_depends_on_the_batch():
    one, other = (SuperResolution(images=6).measure(case_of(interpolating(0.3), batch=b)).table for b in (6, 4))
    for a, b in zip(one, other, strict=True):
        assert a["mean"] == pytest.approx(b["mean"], abs=1e-5)


def test_the_line_and_the_figure_name_every_run():
    diagnostic = SuperResolution(images=4)
    table = diagnostic.measure(case_of(interpolating(), interpolating(0.3))).table
    assert diagnostic.line(table).count("x0 (") == 2 and "bicubic" in diagnostic.line(table)
    assert diagnostic.figure(table).width > 900


def test_a_run_that_enlarges_nothing_is_refused():
    with pytest.raises(UserError, match=r"needs runs that enlarge images, trained with data.low_size; a is none"):
        SuperResolution().measure(case_of(tiny_denoiser()))
    with pytest.raises(UserError, match=r"diagnostics.super_resolution.images=1 must be at least 2"):
        SuperResolution(images=1)
