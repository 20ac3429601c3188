"""Weights & Biases cannot be reached, or its process dies: training goes on, and the local record is whole."""

import os
import signal
from pathlib import Path

import pytest

from tests.cli import TINY
from tests.outcome import images, same_outcome
from tests.processes import start, within

pytest.importorskip("wandb", reason="an extra")
WORDS = ["train", *TINY, "samples.every_images=null", "budget.images=960", "log.every_images=32", "root=."]
SHORT = ["logger.wandb.init_timeout=10", "logger.wandb.finish_timeout=10"]
NOWHERE = {"WANDB_MODE": "online", "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    root = tmp_path_factory.mktemp("without")
    start(root, *WORDS).finish()
    return root


@pytest.mark.faults
def test_a_server_that_cannot_be_reached_costs_one_line(without, tmp_path):
    said = start(tmp_path, *WORDS, "logger=wandb", *SHORT, environment=NOWHERE).finish()
    same_outcome(without, tmp_path)
    assert said.count("logger=wandb") == 1 and "Traceback" not in said


@pytest.mark.faults
def test_a_service_that_dies_costs_one_line(without, tmp_path):
    run = start(tmp_path, *WORDS, "logger=wandb", *SHORT, environment={"WANDB_MODE": "offline"})
    assert within(120, lambda: images(tmp_path) >= 320), run.said
    assert images(tmp_path) < 900
    (service,) = [pid for pid in children(run.pid) if b"wandb-core" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(service, signal.SIGKILL)
    said = run.finish()
    same_outcome(without, tmp_path)
    assert said.count("logger=wandb") == 1 and "Traceback" not in said


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
