"""Runs as processes: stopped, refused, beside processes that read for them."""

import io
import multiprocessing
import os
import signal
import time
import zipfile

import numpy as np
from PIL import Image

from smallbatch.cli import runs
from smallbatch.report.outcome import held
from tests.cli import UNDRAWN
from tests.outcome import checkpoint, images, run_folder, same_outcome
from tests.processes import start, within

TRAIN = ["train", *UNDRAWN, "root=."]
LONG = [*TRAIN, "budget.images=200000", "samples.every_images=null"]


def reach(run, root, seen):
    """Waits until so many images are recorded."""
    assert within(120, lambda: images(root) >= seen or run.code is not None)
    assert run.code is None, run.said


def test_a_signal_ends_the_step_saves_and_exits_and_a_truncated_checkpoint_falls_back(tmp_path):
    run = start(tmp_path, *LONG)
    reach(run, tmp_path, 320)
    run.send(signal.SIGTERM)
    assert "the same command resumes" in run.finish(128 + signal.SIGTERM)
    stopped = checkpoint(tmp_path)["global_step"] * 32
    assert stopped >= 320
    last = run_folder(tmp_path) / "checkpoints" / "last.ckpt"
    os.truncate(last, last.stat().st_size // 2)
    again = start(tmp_path, *LONG)
    reach(again, tmp_path, (stopped // 160 + 2) * 160)
    again.send(signal.SIGUSR1)
    assert "resuming" in again.finish(128 + signal.SIGUSR1)
    events = (run_folder(tmp_path) / "events.log").read_text()
    assert "falling back to the one before" in events and "resumed at" in events


def test_a_second_signal_acts_at_once(tmp_path):
    run = start(tmp_path, *TRAIN, "samples.every_images=32", "sampler.steps=100000", "log.every_images=32")
    reach(run, tmp_path, 32)
    time.sleep(0.5)  # it draws samples now, for minutes
    run.send(signal.SIGTERM)
    time.sleep(1)
    assert run.code is None
    for _ in range(30):  # two signals are one for a process that gets no time between them
        run.send(signal.SIGTERM)
        if within(1, lambda: run.code is not None):
            break
    assert run.code not in (None, 0, 128 + signal.SIGTERM), run.said


def test_a_folder_in_use_is_refused(tmp_path):
    first = start(tmp_path, *LONG)
    reach(first, tmp_path, 160)
    assert "is being trained by another process" in start(tmp_path, *LONG).finish(1)
    first.kill()


def test_processes_that_read_data_change_nothing_and_leave_a_stop_to_the_run(tmp_path):
    words = [*TRAIN, "data=shapes", "data.size=16", "network.attention_at=[8]", "budget.images=640"]
    alone, several = tmp_path / "alone", tmp_path / "several"
    alone.mkdir(), several.mkdir()
    start(alone, *words, "data.workers=0").finish()
    stopped = start(several, *words, "data.workers=2")
    reach(stopped, several, 160)
    os.killpg(stopped.pid, signal.SIGINT)  # as Ctrl-C does: to the run and all its processes
    stopped.finish(128 + signal.SIGINT)
    start(several, *words, "data.workers=2").finish()
    same_outcome(alone, several)


def test_a_killed_prepare_leaves_no_process_behind_and_may_be_started_again(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3000, 16, 16, 3), dtype=np.uint8)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for number, image in enumerate(pixels):
            file = io.BytesIO()
            Image.fromarray(image).save(file, "png")
            archive.writestr(f"{number:05}.png", file.getvalue())
    words = ["prepare", "data=images", "data.path=photos.zip", "data.size=16", "out=packed.zip"]
    killed = start(tmp_path, *words)
    partial = tmp_path / ".partial.packed.zip" / "packed.zip"
    assert within(60, lambda: partial.exists() and partial.stat().st_size > 100_000, every=0.002)
    killed.kill()
    assert killed.gone() and not (tmp_path / "packed.zip").exists()
    start(tmp_path, *words).finish()
    assert zipfile.ZipFile(tmp_path / "packed.zip").testzip() is None
    assert not partial.parent.exists()


def test_a_process_that_reads_data_does_not_hold_the_folder_of_one_that_died(tmp_path):
    runs.lock(tmp_path)
    reader = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    reader.start()
    assert held(tmp_path)
    runs._held.pop(tmp_path).close()  # as the death of this process would
    assert within(10, lambda: not held(tmp_path)) and reader.is_alive()
    reader.kill()
    reader.join()
