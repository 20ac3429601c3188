"""Images until an error is near its last."""

import json

import pytest

from smallbatch.diagnostics.diagnostic import column
from smallbatch.diagnostics.difficulty import Difficulty, reached
from smallbatch.errors import UserError
from tests.diagnostics import case_of
from tests.tiny import tiny_denoiser

EVERY = range(1000, 65_000, 1000)


def recorded(folder, **bins):
    """Errors of v by log-SNR and images, and lines that are not asked for."""
    lines = [
        {"name": "val/v_mse", "images": images, "step": 1, "seconds": 1.0, "value": error, "n": 7, "logsnr": float(at)}
        for at, points in bins.items()
        for images, error in points
    ]
    lines += [{**line, "name": "val/x0_mse", "value": 9.0} for line in lines]
    lines += [{key: value for key, value in line.items() if key != "logsnr"} for line in lines]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "torn")
    return case_of(tiny_denoiser(), folder=folder)


def test_a_power_law_is_within_reach_where_it_says():
    for power in (0.2, 0.5, 1.0):
        images = reached([(n, 3 * n**-power) for n in EVERY], 0.05)["images"]
        assert images == pytest.approx(EVERY[-1] / 1.05 ** (1 / power))


def test_high_noise_that_is_learned_first_is_told_by_the_rank_correlation(tmp_path):
    falling = {at: [(n, 1 + (1000 * 2**bin / n) ** 2) for n in EVERY] for bin, at in enumerate(("-5", "-1", "3"))}
    diagnostic = Difficulty()
    table = diagnostic.measure(recorded(tmp_path, **falling)).table
    images = column(table, "images")
    assert column(table, "logsnr") == [-5, -1, 3] and images == sorted(images) and column(table, "n") == [7] * 3
    assert images[0] == pytest.approx(1000 * 20**0.5, rel=0.03)
    assert "rank correlation of images with log-SNR +1.00" in diagnostic.line(table)
    assert len(diagnostic.figure(table).getcolors(1 << 24)) > 50


def test_what_rises_again_has_not_been_within_reach():
    assert reached([(100, 2.0), (200, 1.0), (300, 1.5), (400, 1.0)], 0.05)["images"] > 300


def test_what_is_within_reach_at_the_first_record_has_a_bound():
    assert reached([(100, 1.04), (200, 1.0)], 0.05) == {"images": 100.0, "bounded": 1}
    assert reached([(100, 1.04), (200, 1.0)], 0.03)["bounded"] == 0


def test_a_run_that_recorded_too_little_is_refused(tmp_path):
    with pytest.raises(UserError, match="has not recorded val/v_mse twice per log-SNR: train"):
        Difficulty().measure(recorded(tmp_path, **{"1": [(100, 1.0)]}))
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match="has not recorded"):
        Difficulty().measure(case_of(tiny_denoiser(), folder=tmp_path))
    with pytest.raises(UserError, match=r"diagnostics.difficulty.within=0.0 must be above 0"):
        Difficulty(0.0)
