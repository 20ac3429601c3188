"""Files that are whole or not there, and the record that survives a crash."""

import json
import resource
from contextlib import contextmanager

import pytest
import torch
from lightning.pytorch.utilities import rank_zero_only
from safetensors.torch import save_file

from smallbatch.callbacks.checkpoint import AtomicCheckpointIO, last_good
from smallbatch.callbacks.record import Figure, MetricsFile
from smallbatch.ema import Average, Power
from smallbatch.errors import UserError
from smallbatch.files import BEGUN, append, last_lines, replacing
from smallbatch.posthoc import load_snapshots, write_snapshot
from smallbatch.recorded import read, rewind


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as partial:
        partial.write_text("half of the n")
        raise RuntimeError("the disk is full")
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]
    with replacing(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new" and [*tmp_path.iterdir()] == [path]


def test_what_a_crash_left_goes_at_the_next_attempt(tmp_path):
    left = tmp_path / ".partial.a.txt"
    left.mkdir()
    (left / "a.txt").write_text("half"), (left / ".tmp123").write_text("a library's own")
    with replacing(tmp_path / "a.txt") as partial:
        partial.write_text("new")
    assert [*tmp_path.iterdir()] == [tmp_path / "a.txt"]


@contextmanager
def no_file_beyond(size):
    """The system then refuses to write, as it does where a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


BIG = {"weights": torch.zeros(100_000)}
WRITERS = {
    "last.ckpt": lambda path: AtomicCheckpointIO().save_checkpoint(BIG, path),
    "000000160.safetensors": lambda path: write_snapshot(path, {"a": average(Power(0.05), BIG)}, 160),
    "metrics.jsonl": lambda path: append(path, "x" * 400_000),
}


def average(profile, weights):
    made = Average(profile)
    made.weights = weights
    return made


@pytest.mark.parametrize("name", WRITERS)
def test_no_room_is_one_line_and_the_old_file_stays(name, tmp_path):
    path = tmp_path / name
    path.write_text("old")
    with no_file_beyond(50_000), pytest.raises(UserError, match=rf"no room for {path} .* or more, .* are free; raise"):
        WRITERS[name](path)
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]


def test_half_a_snapshot_is_none(tmp_path):
    write_snapshot(tmp_path / "000000160.safetensors", {"a": average(Power(0.05), BIG)}, 160)
    (tmp_path / ".partial.000000320.safetensors").mkdir()
    assert [snapshot.images for snapshot in load_snapshots(tmp_path)] == [160]


@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_checkpoint_that_is_cut_short_is_set_aside_for_the_one_before(size, tmp_path):
    io, warnings = AtomicCheckpointIO(), []
    assert last_good(tmp_path, warnings.append) is None
    for step in (1, 2, 3):
        io.save_checkpoint({"step": step, "filler": "x" * 1000}, tmp_path / "last.ckpt")
    path, saved = last_good(tmp_path, warnings.append)
    assert saved["step"] == 3 and not warnings
    path.write_bytes(path.read_bytes()[:size])
    assert last_good(tmp_path, warnings.append)[1]["step"] == 2 and "falling back" in warnings[0]
    io.save_checkpoint({"step": 4}, path)
    assert io.load_checkpoint(tmp_path / "previous.ckpt")["step"] == 2  # the good one is still there
    assert (tmp_path / "last.bad").exists()


def test_no_checkpoint_is_set_aside_where_none_can_be_read(tmp_path):
    for name in ("last.ckpt", "previous.ckpt"):
        (tmp_path / name).write_bytes(b"PK")
    for _ in range(2):
        with pytest.raises(UserError, match=r"no checkpoint in .*last.ckpt: \w+, previous.ckpt: \w+"):
            last_good(tmp_path, pytest.fail)
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", "previous.ckpt"}


def test_only_rank_0_sets_a_broken_checkpoint_aside(tmp_path, monkeypatch):
    AtomicCheckpointIO().save_checkpoint({"step": 1}, tmp_path / "previous.ckpt")
    (tmp_path / "last.ckpt").write_bytes(b"PK")
    for rank, name in ((1, "last.ckpt"), (0, "last.bad")):
        monkeypatch.setattr(rank_zero_only, "rank", rank)
        assert last_good(tmp_path, lambda text: None)[1] == {"step": 1}
        assert (tmp_path / name).exists()


def test_the_record_is_wound_back_to_the_checkpoint_and_forgets_a_broken_line(tmp_path):
    log = MetricsFile(tmp_path)
    for images in (10, 20, 30):
        log.write([Figure("loss", 1.5, 3), Figure("loss", 2.0, 3, logsnr=-1.0)], images, images // 10, 0.5)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"images": 40, "na')
    rewind(tmp_path, 20)
    rows = read(tmp_path)
    assert [row["images"] for row in rows] == [10, 10, 20, 20]
    assert rows[1] == {"images": 10, "step": 1, "seconds": 0.5, "name": "loss", "value": 2.0, "n": 3, "logsnr": -1.0}
    assert all(json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())


def test_the_end_of_a_log_is_that_of_its_last_attempt(tmp_path):
    log = tmp_path / "job.log"
    log.write_text(f"{BEGUN}2026-01-01\nold\n{BEGUN}2026-01-02\nnew\n")
    assert last_lines(log, 15) == [f"{BEGUN}2026-01-02", "new"]


def test_others_may_read_what_a_library_wrote_for_its_owner_alone(tmp_path):
    (tmp_path / "any").touch()
    with replacing(tmp_path / "some.safetensors") as partial:
        save_file({"x": torch.zeros(1)}, partial)
    assert (tmp_path / "some.safetensors").stat().st_mode == (tmp_path / "any").stat().st_mode
