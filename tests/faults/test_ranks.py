"""One process of a run on several devices dies."""

import os
import signal
from pathlib import Path

import pytest

from smallbatch import status
from tests.cli import UNDRAWN
from tests.outcome import images, run_folder
from tests.processes import session, start, within

WORDS = ["train", *UNDRAWN, "trainer=ddp", "devices=2", "budget.images=200000", "samples.every_images=null", "root=."]


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.faults), 1])
def test_when_one_rank_dies_the_job_ends_and_leaves_no_process_behind(rank, tmp_path):
    run = start(tmp_path, *WORDS)
    assert within(120, lambda: images(tmp_path) >= 160), run.said
    (other,) = (pid for pid in session(run.pid) if pid != run.pid and is_rank(pid))
    os.kill([run.pid, other][rank], signal.SIGKILL)
    assert run.gone(60), run.said
    run.process.join()
    assert run.code != 0
    assert status.read(run_folder(tmp_path)).state in ("training", "failed")


def is_rank(pid):
    return b"LOCAL_RANK=1" in Path(f"/proc/{pid}/environ").read_bytes()
