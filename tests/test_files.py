"""Files that are whole or not there, and the record that survives a crash."""

import json

import pytest

from smallbatch.callbacks.checkpoint import AtomicCheckpointIO, last_good
from smallbatch.callbacks.record import Figure, MetricsFile, read, rewind
from smallbatch.files import replacing


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


def test_the_checkpoint_before_the_last_is_kept_and_used_when_the_last_is_cut_short(tmp_path):
    io, warnings = AtomicCheckpointIO(), []
    for step in (1, 2, 3):
        io.save_checkpoint({"step": step, "filler": "x" * 1000}, tmp_path / "last.ckpt")
    assert io.load_checkpoint(last_good(tmp_path, warnings.append))["step"] == 3
    whole = (tmp_path / "last.ckpt").read_bytes()
    for size in (0, 100, len(whole) - 1):
        (tmp_path / "last.ckpt").write_bytes(whole[:size])
        assert io.load_checkpoint(last_good(tmp_path, warnings.append))["step"] == 2
    assert len(warnings) == 3 and "falling back" in warnings[0]
    assert last_good(tmp_path / "empty", warnings.append) is None


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
