"""MicroDiT's four stages, killed in the middle of each, end as if nothing had happened."""

from pathlib import Path

import numpy as np
import pytest

from smallbatch import status
from tests.outcome import same_run
from tests.processes import start, within

STAGES = ("one", "two", "three", "four")
FEW, MORE = 16, 160  # images of a stage; of one that is killed
WORDS = ["chain", "experiment=microdit_shapes", "root=.", "trainer=cpu", "batch=8", "text.length=14"]
WORDS += ["network.patch=4", "network.width=16", "network.depth=1", "network.head_width=8", "network.mixer_width=16"]
WORDS += ["network.decoder=0", "network.multiple=8", "network.experts=2", "network.mixer_depth=2"]
WORDS += ["~callbacks.pictures", "samples.every_images=null", "curve.points=null", "validation.count=8"]
WORDS += ["log.every_images=40", "checkpoint.every_images=40", "ema.snapshot_every_images=40"]
WORDS += ["samples:n=2", "samples:steps=2"]


def folder_of(root: Path, stage: str) -> Path | None:
    """Of the run of that stage, once it has begun."""
    number = STAGES.index(stage) + 1
    return next(root.glob(f"microdit_shapes_{number}/*"), None)


def saved(root: Path, stage: str) -> bool:
    folder = folder_of(root, stage)
    return bool(folder) and (folder / "checkpoints" / "last.ckpt").exists()


def kill_in(root: Path, stage: str, words: list[str]) -> None:
    """After its first checkpoint and before its end."""
    run = start(root, *words)
    assert within(120, lambda: saved(root, stage) or run.code is not None, every=0.005) and run.code is None, run.said
    run.kill()
    assert status.read(folder_of(root, stage)).state == "training"


@pytest.mark.faults
@pytest.mark.parametrize("kills", [["three"], STAGES], ids="-".join)
def test_a_chain_killed_in_a_stage_ends_as_if_nothing_had_happened(kills, tmp_path):
    words = [*WORDS, *(f"{stage}:budget.images={MORE if stage in kills else FEW}" for stage in STAGES)]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for root in (whole, killed):
        root.mkdir()
    start(whole, *words).finish()
    for stage in kills:
        kill_in(killed, stage, words)
    start(killed, *words).finish()
    for stage in STAGES:
        a, b = folder_of(whole, stage), folder_of(killed, stage)
        assert a.name == b.name
        same_run(a, b)
        assert ("resumed at " in (b / "events.log").read_text()) == (stage in kills)
    drawn = [np.load(folder_of(root, "four") / "samples" / "shapes.npz")["arr_0"] for root in (whole, killed)]
    assert np.array_equal(*drawn)
