"""Runs as processes: killed, stopped, split over ranks."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli import TINY

SMALLBATCH = Path(sys.executable).with_name("smallbatch")


def start(root, *words):
    command = [SMALLBATCH, "train", *TINY, f"root={root}", *words]
    piped = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return subprocess.Popen(command, **piped, env=os.environ, start_new_session=True)


def gone(group):
    """Whether every process of a group ends within seconds."""
    for _ in range(400):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def finish(process, code=0):
    said, _ = process.communicate(timeout=240)
    assert process.returncode == code, said
    return said


def folder(root):
    (found,) = Path(root).glob("digits/*")
    return found


def figures(root):
    """The record without what depends on the clock."""
    rows = map(json.loads, (folder(root) / "metrics.jsonl").read_text().splitlines())
    kept = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    return [row for row in kept if not row["name"].startswith("speed/")]


def checkpoint(root):
    return torch.load(folder(root) / "checkpoints" / "last.ckpt", weights_only=True)


def wait_for(root, images):
    for _ in range(2400):
        files = list(Path(root).glob("digits/*/metrics.jsonl"))
        if files and f'"images": {images},' in files[0].read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"no record at {images} images")


def same(a, b, at=""):
    """Bit for bit, through everything that a checkpoint holds but the clock."""
    assert type(a) is type(b), at
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), at
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), at
        for key in a.keys() - {"seconds"}:
            same(a[key], b[key], f"{at}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), at
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{at}/{i}")
    else:
        assert a == b, at


def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path):
    words = ["network.dropout=0.1", "accumulation=2", "timesteps=slots", "budget.images=1600"]
    words += ["prediction=mixed_gate", "weighting=uncertainty_binned", "lr_schedule=mdlrc"]
    whole = start(tmp_path / "whole", *words)
    finish(whole)
    killed = start(tmp_path / "killed", *words)
    wait_for(tmp_path / "killed", 800)
    killed.kill()
    killed.wait()
    assert "resuming" in finish(start(tmp_path / "killed", *words))
    same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "killed"))
    assert figures(tmp_path / "whole") == figures(tmp_path / "killed")


def test_two_processes_do_what_one_does(tmp_path):
    """To float32 rounding: figures to 1e-5 of their value, weights to 1e-4."""
    words = ["timesteps=root_loss", "timesteps/draw=low_discrepancy", "prediction=mixed_gate", "accumulation=2"]
    finish(start(tmp_path / "one", *words))
    finish(start(tmp_path / "two", *words, "trainer=ddp", "devices=2"))
    for one, two in zip(figures(tmp_path / "one"), figures(tmp_path / "two"), strict=True):
        assert one.pop("value") == pytest.approx(two.pop("value"), rel=1e-5)
        assert one == two
    one, two = (checkpoint(tmp_path / root)["state_dict"] for root in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_saves_and_exits_and_a_truncated_checkpoint_falls_back(number, tmp_path):
    long = start(tmp_path, "budget.images=200000", "samples.every_images=null")
    wait_for(tmp_path, 800)
    long.send_signal(number)
    assert "the same command resumes" in finish(long, code=128 + number)
    stopped = checkpoint(tmp_path)["global_step"] * 32
    assert stopped >= 800
    last = folder(tmp_path) / "checkpoints" / "last.ckpt"
    os.truncate(last, last.stat().st_size // 2)
    again = start(tmp_path, "budget.images=200000", "samples.every_images=null")
    wait_for(tmp_path, (stopped // 160 + 2) * 160)
    again.send_signal(signal.SIGUSR1)
    assert "resuming" in finish(again, code=128 + signal.SIGUSR1)
    events = (folder(tmp_path) / "events.log").read_text()
    assert "falling back to the one before" in events and "resumed at" in events


def test_a_folder_in_use_is_refused(tmp_path):
    first = start(tmp_path, "budget.images=200000", "samples.every_images=null")
    wait_for(tmp_path, 160)
    assert "is being trained by another process" in finish(
        start(tmp_path, "budget.images=200000", "samples.every_images=null"), code=1
    )
    first.terminate()
    finish(first, code=128 + signal.SIGTERM)


def test_processes_that_read_data_change_nothing_and_leave_a_stop_to_the_run(tmp_path):
    words = ["data=shapes", "data.size=16", "network.attention_at=[8]", "budget.images=1280"]
    finish(start(tmp_path / "alone", *words, "data.workers=0"))
    stopped = start(tmp_path / "several", *words, "data.workers=2")
    wait_for(tmp_path / "several", 160)
    os.killpg(stopped.pid, signal.SIGINT)  # as Ctrl-C does: to the run and all its processes
    said, _ = stopped.communicate(timeout=240)
    assert stopped.returncode == 128 + signal.SIGINT, said
    finish(start(tmp_path / "several", *words, "data.workers=2"))
    same(checkpoint(tmp_path / "alone"), checkpoint(tmp_path / "several"))
    assert figures(tmp_path / "alone") == figures(tmp_path / "several")


def test_a_killed_prepare_leaves_no_process_behind_and_may_be_started_again(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3000, 16, 16, 3), dtype=np.uint8)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for number, image in enumerate(pixels):
            file = io.BytesIO()
            Image.fromarray(image).save(file, "png")
            archive.writestr(f"{number:05}.png", file.getvalue())
    words = ["data=images", f"data.path={tmp_path / 'photos.zip'}", "data.size=16", f"out={tmp_path / 'packed.zip'}"]
    command = [SMALLBATCH, "prepare", *words]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    for _ in range(1200):
        if any(part.stat().st_size > 100_000 for part in tmp_path.glob(".partial.packed.zip")):
            break
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    assert gone(killed.pid) and not (tmp_path / "packed.zip").exists()
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert zipfile.ZipFile(tmp_path / "packed.zip").testzip() is None
