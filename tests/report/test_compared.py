"""Choices against a baseline."""

import csv
import io
import random

import pytest
from scipy import stats

from smallbatch.errors import UserError
from smallbatch.report import curves
from smallbatch.report.choices import chosen
from smallbatch.report.markdown import markdown
from smallbatch.report.measures import better
from smallbatch.report.tidy import tidy
from tests.report.folders import make, report


def sweep(root, **values):
    """A finished run for every choice and seed, with its value at 16 images."""
    for choice, by_seed in values.items():
        for seed, value in enumerate(by_seed):
            make(root / f"{choice}{seed}", f"x={choice} seed={seed}", {8: 9.0, 16: value})


def test_values_are_those_of_a_paired_t_test(tmp_path):
    sweep(tmp_path, a=[1.0, 1.2, 1.1], b=[0.9, 1.15, 1.0], c=[2.0, 2.5, 2.1])
    cells = report(tmp_path, "x=a").main.cells
    ratios = {
        c: [v / a - 1 for v, a in zip(vs, [1.0, 1.2, 1.1], strict=True)]
        for c, vs in {"b": [0.9, 1.15, 1.0], "c": [2.0, 2.5, 2.1]}.items()
    }
    p = {c: stats.ttest_1samp(values, 0).pvalue for c, values in ratios.items()}
    assert p["c"] < p["b"]
    assert (cells["x=c"].p, cells["x=b"].p) == pytest.approx((2 * p["c"], p["b"]))
    assert cells["x=c"].resolved and not cells["x=b"].resolved and cells["x=a"].p is None


def test_the_table_is_paired_and_best_first(tmp_path):
    sweep(tmp_path, a=[1.0, 2.0], b=[0.9, 1.8])
    rows = markdown(report(tmp_path, "x=a")).splitlines()[2:]
    assert rows[0] == "| `x=b` | 1.3500 | **-10.00 % [-10.00, -10.00]** | < 0.001 | 2 | -10.0 | -10.0 |"
    assert rows[1] == "| `x=a` | 1.5000 | baseline |  | 2 | +0.0 | +0.0 |"


def test_of_a_score_that_should_be_high_the_highest_comes_first(tmp_path):
    for choice, value in {"a": 0.7, "b": 0.9}.items():
        make(tmp_path / choice, f"x={choice}", {8: value}, metric="metrics/recognised@40")
    made = report(tmp_path, "x=a", "metrics/recognised@40")
    assert [choice.label for choice in made.choices] == ["x=b", "x=a"]
    assert better("val/v_mse") == better("metrics/fid@50000") == "lower" and better("metrics/nearest@20") is None
    assert better("metrics/clip_score@40") == better("metrics/prompt_colour@40") == "higher"


def test_one_seed_has_a_difference_and_nothing_else(tmp_path):
    sweep(tmp_path, a=[1.0, 1.1], b=[0.5])
    cell = report(tmp_path, "x=a").main.cells["x=b"]
    assert cell.change.mean == -50 and cell.p is None and not cell.resolved
    assert "-50.00 %, one seed |" in markdown(report(tmp_path, "x=a"))


def test_where_a_baseline_is_not_above_0_differences_are_absolute_and_no_seed_is_dropped(tmp_path):
    sweep(tmp_path, a=[0.002, -0.001, 0.003], b=[0.003, 0.0015, 0.0042])
    made = report(tmp_path, "x=a")
    cell = made.main.cells["x=b"]
    expected = stats.ttest_rel([0.003, 0.0015, 0.0042], [0.002, -0.001, 0.003])
    assert made.main.unit == "" and (cell.change.mean, cell.change.n) == (pytest.approx(0.0047 / 3), 3)
    assert cell.p == pytest.approx(expected.pvalue)
    assert "| +0.0016 absolute [" in markdown(made)
    assert curves.change_per_logsnr({1.0: {0: 1.0, 1: 1.0}}, {1.0: {0: 2.0, 1: -1.0}}) is None


def test_runs_are_compared_where_every_finished_one_has_measured(tmp_path):
    make(tmp_path / "a", "x=a", {8000: 3.0, 16000: 2.0, 32000: 1.0})
    make(tmp_path / "b", "x=b", {8064: 3.0, 16064: 2.5})
    make(tmp_path / "c", "x=c", {8000: 4.0}, state="interrupted")
    make(tmp_path / "d", "x=d", {}, state="failed", error="no")
    made = report(tmp_path, "x=a")
    assert made.main.images == 16064 and made.main.furthest == 32000 and made.main.why == "every finished run"
    assert {label: cell.level.mean for label, cell in made.main.cells.items()} == {"x=a": 2.0, "x=b": 2.5}
    assert [choice.label for choice in made.choices] == ["x=a", "x=b", "x=c", "x=d"]  # every row
    assert report(tmp_path, "x=a", images=8000).main.cells["x=c"].level.mean == 4
    table = markdown(made).splitlines()
    assert "1 interrupted" in table[4] and "1 failed" in table[5]


