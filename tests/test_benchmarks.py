"""The benchmarks run; what they measure is for people to read."""

import re
import runpy
from pathlib import Path

import pytest
import torch

from smallbatch.errors import UserError
from tests.cli import TINY

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SMALL = ["network=unet", "network.width=8", "network.multipliers=[1,2]", "network.attention_at=[4]", "data.size=8"]
PEER = """
from torch import nn

class UNetModel(nn.Conv2d):
    def __init__(self, in_channels, out_channels, num_classes, **flags):
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x, timesteps, y):
        assert (y >= 0).all()
        return super().forward(x)
"""


def test_the_loop_benchmark_prints_its_ratio(capsys, monkeypatch):
    tiny = [word for word in TINY if not word.startswith(("experiment", "budget", "checkpoint", "log"))]
    benchmark = runpy.run_path(str(BENCHMARKS / "loop.py"))
    for name, value in {"STEPS": 2, "ROUNDS": 4}.items():
        monkeypatch.setitem(benchmark["main"].__globals__, name, value)
    benchmark["main"](tiny)
    assert "ratio" in capsys.readouterr().out


def test_the_step_benchmark_compares_ours_and_a_peer(capsys, monkeypatch, tmp_path):
    (tmp_path / "guided_diffusion").mkdir()
    (tmp_path / "guided_diffusion" / "unet.py").write_text(PEER)
    monkeypatch.syspath_prepend(BENCHMARKS)
    benchmark = runpy.run_path(str(BENCHMARKS / "train_step.py"))
    own = ["steps=1", "rounds=2", f"guided_diffusion={tmp_path}"]
    benchmark["main"]([*own, *SMALL, "trainer=cpu", "batch=2", "drop_condition=1"])
    out = capsys.readouterr().out
    assert out.startswith("3x8x8, batch 2") and out.count("ratio") == 3 and " 84 parameters" in out


def test_the_overhead_benchmark_measures_what_is_asked_and_names_what_cannot_be(capsys, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    tiny = [word for word in TINY if word.startswith(("trainer", "batch", "data", "network"))]
    own = ["steps=1", "rounds=2", f"threads={torch.get_num_threads()}"]
    benchmark = runpy.run_path(str(BENCHMARKS / "overhead.py"))
    benchmark["main"]([*own, *tiny, "only=timesteps/window,prediction/flow,prediction/eps_learned_variance"])
    out = capsys.readouterr().out
    assert re.search(r"timesteps=window +\d\.\d{3}  \(", out) and re.search(r"prediction=flow +\d\.\d{3}  \(", out)
    assert "needs a table" in out and out.count("\n") == 5
    with pytest.raises(UserError, match="only=timesteps/windw"):
        benchmark["main"]([*own, *tiny, "only=timesteps/windw"])


def test_the_evaluation_benchmark_holds_ours_against_both_libraries(capsys, inception_file):
    benchmark = runpy.run_path(str(BENCHMARKS / "evaluate.py"))
    threads, counts = f"threads={torch.get_num_threads()}", ["classifier=200,300", "inception=2,3"]
    benchmark["main"]([f"weights={inception_file}", "n=4", "batch=4", "rounds=1", *counts, threads])
    out = capsys.readouterr().out
    values = [float(line.split()[1]) for line in out.splitlines() if "ratio" in line]
    assert len(values) == 3 and values == pytest.approx([values[0]] * 3, rel=1e-4)
    assert out.count("peak memory") == 4


def test_the_data_benchmark_measures_every_part(capsys, monkeypatch):
    benchmark = runpy.run_path(str(BENCHMARKS / "data.py"))
    few = {"ROUNDS": 2, "PICTURES": 150, "BATCH": 8}
    for name, value in few.items():
        monkeypatch.setitem(benchmark["turns"].__globals__, name, value)
    benchmark["ConstantData"].parts = benchmark["Parts"](benchmark["Constant"](500), benchmark["Constant"](5))
    benchmark["main"]([])
    out = capsys.readouterr().out
    assert out.count("ratio") == 3 and "opening a store of 500 images" in out


def test_the_report_benchmark_says_what_many_runs_cost(capfd, tmp_path):
    runpy.run_path(str(BENCHMARKS / "report.py"))["main"](["runs=20", f"keep={tmp_path}"])
    out = capfd.readouterr().out
    assert "20 runs of 7 choices" in out and re.search(r"seconds +\d+\.\d\npeak memory +\d+ MiB\npage +0\.\d MiB", out)
    assert "1 failed" in (tmp_path / "report.html").read_text()


def test_the_masking_benchmark_counts_and_times_what_hiding_patches_saves(capsys):
    benchmark = runpy.run_path(str(BENCHMARKS / "masking.py"))
    own = ["network=microdit_digits", "batch=1", "rounds=1", "ratios=0.75", "tokens=16"]
    benchmark["main"]([*own, f"threads={torch.get_num_threads()}"])
    out = capsys.readouterr().out
    fewer = float(re.search(r"deferred 0.75: FLOPs (\S+) times fewer", out)[1])
    apart = float(re.search(r"outputs (\S+) apart", out)[1])
    assert 1.5 < fewer < 4 and apart < 1e-4 and "256 patches, batch 1" in out
    with pytest.raises(SystemExit, match="rato: give network, masking"):
        benchmark["main"](["rato=0.5"])
