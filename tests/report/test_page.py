"""The page: whole, small, and safe to open."""

import base64
import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image as PILImage

from smallbatch.report import samples, text
from smallbatch.report.forest import WIDTH, Axis
from smallbatch.report.page import page
from smallbatch.report.paired import interval
from tests.report.folders import make, report

VOID = {"meta", "input", "img", "path", "circle"}


class Parsed(HTMLParser):
    """Tags in the order in which they were opened, with their attributes; complains of what is not closed in turn."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.data, self.texts = [], [], "", []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if self.open and self.open[-1] == "script" and self.tags[-1][1].get("id") == "data":
            self.data += data


def sweep(root):
    for seed in (0, 1, 2):
        for choice, factor in {"a": 1.0, "b": 0.9, "c": 1.3}.items():
            make(
                root / f"{choice}{seed}",
                f"x={choice} seed={seed}",
                {8: 2.0, 16: factor * (1 + seed / 10) + seed**2 / 99},
            )
    make(root / "d0", "x='</script><b>' seed=0", {}, state="failed", error="<i>no</i>")


def test_every_row_is_there_with_its_commands_state_and_figures(tmp_path):
    sweep(tmp_path)
    made = report(tmp_path, "x=a")
    html = page(made)
    parsed = Parsed(html)
    assert parsed.open == []
    rows = [attributes for tag, attributes in parsed.tags if tag == "tbody"]
    assert len(rows) == 4 == len(json.loads(parsed.data)["rows"])
    copied = [attributes["data-copy"] for tag, attributes in parsed.tags if "data-copy" in attributes]
    assert all(run.command in copied for run in made.runs)
    whole = "".join(parsed.texts)
    assert "<i>no</i>" in whole and "1 failed" in whole and "9 finished" in whole
    assert text.percent(made.main.cells["x=c"].change.mean) in whole


def test_what_is_embedded_cannot_end_its_script(tmp_path):
    sweep(tmp_path)
    html = page(report(tmp_path))
    assert html.count("</script>") == 2 and "<b>" not in Parsed(html).data.replace("\\u003c", "")
    assert json.loads(Parsed(html).data)["rows"][3]["label"] == "x=</script><b>"


def test_one_run_has_a_page_without_comparisons(tmp_path):
    make(tmp_path / "a", "x=a", {8: 2.0, 16: 1.0})
    html = page(report(tmp_path))
    assert "p (Holm)" not in html and Parsed(html).open == []


def test_a_metric_that_may_be_negative_has_absolute_differences(tmp_path):
    for choice, value in {"a": -0.001, "b": 0.0015}.items():
        make(tmp_path / choice, f"x={choice}", {8: value})
    whole = "".join(Parsed(page(report(tmp_path, "x=a"))).texts)
    assert "Absolute, 95 % interval" in whole and "+0.0025" in whole and "+0.0025 %" not in whole


@pytest.mark.parametrize("images, why", [(None, "because every finished run"), (16, "where images= says")])
def test_the_page_says_why_runs_are_compared_there(images, why, tmp_path):
    make(tmp_path / "a", "x=a", {8: 2.0, 16: 1.0, 32: 1.0})
    make(tmp_path / "b", "x=b", {8: 2.0, 16: 1.0})
    whole = "".join(Parsed(page(report(tmp_path, images=images))).texts)
    assert f"Compared {why if images else 'there ' + why}" in whole
    assert whole.count("Compared ") == 1


@pytest.mark.parametrize("values", [[[0.5, 0.6], [2.0, 400.0]], [[-3.0], [-1.0, -2.0, -1.5]], [[0.0], [0.0, 0.0]]])
def test_the_axis_holds_every_interval_in_order(values):
    changes = [interval(one) for one in values]
    axis = Axis(changes)
    for change in changes:
        low, mean, high = axis.mark(change)
        assert 0 <= low <= mean <= high <= WIDTH
    assert 0 in axis.ticks() and axis.ticks() == sorted(axis.ticks()) and 0 <= axis(0) <= WIDTH


def test_a_grid_comes_back_pixel_for_pixel(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (34, 85, 3), dtype=np.uint8)
    big = PILImage.fromarray(pixels).resize((85 * 7, 34 * 7), PILImage.Resampling.NEAREST)
    folder = make(tmp_path / "a", "x=a", {8: 1.0})
    (folder / "samples").mkdir()
    big.save(folder / "samples" / "000000008.png")
    (folder / "samples" / "000000009.png").write_bytes(b"no picture")
    grid = samples.newest(report(tmp_path).choices[0])
    assert (grid.images, grid.width, grid.height) == (8, 85, 34)
    again = PILImage.open(io.BytesIO(base64.b64decode(grid.data.split(",")[1])))
    assert (np.asarray(again) == pixels).all()


def test_a_large_grid_is_made_small(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (1000, 2000, 3), dtype=np.uint8)
    picture = samples.shrunk(PILImage.fromarray(noise))
    picture.thumbnail((samples.SIDE, samples.SIDE))
    assert picture.size == (640, 320) and len(samples.address(picture)) < 300_000
