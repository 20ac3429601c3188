"""The held-out loss at every time, on denoisers whose error is known."""

import pytest
import torch

from smallbatch import curves
from smallbatch.cli.diagnose import write_csv
from smallbatch.diagnostics.held_out import over_points, relative
from smallbatch.diagnostics.loss_curve import LossCurve, change
from smallbatch.errors import UserError
from smallbatch.predictions import X0, Eps
from smallbatch.slots import CurveSlots
from smallbatch.tables import LinearBetas
from tests.diagnostics import Saying, case_of
from tests.leaves import PATHS, SCHEDULES
from tests.tiny import tiny_denoiser

TABLE = LinearBetas(PATHS["preserving"], 50)


def of(found, name):
    return torch.tensor([row[name] for row in found.table], dtype=torch.float64)


def test_the_errors_are_those_of_the_estimate_and_a_row_of_as_many_points_meets_every_image_once():
    case, snr = case_of(Saying(TABLE, Eps(), 0.0)), TABLE.table.double().exp()
    x0 = case.held_out.take(torch.arange(24)).x0.square().mean(dim=(1, 2, 3)).double()
    found = LossCurve(images=24).measure(case)
    for name, factor in {"x0_mse": 1 + 0 * snr, "eps_mse": snr, "v_mse": 1 + snr, "loss": snr}.items():
        torch.testing.assert_close(of(found, name), factor * x0.mean(), rtol=2e-3, atol=0)
        torch.testing.assert_close(of(found, f"{name}_se"), factor * x0.std() / 24**0.5, rtol=2e-3, atol=0)


def test_every_row_spreads_its_points_over_a_part_that_may_be_sorted():
    images = torch.arange(24.0)[:, None, None, None].expand(24, 1, 8, 8)
    seen = over_points(case_of(images=images), "", 48, 6, lambda mine, batch: batch.x0[:, 0, 0, :1])[..., 0]
    assert all(set(row.sort().values.diff().tolist()) == {4.0} for row in seen)
    assert seen.long().flatten().bincount().tolist() == [48 * 6 / 24] * 24


@pytest.mark.parametrize("schedule", [TABLE, SCHEDULES["cosine"]])
def test_the_file_of_one_run_feeds_slots(schedule, tmp_path):
    write_csv(LossCurve(images=2).measure(case_of(tiny_denoiser(schedule))).table, tmp_path / "one.csv")
    CurveSlots(curves.read(tmp_path / "one.csv")).check_origin(schedule)


def test_the_file_of_two_runs_is_refused_in_words_that_help(tmp_path):
    case = case_of(tiny_denoiser(TABLE), tiny_denoiser(TABLE, X0()))
    write_csv(LossCurve(images=2).measure(case).table, tmp_path / "two.csv")
    with pytest.raises(UserError, match="the curves of 2 runs, a, b: measure one of them alone"):
        curves.read(tmp_path / "two.csv")


def test_points_depend_on_the_seed_and_not_on_how_they_are_grouped():
    first, grouped, other = (
        of(LossCurve(images=2).measure(case_of(tiny_denoiser(TABLE), seed=seed, batch=batch)), "loss")
        for seed, batch in ((0, 64), (0, 7), (1, 64))
    )
    torch.testing.assert_close(first, grouped)
    assert not torch.allclose(first, other, rtol=1e-2)


def test_runs_of_other_schedules_are_compared_at_the_same_log_snr():
    """Whoever says 0.1 of x0 = 0.2 has a quarter of the error of 0. EDM's axis is shorter than the cosine's."""
    images = torch.full((4, 1, 8, 8), 0.2)
    case = case_of(Saying(SCHEDULES["cosine"], Eps(), 0.0), Saying(SCHEDULES["edm"], X0(), 0.1), images=images)
    table = LossCurve(images=2).measure(case).table
    ours, theirs = ([row for row in table if row["of"] == name] for name in "ab")
    assert len(ours) == 1000 > len(theirs) and {row["v_change"] for row in ours} == {0.0}
    assert max(row["logsnr"] for row in theirs) < 12.5 and min(row["logsnr"] for row in theirs) > -8.8
    change = torch.tensor([row["v_change"] for row in theirs if abs(row["logsnr"]) < 5])
    torch.testing.assert_close(change, torch.full_like(change, -0.75), rtol=0, atol=2e-3)


def test_the_line_says_where_half_of_the_loss_lies_and_what_changed_at_either_side_of_snr_one():
    images = torch.full((4, 1, 8, 8), 0.2)
    case = case_of(Saying(TABLE, X0(), 0.0), Saying(TABLE, X0(), 0.1), images=images)
    line = LossCurve().line(LossCurve(images=2).measure(case).table)
    assert "a: mean loss 0.04 over all times, half of it in the first 25 of 50 steps" in line
    assert "error of v -75.0% (standard error 0.0%) where SNR is above 1, -75.0% (standard error 0.0%)" in line


def test_the_standard_error_of_a_paired_ratio_is_its_spread_over_repeats():
    torch.manual_seed(0)
    base = torch.rand(4000, 64).double() + 0.5
    ratio, error = relative(1.2 * base + 0.1 * torch.randn(4000, 64), base)
    assert abs(ratio.mean() - 0.2) < 1e-3
    assert 0.95 < ratio.std() / error.mean() < 1.05


def test_the_standard_error_of_a_change_over_rows_is_that_of_one_ratio_for_all_of_them():
    torch.manual_seed(0)
    base = torch.rand(5, 16).double() + 0.5
    x = torch.linspace(0.1, 2, 5)[:, None] * base + 0.1 * torch.rand(5, 16)
    ratio, ratio_se = relative(x, base)
    ours, first = [], []
    for k in range(5):
        of_x, of_base = ({"v_mse": one[k].mean().item(), "v_mse_se": one[k].std().item() / 4} for one in (x, base))
        ours.append(of_x | {"v_change": ratio[k].item(), "v_change_se": ratio_se[k].item()})
        first.append(of_base)
    total, error = change(ours, first)
    assert total == pytest.approx((x.sum() / base.sum() - 1).item())
    residual = x - (1 + total) * base
    assert error == pytest.approx((residual.var(dim=1).sum() / 16).sqrt().item() / base.mean(dim=1).sum().item())


def test_more_runs_than_colours_are_drawn():
    table = LossCurve(images=2).measure(case_of(*[tiny_denoiser(LinearBetas(PATHS["preserving"], 25))] * 7)).table
    assert {row["of"] for row in table} == set("abcdefg")
    assert len(LossCurve().figure(table).getcolors(1 << 24)) > 50


@pytest.mark.parametrize("images", [1, 0])
def test_a_single_image_has_no_standard_error(images):
    with pytest.raises(UserError, match=rf"diagnostics.loss_curve.images={images} must be a whole number, at least 2"):
        LossCurve(images)
