"""A report of run folders that somebody else has filled: everything is shown as text, nothing is obeyed."""

import json
import os
import signal
from contextlib import suppress
from html.parser import HTMLParser

import pytest
from omegaconf import OmegaConf
from PIL import Image as PILImage

from smallbatch.cli import report
from smallbatch.errors import UserError
from smallbatch.report import samples
from smallbatch.report.markdown import markdown
from smallbatch.report.page import page
from tests.report.folders import make
from tests.report.folders import report as reported

EVIL = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "\"'><img src=x onerror=alert(3)>",
    "javascript:alert(4)",
    "{{7*7}}{% include '/etc/passwd' %}",
    "<!--<script>",
    "a|b`c",
    "\x1b[2J\x1b]0;title\x07",
]


def made(tmp_path, evil, state="failed"):
    """Three run folders with `evil` wherever a folder holds words."""
    word = evil.replace("'", "'\"'\"'")
    for seed, choice in ((0, "a"), (1, "a"), (0, evil)):
        folder = tmp_path / "runs" / f"{seed}{evil.replace('/', '_')}{choice == evil}"
        (folder / "metrics").mkdir(parents=True)
        told = word if choice == evil else choice
        (folder / "config.yaml").write_text(f"# smallbatch train 'x={told}' 'y={word}' seed={seed}\nseed: {seed}\n")
        row = {"images": 16, "step": 1, "seconds": 1.0, "name": "val/v_mse", "value": 1.0 + seed}
        rows = [row, row | {"logsnr": 1.0}, row | {"name": f"metrics/{evil}"}, row | {"name": f"val/{evil}"}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
        score = {"name": evil, "value": 1.0, "marks": [evil], "reference": evil, "extractor": evil}
        (folder / "metrics" / "16.json").write_text(json.dumps({"metrics": [score], "asked": evil}))
        (folder / "metrics" / f"{evil.replace('/', '_')}.json").write_text(json.dumps({"metrics": [score]}))
        status = {"state": state, "images": 16, "seconds": 1.0, "devices": 1, "device": evil, "error": evil}
        status |= {"flops_per_image": 1000}
        (folder / "status.json").write_text(json.dumps(status))
        (folder / "job.log").write_text(evil)
        (folder / "events.log").write_text(evil)
    asked = {"runs": str(tmp_path / "runs"), "baseline": None, "metric": "val/v_mse", "images": None, "out": None}
    asked |= {"equal": "images"}
    return OmegaConf.create(asked | {"price": {"per_device_hour": None}})


class Seen(HTMLParser):
    """What a browser would run or fetch."""

    def __init__(self):
        super().__init__()
        self.scripts, self.events, self.addresses = 0, [], []

    def handle_starttag(self, tag, attributes):
        self.scripts += tag == "script"
        self.events += [name for name, _ in attributes if name.startswith("on")]
        self.addresses += [value for name, value in attributes if name in ("src", "href", "action", "style", "srcdoc")]


def seen(html):
    parser = Seen()
    parser.feed(html)
    parser.close()
    return parser


@pytest.mark.parametrize("state", ["failed", "finished"])
@pytest.mark.parametrize("evil", EVIL)
def test_the_page_shows_it_as_text(evil, state, tmp_path):
    html = page(report.read(made(tmp_path, evil, state)))
    harmless = seen(page(report.read(made(tmp_path / "b", "harmless", state))))
    found = seen(html)
    assert found.scripts == harmless.scripts and found.events == []
    assert not [address for address in found.addresses if "alert" in (address or "")]
    assert ("{{7*7}}" in html) == ("{{7*7}}" in evil)


@pytest.mark.parametrize("evil", EVIL)
def test_the_terminal_is_told_nothing(evil, tmp_path, capsys):
    report.run(made(tmp_path, evil))
    shown = capsys.readouterr()
    assert all(line.isprintable() for line in (shown.out + shown.err).split("\n"))


@pytest.mark.parametrize("out", [None, "a.csv"])
@pytest.mark.parametrize("evil", EVIL)
def test_a_heading_that_names_the_baseline_is_text(evil, out, tmp_path, capsys):
    config = made(tmp_path, evil)
    config.equal, config.baseline, config.out = "flops", evil, out and str(tmp_path / out)
    report.run(config)
    head, *rest = capsys.readouterr().out.split("\n")
    assert "at the FLOPs of 16 images of `x=" in head and head.count("`") == 2
    assert all(line.isprintable() for line in (head, *rest))


def test_of_twins_the_terminal_is_told_no_more(tmp_path, capsys):
    config = made(tmp_path, "\x1b[2J")
    for n in "12":
        make(tmp_path / "runs" / f"\x1b[2J{n}", "x=twin", {16: 1.0})
    config.out = str(tmp_path / "a.csv")
    report.run(config)
    shown = capsys.readouterr().out
    assert "the same settings and seed as" in shown and all(line.isprintable() for line in shown.split("\n"))


def test_nothing_is_shown_that_lies_outside_of_a_run_folder(tmp_path):
    (tmp_path / "secret").mkdir()
    PILImage.new("RGB", (4, 4)).save(tmp_path / "secret" / "8.png")
    (tmp_path / "secret" / "log").write_text("secret words")
    links, folder = (make(tmp_path / name, f"x={name}", {8: 1.0}, state="failed", error="no") for name in "ab")
    (links / "job.log").symlink_to(tmp_path / "secret" / "log")
    (links / "samples").mkdir()
    (links / "samples" / "8.png").symlink_to(tmp_path / "secret" / "8.png")
    (links / "samples" / "9.png").symlink_to("9.png")  # to itself
    os.mkfifo(links / "samples" / "7.png")
    (folder / "samples").symlink_to(tmp_path / "secret")
    (folder / "job.log").symlink_to("status.json")
    first, second = reported(tmp_path).choices
    assert first.first.log == "" and '"images": 8' in second.first.log
    assert samples.newest(first) is None and samples.newest(second) is None


def test_a_word_does_not_leave_its_cell(tmp_path):
    table = markdown(report.read(made(tmp_path, "a|b`c")))
    bars = [line.replace(r"\|", "").count("|") for line in table.splitlines()]
    assert len(set(bars)) == 1 and all(line.count("`") in (0, 2) for line in table.splitlines())


@pytest.fixture
def soon():
    """A pipe that is opened would be waited for until somebody writes."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits"))
    signal.alarm(20)
    yield
    signal.alarm(0)


def test_a_pipe_is_not_waited_for(tmp_path, soon):
    config = made(tmp_path, "x")
    for name in ("job.log", "events.log", "metrics.jsonl", "status.json", "config.yaml"):
        for folder in (tmp_path / "runs").iterdir():
            (folder / name).unlink()
            os.mkfifo(folder / name)
        with suppress(UserError):
            report.read(config)
