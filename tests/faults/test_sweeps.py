"""Sweeps that are started twice, and sweeps whose launcher dies."""

import pytest

from smallbatch import status
from tests.cli import UNDRAWN
from tests.processes import start, within

SWEEP = ["train", "-m", *UNDRAWN, "samples.every_images=null", "root=.", "seed=0,1"]


def folders(root):
    return sorted(root.glob("digits/*"))


def recorded(folder):
    record = folder / "metrics.jsonl"
    return record.exists() and record.stat().st_size > 0


@pytest.mark.faults
def test_a_sweep_started_twice_at_once_trains_every_job_once(tmp_path):
    launches = [start(tmp_path, *SWEEP) for _ in range(2)]
    said = [launch.finish() for launch in launches]
    assert len(folders(tmp_path)) == 2
    for folder in folders(tmp_path):
        assert status.read(folder).state == "finished"
        assert (folder / "events.log").read_text().count("started") == 1
        told = [[line.split(str(folder))[0] for line in text.splitlines() if str(folder) in line] for text in said]
        (mine,) = (one for one in told if any("running" in line for line in one))
        (other,) = (one for one in told if one is not mine)
        assert any("in another process" in line or "finished before" in line for line in other)


@pytest.mark.faults
def test_when_a_launcher_dies_its_jobs_save_and_stop(tmp_path):
    launch = start(tmp_path, *SWEEP, "budget.images=200000")
    assert within(120, lambda: [*map(recorded, folders(tmp_path))] == [True, True])
    launch.kill()
    assert within(60, lambda: {status.read(folder).state for folder in folders(tmp_path)} == {"interrupted"})
