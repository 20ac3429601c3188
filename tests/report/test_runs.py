"""From run folders to a table."""

import json

import pytest

from smallbatch.errors import UserError
from smallbatch.report.runs import grouped, load
from smallbatch.report.table import markdown

VALUES = {("a", 0): 1.0, ("a", 1): 2.0, ("b", 0): 0.9, ("b", 1): 1.8}


@pytest.fixture
def runs(tmp_path):
    for (choice, seed), value in VALUES.items():
        folder = tmp_path / f"{choice}{seed}"
        folder.mkdir()
        (folder / "config.yaml").write_text(f"# smallbatch train x={choice} seed={seed} batch=8\nseed: {seed}\n")
        row = {"images": 16, "seconds": 1.0, "name": "val/v_mse"}
        rows = [row | {"images": 8, "value": 9.0}, row | {"value": value}, row | {"value": value, "logsnr": 1.0}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return [load(folder, "val/v_mse", ["name"]) for folder in sorted(tmp_path.iterdir())]


def test_runs_are_grouped_by_the_words_in_which_they_differ(runs):
    groups = grouped(runs)
    assert {label: sorted(by_seed) for label, by_seed in groups.items()} == {"x=a": [0, 1], "x=b": [0, 1]}
    assert groups["x=b"][1].mean == 1.8 and groups["x=b"][1].images == 16


def test_the_table_is_paired_and_best_first(runs):
    rows = markdown(grouped(runs), "x=a").splitlines()[2:]
    assert rows[0] == "| `x=b` | 1.3500 | **-10.00 % [-10.00, -10.00]** | 2 | -10.0 |"
    assert rows[1] == "| `x=a` | 1.5000 | baseline | 2 | +0.0 |"


def test_a_run_without_its_command_is_refused(tmp_path, runs):
    (tmp_path / "a0" / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(UserError, match="does not begin with the command"):
        load(tmp_path / "a0", "val/v_mse", [])


@pytest.mark.parametrize("words", ["batch=8 x=a seed=0", "+seed=0 x=b x=a batch=8", "x=a batch=8 name=other"])
def test_the_order_of_words_their_repetition_and_what_changes_no_result_do_not_matter(words, tmp_path, runs):
    (tmp_path / "a0" / "config.yaml").write_text(f"# smallbatch train {words}\n")
    again = load(tmp_path / "a0", "val/v_mse", ["name"])
    assert (again.settings, again.seed) == (runs[0].settings, 0)


def test_twins_are_refused_and_named(tmp_path, runs):
    (tmp_path / "a0" / "config.yaml").write_text("# smallbatch train x=a seed=1 batch=8\n")
    with pytest.raises(UserError, match=r"a0 and .*a1 have the same settings and seed"):
        grouped([load(folder, "val/v_mse", []) for folder in sorted(tmp_path.iterdir())])


def test_only_seeds_that_both_have_count_and_without_any_there_is_no_comparison(runs):
    groups = grouped(runs)
    one = markdown({"x=a": {0: groups["x=a"][0]}, "x=b": groups["x=b"]}, "x=a").splitlines()[2]
    assert one == "| `x=b` | 0.9000 | -10.00 %, one seed | 1 | -10.0 |"
    with pytest.raises(UserError, match=r"x=b has the seeds \[1\], the baseline \[0\]"):
        markdown({"x=a": {0: groups["x=a"][0]}, "x=b": {1: groups["x=b"][1]}}, "x=a")


def test_a_metric_without_a_mean_is_refused(tmp_path, runs):
    row = {"images": 16, "seconds": 1.0, "name": "heads/x0_wins", "value": 0.5, "logsnr": 1.0}
    (tmp_path / "a0" / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match="has no mean"):
        load(tmp_path / "a0", "heads/x0_wins", [])