def test_where_no_images_are_common_most_runs_decide(tmp_path):
    for choice, images in {"a": 100, "b": 100, "c": 200}.items():
        make(tmp_path / choice, f"x={choice}", {images: 1.0})
    made = report(tmp_path).main
    assert (made.images, made.why) == (100, "most runs")
    assert report(tmp_path, images=200).main.why == "asked"


def test_a_report_of_runs_that_all_failed_has_their_rows(tmp_path):
    make(tmp_path / "a", "x=a", {}, state="failed", error="no")
    assert "1 failed" in markdown(report(tmp_path))


def test_a_metric_that_nobody_measured_is_refused(tmp_path):
    sweep(tmp_path, a=[1.0])
    with pytest.raises(UserError, match="val/x was not measured by any of these runs; they have val/v_mse"):
        report(tmp_path, metric="val/x")


def test_a_baseline_is_named_by_its_words_or_their_values(tmp_path):
    for i, words in enumerate(["p=eps t=u", "p=v t=u", "p=v t=s", "p=v t=u w=1"]):
        make(tmp_path / str(i), words, {8: 1.0})
    made = report(tmp_path).choices
    assert chosen(["v", "u"], made) == chosen(["p=v", "t=u"], made) == chosen(["p=v t=u"], made) == "p=v t=u"
    assert chosen(["eps"], made) == "p=eps t=u" and chosen(["1"], made) == "p=v t=u w=1"
    with pytest.raises(UserError, match=r"baseline=v is 2 of these rows, as p=v t=s, p=v t=u: .* baseline=\[v,s\]"):
        chosen(["v"], made)
    with pytest.raises(UserError, match="baseline=w is none of these rows; nearest: p="):
        chosen(["w"], made)


def test_figures_come_back_from_csv_with_every_digit(tmp_path):
    draw = random.Random(0)
    values = {f"c{i}": [draw.random(), draw.random()] for i in range(5)}
    sweep(tmp_path, **values)
    make(tmp_path / "f", "x='f, \"g\"' seed=0", {}, state="failed", error="line, with comma")
    rows = list(csv.DictReader(io.StringIO(tidy(report(tmp_path, "x=c0")))))
    got = {(row["choice"], int(row["seed"])): float(row["value"]) for row in rows if row["value"]}
    assert got == {(f"x={c}", seed): value for c, both in values.items() for seed, value in enumerate(both)}
    (failed,) = [row for row in rows if row["state"] == "failed"]
    assert failed["choice"] == 'x=f, "g"' and failed["error"] == "line, with comma" and failed["metric"] == ""
    assert {row["device_hours"] for row in rows if row["value"]} == {repr(1.6 * 2 / 3600)}


def test_a_spreadsheet_takes_no_word_for_a_formula(tmp_path):
    make(tmp_path / "a", "x=a", {8: -1.0}, state="failed", error="=1+1")
    make(tmp_path / "b", "x=b", {}, state="failed", error="@sum(1)")
    rows = list(csv.DictReader(io.StringIO(tidy(report(tmp_path)))))
    assert {row["error"] for row in rows} == {"'=1+1", "'@sum(1)"} and rows[0]["value"] == "-1.0"


def test_a_curve_is_the_mean_within_the_least_and_the_greatest(tmp_path):
    sweep(tmp_path, a=[1.0, 2.0, 4.0])
    (choice,) = report(tmp_path).choices
    course = curves.course(choice, "val/v_mse")
    assert course.curve == ([8, 16], [9.0, 2.333], [9.0, 1.0], [9.0, 4.0]) and course.seconds == [0.8, 1.6]
    cell = report(tmp_path).main.cells["x=a"]
    assert curves.per_logsnr(choice, cell, "val/v_mse") == ([-1, 1], [2.333] * 2, [1.0] * 2, [4.0] * 2)
    ours, theirs = {1.0: {0: 3.0, 1: 1.0, 2: 5.0}, 3.0: {0: 1.0}}, {1.0: {0: 2.0, 1: 1.0}, 3.0: {1: 1.0}}
    assert curves.change_per_logsnr(ours, theirs) == ([1.0], [25.0], [0.0], [50.0])
    assert curves.density(choice).mean == [0.375, 0.125]  # 3 of 4 rows, in bins of width 2


def test_a_long_curve_keeps_its_ends():
    kept = curves.thinned(range(1000))
    assert len(kept) == curves.POINTS and (kept[0], kept[-1]) == (0, 999)
