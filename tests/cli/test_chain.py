"""A chain of commands, each run's folder known to those that follow."""

from pathlib import Path

import numpy as np
import pytest

from smallbatch.cli import chain
from smallbatch.recorded import read
from tests.cli import TINY

STAGES = f"""
train: {" ".join(TINY)} budget.images=32
first: train name=a
second: train name=b seed=3
drawn: sample run={{second}} n=2 steps=2 out={{first}}/drawn.npz
"""


def test_a_stage_may_name_the_runs_before_it(smallbatch, tmp_path, capsys):
    (tmp_path / "chain.yaml").write_text(STAGES)
    stages = chain.stages(tmp_path / "chain.yaml")
    more = chain.shared_out(["second:budget.images=16", "batch=16", "drawn:n=3"], stages)
    chain.follow(stages, more)
    said = capsys.readouterr().out
    (first,), (second,) = (list(Path("runs", name).iterdir()) for name in "ab")
    assert (first / "drawn.npz").exists() and "3/3 drawn: smallbatch sample run=" in said
    assert len(np.load(first / "drawn.npz")["arr_0"]) == 3
    ends = [max(row["images"] for row in read(folder)) for folder in (first, second)]
    assert ends == [32, 16] and "batch: 16" in (second / "config.yaml").read_text()
    chain.follow(stages, more)
    assert f"already trained: {first.absolute()}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, line",
    [
        ([], "name one chain as experiment=NAME; known: "),
        (["experiment=rethinking_fig1", "batch=32"], "batch=32: stage toward_noise sets batch itself; for that stage"),
        (["experiment=rethinking_fig1", "smal:batch=32"], "smal:batch=32: there is no such stage; nearest: small"),
        (["experiment=rethinking_fig2"], "experiment=rethinking_fig2 is no chain; nearest: rethinking_fig1"),
    ],
)
def test_a_chain_that_is_not_known_is_refused(refused, words, line):
    assert line in refused("chain", *words)


def test_a_stage_that_trains_nothing_is_refused(smallbatch, tmp_path):
    (tmp_path / "chain.yaml").write_text(STAGES)
    with pytest.raises(chain.UserError, match="train nothing"):
        chain.follow(stages := chain.stages(tmp_path / "chain.yaml"), chain.shared_out(["dry_run=true"], stages))
