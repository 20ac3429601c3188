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
    return [load(folder, "val/v_mse") for folder in sorted(tmp_path.iterdir())]


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
        load(tmp_path / "a0", "val/v_mse")
