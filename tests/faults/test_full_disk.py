"""The disk fills up while a run writes to it."""

import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from smallbatch import status
from smallbatch.callbacks.checkpoint import last_good
from tests.cli import UNDRAWN
from tests.outcome import images, run_folder, same_outcome
from tests.processes import start, within

WORDS = ["train", *UNDRAWN, "budget.images=960", "samples.every_images=null", "ema.snapshot_every_images=160", "root=."]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    start(root, *WORDS).finish()
    return root


@pytest.fixture
def small_disk(tmp_path):
    """10 MB."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode().strip()}")
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


def fill(disk: Path, spare: int) -> Path:
    """A file that leaves `spare` bytes."""
    with open(disk / "filler", "wb", buffering=0) as file:
        with suppress(OSError):  # when the disk is full
            while True:
                file.write(bytes(4096))
        file.truncate(file.tell() - spare)
    return disk / "filler"


def refused(root: Path, said: str) -> None:
    """In one line; and the last good checkpoint loads."""
    (line,) = [line for line in said.splitlines() if line.startswith("smallbatch train: ")]
    assert "Traceback" not in said
    assert all(word in line for word in ("no room for", str(run_folder(root)), "are free", "the same command"))
    _, saved = last_good(run_folder(root) / "checkpoints", pytest.fail)
    assert 160 <= saved["global_step"] * 32 <= images(root) + 32


@pytest.mark.parametrize("spare", [0, pytest.param(700_000, marks=pytest.mark.faults)])
def test_a_full_disk_stops_a_run_in_one_line_and_it_goes_on_when_there_is_room(spare, small_disk, whole):
    run = start(small_disk, *WORDS)
    assert within(60, lambda: images(small_disk) >= 320)
    filler = fill(small_disk, spare)
    refused(small_disk, run.finish(1))
    filler.unlink()
    start(small_disk, *WORDS).finish()
    same_outcome(whole, small_disk)
    assert status.read(run_folder(small_disk)).state == "finished"


@pytest.mark.faults
def test_a_file_that_may_not_grow_stops_a_run_in_one_line(tmp_path, whole):
    """As a full disk does, wherever no disk can be mounted."""
    run = start(tmp_path, *WORDS)
    assert within(60, lambda: images(tmp_path) >= 320)
    run.send(signal.SIGTERM)
    run.finish(128 + signal.SIGTERM)
    said = start(tmp_path, *WORDS, file_bytes=500_000).finish(1)
    refused(tmp_path, said)
    assert status.read(run_folder(tmp_path)).state == "failed"
    start(tmp_path, *WORDS).finish()
    same_outcome(whole, tmp_path)
