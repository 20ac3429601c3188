"""The page in a browser: no complaint, no network, and a table that sorts and filters."""

import json
import shutil

import pytest

from smallbatch.report.page import page
from tests.report.chromium import chromium
from tests.report.folders import make, report
from tests.report.test_page import sweep

BINARY = shutil.which("chromium") or shutil.which("google-chrome")
LEFT = "document.querySelector('{}').getBoundingClientRect().left - box.getBoundingClientRect().left"
ROWS = "[...document.querySelectorAll('tbody')].filter((b) => !b.hidden).map((b) => b.querySelector('th').dataset.v)"


@pytest.mark.skipif(BINARY is None, reason="there is no chromium here (apt-get install chromium)")
def test_the_page_opens_sorts_filters_and_draws(tmp_path):
    sweep(tmp_path / "runs")
    (tmp_path / "report.html").write_text(page(report(tmp_path / "runs", "x=a")))
    with chromium(BINARY, tmp_path / "profile") as browser:
        browser.look(1200, 900)
        browser.open(tmp_path / "report.html")
        assert browser.run(ROWS) == ["x=b", "x=a", "x=c", "x=</script><b>"]  # best first, what has no value last
        browser.run("document.querySelector('.full.m0 button').focus()")
        browser.press("Enter", 13, "\r")  # by keyboard: descending
        assert browser.run(ROWS) == ["x=c", "x=a", "x=b", "x=</script><b>"]
        browser.run("document.querySelector('[data-sort=choice]').click()")
        assert browser.run(ROWS) == ["x=</script><b>", "x=a", "x=b", "x=c"]
        assert browser.run("document.querySelector('th[aria-sort]').textContent.trim()") == "Choice"
        browser.run("document.getElementById('filter').focus()")
        for key in "x=b":
            browser.press(key, ord(key.upper()), key)
        assert browser.run(ROWS) == ["x=b"]
        browser.run(
            "filter.value = ''; state.value = 'failed'; state.dispatchEvent(new Event('input', {bubbles: true}))"
        )
        assert browser.run(ROWS) == ["x=</script><b>"]
        assert browser.run("document.querySelectorAll('#courses .curve').length") == 3
        assert browser.run("document.querySelectorAll('#noise .curve').length") == 3
        browser.run("draw2.click()")
        assert browser.run("document.querySelectorAll('#density .curve').length") == 2
        assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        browser.run("theme.click()")
        assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 26)"
        browser.look(360, 780)
        assert browser.run("document.documentElement.scrollWidth") == 360  # only the table scrolls sideways
        assert browser.errors == []


@pytest.mark.skipif(BINARY is None, reason="there is no chromium here (apt-get install chromium)")
@pytest.mark.parametrize("width", [1300, 360])
def test_nothing_is_hidden_beside_the_first_column_wherever_the_table_is_scrolled(width, tmp_path):
    folder = make(tmp_path / "runs" / "a", "x=a", {8: 1.0}, metric="metrics/fid@40")
    make(tmp_path / "runs" / "b", f"x={'b' * 40}", {8: 2.0}, metric="metrics/fid@40")
    (folder / "metrics").mkdir()
    score = {"name": "fid@40", "value": 1.0, "marks": ["what must be known of it " * 12]}
    (folder / "metrics" / "8.json").write_text(json.dumps({"metrics": [score]}))
    (tmp_path / "report.html").write_text(page(report(tmp_path / "runs", "x=a", "metrics/fid@40")))
    with chromium(BINARY, tmp_path / "profile") as browser:
        browser.look(width, 900)
        browser.open(tmp_path / "report.html")
        browser.run("box = document.querySelector('.scroll'); document.querySelector('.more').click()")
        browser.run("box.scrollLeft = 9999; document.querySelector('[data-sort=v0]').focus()")
        assert browser.run(f"{LEFT.format('[data-sort=v0]')} >= document.querySelector('thead .choice').offsetWidth")
        browser.run("box.scrollLeft = 9999")
        assert browser.run("box.scrollLeft") > 100
        for part in (".opened p", ".opened code", ".note"):
            assert 0 <= browser.run(LEFT.format(part)) < 100
            assert browser.run(f"document.querySelector('{part}').getBoundingClientRect().right <= innerWidth")


@pytest.mark.skipif(BINARY is None, reason="there is no chromium here (apt-get install chromium)")
def test_the_browser_would_complain(tmp_path):
    """Of what the test above says there is none of."""
    (tmp_path / "bad.html").write_text(
        "<script>console.error('a')</script><script>b()</script><img src='http://c.invalid/d'>"
    )
    with chromium(BINARY, tmp_path / "profile") as browser:
        browser.open(tmp_path / "bad.html")
        browser.run("1")
        said = " ".join(browser.errors)
    assert "['a']" in said and "b is not defined" in said and "http://c.invalid/d" in said
