"""`smallbatch report`, and a budget of money, as typed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from smallbatch import status
from smallbatch.cli import evaluate
from smallbatch.cli.naming import run_id
from smallbatch.metrics.judged import Judged, Score, write
from smallbatch.report.runs import read
from tests.cli import TINY
from tests.report.folders import make
from tests.test_configs import config


@pytest.fixture
def two(tmp_path):
    for folder, choice in {"one": "v", "two": "eps"}.items():
        for seed in (0, 1):
            values = {8: 2.0, 16: 1.0 + seed / 10}
            make(tmp_path / "runs" / folder / str(seed), f"prediction={choice} seed={seed} name={folder}", values)


def test_without_out_the_table_comes_to_the_terminal(two, smallbatch):
    said = smallbatch("report", "runs=runs", "baseline=v")
    assert (
        said.startswith("val/v_mse at 16 images; 4 runs of 2 choices")
        and "| `prediction=v` | 1.0500 | baseline |" in said
    )


def test_the_baseline_that_nobody_chose_has_been_measured(two, smallbatch, tmp_path):
    make(tmp_path / "runs" / "new", "prediction=a seed=0 name=new", {})
    assert "| `prediction=eps` | 1.0500 | baseline |" in smallbatch("report", "runs=runs")


@pytest.mark.parametrize(
    "runs", ["runs", "runs/*", "[runs/one,runs/two]", "[runs/one,runs]", "[runs/one,HERE/runs/two]"]
)
@pytest.mark.parametrize(
    "out, holds", [("a.html", "<!doctype html>"), ("b/a.md", "| `prediction=eps` |"), ("a.csv", "run,")]
)
def test_the_ending_of_out_says_what_is_written(runs, out, holds, two, smallbatch):
    said = smallbatch("report", f"runs={runs.replace('HERE', str(Path.cwd()))}", f"out={out}")
    assert "4 runs of 2 choices" in said and out in said and holds in Path(out).read_text()


def test_a_score_belongs_to_the_images_of_the_model_that_was_judged(two, tmp_path):
    folder = tmp_path / "runs/one/0"
    about = {"denoiser": {}, "class_names": [], "data_fingerprint": "", "images": 8}
    spec = {"channels": 1, "size": 8, "classes": 0}
    (folder / "model.json").write_text(json.dumps(about | {"spec": spec}))
    asked = evaluate.asked(OmegaConf.create({"run": str(folder), "samples": None}))
    write(Judged([Score("fid@40", 1.5, 40)], None), folder / "metrics" / "some.json", asked)
    assert read(folder, ()).points["metrics/fid@40 of some"] == [(8, 0.8, 1.5)]  # it went on to 16


def test_a_folder_that_cannot_be_read_is_named_and_the_others_are_reported(two, smallbatch):
    Path("runs/two/1/config.yaml").write_text("seed: 1\n")
    said = smallbatch("report", "runs=runs", "out=a.html")
    assert "3 runs" in said and "left out: runs/two/1/config.yaml does not begin with the command" in said
    assert "runs/two/1/config.yaml does not begin" in Path("a.html").read_text()


def test_runs_are_compared_at_equal_flops_when_asked(two, smallbatch):
    for seed in (0, 1):
        folder = make(Path(f"runs/half/{seed}"), f"prediction=half seed={seed}", {16: 3.0, 32: 0.5 + seed / 20})
        status.write(folder, replace(status.read(folder), flops_per_image=500))
    status.write(Path("runs/two/1"), replace(status.read(Path("runs/two/1")), flops_per_image=None))
    said = smallbatch("report", "runs=runs", "baseline=v", "equal=flops")
    assert said.startswith("val/v_mse at the FLOPs of 16 images of `prediction=v`; 5 runs of 3 choices")
    assert "| `prediction=half` | 0.5250 | **-50.00 %" in said
    assert "left out: runs/two/1: its status.json has no flops_per_image, which equal=flops needs" in said
    said = smallbatch("report", "runs=runs", "equal=flops", "images=8")  # of the baseline that nobody chose
    assert "at the FLOPs of 8 images of `prediction=eps`" in said and "| `prediction=half` | 3.0000 |" in said
    assert "| `prediction=half` | 3.0000 |" in smallbatch("report", "runs=runs", "baseline=v")


def test_where_no_cost_is_known_flops_cannot_be_equal(two, refused):
    for folder in [*Path("runs").glob("*/*")]:
        status.write(folder, replace(status.read(folder), flops_per_image=None))
    assert "no flops_per_image, which equal=flops needs" in refused("report", "runs=runs", "equal=flops")


@pytest.mark.parametrize(
    "words, said",
    [
        (["out=a.pdf"], "out=a.pdf must end in .html, .md, .csv"),
        (["runs=nowhere"], "runs=nowhere: there is no such folder"),
        (["metric=val/x"], "metric=val/x was not measured by any of these runs; they have val/v_mse"),
        (["baseline=w"], "baseline=w is none of these rows; nearest: prediction="),
        (["equal=cost"], "equal=cost must be images or flops"),
        (["equal=null"], "equal=None must be images or flops"),
        (["images=-8"], "images=-8 must be a number above 0"),
        (["price.per_device_hour=much"], "price.per_device_hour=much must be a number above 0"),
    ],
)
def test_a_wrong_word_is_refused(words, said, two, refused):
    assert said in refused("report", "runs=runs", *words)


def test_training_ends_when_the_money_is_spent(smallbatch, refused):
    words = [word for word in TINY if not word.startswith("budget")]
    words += ["budget.images=null", "budget.money=0.002", "curve.points=null", "samples.every_images=null"]
    assert "budget.money=0.002 needs a price" in refused("train", *words)
    smallbatch("train", *words, "price.per_device_hour=18")  # 0.4 seconds
    (folder,) = Path("runs/digits").iterdir()
    known = status.read(folder)
    assert known.state == "finished" and 0.4 <= known.seconds < 20
    assert "already trained" in smallbatch("train", *words, "price.per_device_hour=18")


def test_the_budget_changes_the_run_and_the_price_only_where_money_is_one():
    assert run_id(config(), "") == run_id(config("price.per_device_hour=2"), "")
    assert run_id(config(), "") != run_id(config("budget.money=2"), "")
    dear, cheap = (config("budget.money=2", f"price.per_device_hour={price}") for price in (2, 1))
    assert run_id(dear, "") != run_id(cheap, "")


def test_a_plan_says_what_may_be_spent(smallbatch):
    said = smallbatch("train", *TINY, "dry_run=true", "budget.money=2.5", "price.per_device_hour=2")
    assert "money            2.5" in said
