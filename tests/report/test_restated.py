"""Runs compared at equal training FLOPs."""

import csv
import io
import json
from dataclasses import replace

import pytest

from smallbatch import status
from smallbatch.cli.report import heading
from smallbatch.errors import UserError
from smallbatch.report import choices, curves, restated, runs
from smallbatch.report.compared import values_per_logsnr
from smallbatch.report.markdown import markdown
from smallbatch.report.page import page
from smallbatch.report.tidy import tidy
from tests.report.folders import make
from tests.report.folders import report as at_equal_images
from tests.report.test_page import Parsed

CHEAP = {800: 3.0, 1600: 0.5}


def costing(folder, flops, words, values, **state):
    """A run, whose images cost so much each."""
    made = make(folder, words, values, **state)
    status.write(made, replace(status.read(made), flops_per_image=flops))


def report(root, baseline="x=whole", images=None):
    made, left_out = choices.grouped([restated.read(folder, ("name",)) for folder in runs.folders(root)])
    return restated.report(made, "val/v_mse", baseline, images, left_out)


@pytest.fixture
def root(tmp_path):
    """One at half the FLOPs an image and twice the images."""
    costing(tmp_path / "a", 1000, "x=whole", {400: 2.0, 800: 1.0})
    costing(tmp_path / "b", 500, "x=half", CHEAP)
    return tmp_path


def compared(made):
    return made.main.images, {label: cell.level.mean for label, cell in made.main.cells.items()}


def test_at_equal_flops_the_end_of_one_is_held_against_the_end_of_the_other(root):
    assert compared(report(root)) == (800, {"x=whole": 1.0, "x=half": 0.5})
    assert report(root).main.cells["x=half"].change.mean == -50


def test_at_equal_images_its_middle_is(root):
    assert compared(at_equal_images(root, "x=whole")) == (800, {"x=whole": 1.0, "x=half": 3.0})


def test_images_are_those_of_the_baseline_whichever_it_is(root):
    assert compared(report(root, images=400)) == (400, {"x=whole": 2.0, "x=half": 3.0})
    assert compared(report(root, "x=half", images=1600)) == (1600, {"x=whole": 1.0, "x=half": 0.5})


def test_the_values_per_noise_level_are_those_of_the_same_moment(root):
    made = report(root)
    assert values_per_logsnr(made.choice("x=half"), made.main.cells["x=half"], "val/v_mse") == {
        -1.0: {0: 0.5},
        1.0: {0: 0.5},
    }
    assert "| `x=half` | 0.5000 | -50.00 %, one seed | 1 | -50.0 | -50.0 |" in markdown(made)


@pytest.mark.parametrize("flops", [333, 1501, 7])
def test_counts_that_rounding_moves_are_equal(flops, tmp_path):
    for choice, cost in {"whole": 1000, "other": flops}.items():
        last = -(-12800 * 1000 // cost // 16) * 16  # to the end of a batch
        costing(tmp_path / choice, cost, f"x={choice}", {12800: 2.0, last: 1.0})
    assert compared(report(tmp_path))[1] == {"x=whole": 1.0, "x=other": 1.0}


def test_a_run_under_way_has_no_value_where_it_has_not_been(root):
    costing(root / "c", 250, "x=quarter", {800: 4.0}, state="interrupted")
    made = report(root)
    assert compared(made) == (800, {"x=whole": 1.0, "x=half": 0.5})
    assert "| `x=quarter` |  |  |  | 1 interrupted |" in markdown(made)
    assert compared(report(root, images=200))[1] == {"x=quarter": 4.0}


def test_the_heading_says_what_is_equal(root):
    assert heading(report(root)).startswith("val/v_mse at the FLOPs of 800 images of `x=whole`; 2 runs of 2 choices")
    assert heading(at_equal_images(root, "x=whole")).startswith("val/v_mse at 800 images; ")


def test_so_do_the_page_and_its_axis(root):
    parsed = Parsed(page(report(root, images=400)))
    whole, drawn = "".join(parsed.texts), json.loads(parsed.data)
    assert "val/v_mse at the FLOPs of 400 images of the baseline, lower is better" in whole
    assert "some went on to the FLOPs of 800 images of the baseline" in whole and "Equal FLOPs." in whole
    assert drawn["counted"] == "images of the baseline, same FLOPs"
    assert [row["courses"]["0"]["x"] for row in drawn["rows"]] == [[400, 800], [400, 800]]
    assert [row["flops"] for row in drawn["rows"]] == [1000, 1000]  # of an image on that axis
    assert "FLOPs of" not in "".join(Parsed(page(at_equal_images(root))).texts)


def test_what_a_run_was_trained_on_and_cost_stays(root):
    (half,) = report(root).choice("x=half").runs.values()
    assert (half.status.images, half.flops, half.images) == (1600, 800_000, 800)
    assert half.device_hours == 1600 / 5 / 3600


def test_csv_counts_as_the_comparison_does_and_says_so(root):
    costing(root / "c", 500, "x=none", {}, state="failed", error="no")
    rows = {row["choice"]: row for row in csv.DictReader(io.StringIO(tidy(report(root))))}
    said = [(row["value"], row["images"], row["flops"], row["equal"]) for row in rows.values()]
    assert said == [("0.5", "800", "800000", "flops"), ("1.0", "800", "800000", "flops"), ("", "0", "0", "flops")]
    rows = csv.DictReader(io.StringIO(tidy(at_equal_images(root))))
    assert {(row["images"], row["equal"]) for row in rows if row["value"]} == {("800", "images")}


def test_curves_of_seeds_are_counted_alike(root):
    costing(root / "c", 500, "x=half seed=1", {800: 5.0, 1600: 0.7})
    course = curves.course(report(root).choice("x=half"), "val/v_mse")
    assert course.curve.x == [400, 800] and course.curve.mean == [4.0, 0.6] and course.seconds == [80, 160]


@pytest.mark.parametrize("flops", [None, 0, -5])
def test_a_run_of_unknown_cost_is_refused(flops, root):
    costing(root / "c", flops, "x=new", {8: 1.0})
    with pytest.raises(UserError, match=r"c: its status\.json has no flops_per_image, which equal=flops needs"):
        restated.read(root / "c", ())


def test_without_a_baseline_every_run_keeps_its_own(root):
    made = report(root, baseline=None)
    assert made.equal == "images" and made.choice("x=half").first.points["val/v_mse"][-1].images == 1600
