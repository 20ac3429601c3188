"""The benchmarks run; what they measure is for people to read."""

import runpy
from pathlib import Path

from tests.cli import TINY

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_the_loop_benchmark_prints_its_ratio(capsys):
    tiny = [word for word in TINY if not word.startswith(("experiment", "budget", "checkpoint", "log"))]
    benchmark = runpy.run_path(str(BENCHMARKS / "loop.py"))
    benchmark["main"](tiny)
    assert "ratio" in capsys.readouterr().out
