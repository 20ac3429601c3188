"""A sweep on a real cluster: stopped near its time, pre-empted, cancelled, split over nodes."""

import json
import re
import signal
from pathlib import Path

import pytest
import torch

from tests.cli import TINY
from tests.outcome import run_folder, same_outcome
from tests.processes import SMALLBATCH, start, within
from tests.slurm.conftest import slurm

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("cluster")]

LONG = [*TINY, "budget.images=3200", "samples.every_images=null", "root=."]
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "clusters.md"
SLURM = ["hydra/launcher=slurm", "hydra.launcher.gpus_per_job=0", "hydra.launcher.sbatch.time=10"]


def sweep(folder, *words):
    folder.mkdir(exist_ok=True)
    return start(folder, "train", "-m", *SLURM, *LONG, *words)


def jobs(root):
    """Run folders by SLURM's number, of an array in its order."""
    found = {file.read_text(): file.parent for file in root.glob("digits/*/slurm_job")}
    return dict(sorted(found.items()))


def trained(folder):
    """Images, by the last figure of the record."""
    record = folder / "metrics.jsonl"
    lines = record.read_text().splitlines() if record.exists() else []
    return json.loads(lines[-1])["images"] if lines else 0


def events(folder):
    return (folder / "events.log").read_text()


def state(number):
    return slurm("squeue", "--noheader", "--jobs", number, "--format=%T").strip()


def test_stopped_jobs_go_back_into_the_queue_and_end_as_if_nothing_had_happened(tmp_path):
    """The first pre-empted, the second told that its time is near; the command that submitted them stopped as well."""
    swept = tmp_path / "swept"
    first = sweep(swept, "seed=0,1")
    assert within(200, lambda: first.code or [trained(job) >= 480 for job in jobs(swept).values()] == [True, True])
    first.send(signal.SIGINT)
    assert "the jobs go on" in first.finish(128 + signal.SIGINT)
    preempted, timed_out = jobs(swept)
    slurm("scancel", "--signal=USR1", timed_out)
    node = slurm("squeue", "--noheader", "--jobs", preempted, "--format=%N").strip()
    slurm("sbatch", "--partition=high", f"--nodelist={node}", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    assert within(60, lambda: state(preempted) == state(timed_out) == "PENDING", every=0.2)
    assert "SLURM has 2 jobs" in sweep(swept, "seed=0,1").finish(seconds=400)
    assert [preempted, timed_out] == list(jobs(swept))  # nothing was submitted a second time
    for seed, job in enumerate(jobs(swept).values()):
        assert events(job).count("interrupted at") == events(job).count("resumed at") == 1
        whole = tmp_path / f"whole{seed}"
        whole.mkdir()
        start(whole, "train", *LONG, f"seed={seed}").finish()
        (tmp_path / f"swept{seed}" / "digits").mkdir(parents=True)
        job.rename(tmp_path / f"swept{seed}" / "digits" / job.name)
        same_outcome(whole, tmp_path / f"swept{seed}")


def test_a_cancelled_job_stays_cancelled(tmp_path):
    waiting = sweep(tmp_path, "budget.images=200000")
    assert within(200, lambda: waiting.code or [trained(job) >= 160 for job in jobs(tmp_path).values()] == [True])
    slurm("scancel", *jobs(tmp_path))
    assert "1 of 1 jobs did not finish" in waiting.finish(1)
    (number,) = jobs(tmp_path)
    assert state(number) == ""


def test_two_nodes_do_what_one_process_does(tmp_path):
    """Weights to 1e-4."""
    words = ["budget.images=640", "accumulation=2"]
    sweep(tmp_path / "two", *words, "nodes=2", "trainer=ddp", "trainer.accelerator=cpu").finish()
    sweep(tmp_path / "one", *words).finish()
    (one,), (two,) = jobs(tmp_path / "one").values(), jobs(tmp_path / "two").values()
    assert one.name == two.name and json.loads((two / "status.json").read_text())["devices"] == 2
    one, two = (torch.load(job / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for job in (one, two))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-4)


def test_the_batch_script_of_the_documentation_goes_back_into_the_queue(tmp_path):
    (script,) = re.findall(r"```bash\n(#!/bin/bash.*?)```", DOCUMENTATION.read_text(), re.S)
    ours = {"--gpus-per-node=1 --cpus-per-task=8 --mem=32G": "", "--cpus-per-task=8": "--cpus-per-task=1"}
    ours |= {".venv/bin/smallbatch": str(SMALLBATCH), "experiment=cifar10_one_gpu": " ".join(LONG)}
    for shown, here in ours.items():
        assert shown in script
        script = script.replace(shown, here)
    (tmp_path / "script").write_text(script)
    number = slurm("sbatch", "--parsable", f"--chdir={tmp_path}", tmp_path / "script").strip()
    assert within(
        200, lambda: state(number) == "" or [trained(job) >= 160 for job in tmp_path.glob("digits/*")] == [True]
    )
    slurm("scancel", "--signal=USR1", number)
    assert within(60, lambda: state(number) == "PENDING", every=0.2)
    assert within(400, lambda: state(number) == "", every=1)
    assert re.findall(r"resumed at|finished at 3200", events(run_folder(tmp_path))) == [
        "resumed at",
        "finished at 3200",
    ]


def test_what_sbatch_refuses_is_one_line(tmp_path):
    said = sweep(tmp_path, "hydra.launcher.sbatch.partition=nowhere").finish(1)
    assert "sbatch takes no such job" in said and "invalid partition" in said
