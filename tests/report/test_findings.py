"""What `smallbatch diagnose` left in a run folder is shown with it, and can do no harm."""

import json

import pytest
from PIL import Image as PILImage

from smallbatch.report.findings import found
from smallbatch.report.markdown import markdown
from smallbatch.report.page import page
from tests.report.folders import make, report


@pytest.fixture
def folder(tmp_path):
    made = make(tmp_path / "runs" / "a", "x=1", {8: 1.0})
    (made / "diagnostics").mkdir()
    return made


def write(folder, name, line):
    (folder / "diagnostics" / f"{name}.json").write_text(json.dumps({"diagnostic": name, "line": line}))


def shown(folder):
    (choice,) = report(folder.parent).choices
    return found(choice.first)


def test_a_line_and_its_picture_stand_in_the_page_and_the_line_below_the_table(folder):
    write(folder, "slots", "ten slots of equal loss")
    PILImage.new("RGB", (3000, 30), "red").save(folder / "diagnostics" / "slots.png")
    (one,) = shown(folder)
    assert (one.name, one.line) == ("slots", "ten slots of equal loss") and one.width == 1100
    assert one.data in page(report(folder.parent))
    table, line = markdown(report(folder.parent)).split("\n\n")
    assert line == "- `x=1` seed 0, slots: ten slots of equal loss" and "slots" not in table


@pytest.mark.parametrize("content", ["", "[", "[]", "{}", '{"line": 3}', "\x00"])
def test_a_file_that_says_nothing_is_left_out(folder, content):
    (folder / "diagnostics" / "a.json").write_text(content)
    assert shown(folder) == [] and page(report(folder.parent))


def test_a_line_is_text(folder):
    write(folder, "a", "<script>alert(1)</script>\x1b[2J\n| x |")
    assert "<script>alert(1)" not in page(report(folder.parent))
    line = markdown(report(folder.parent)).split("\n\n")[1]
    assert line.isprintable() and r"\<script\>" in line


def test_a_line_and_a_name_are_no_markdown(folder):
    write(folder, "a\n# b", "![x](https://example.org/x.png) `c`")
    (line,) = markdown(report(folder.parent)).split("\n\n")[1].splitlines()
    assert line.endswith(r"a\\n# b: !\[x\](https://example.org/x.png) \`c\`")


def test_what_lies_outside_is_not_shown(folder, tmp_path):
    PILImage.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (tmp_path / "secret.json").write_text('{"line": "secret"}')
    write(folder, "a", "own")
    (folder / "diagnostics" / "a.png").symlink_to(tmp_path / "secret.png")
    (folder / "diagnostics" / "b.json").symlink_to(tmp_path / "secret.json")
    (one,) = shown(folder)
    assert one.line == "own" and one.data is None
