"""Jobs as processes: packed, failing, stopped, taken by another launch."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from smallbatch import status
from smallbatch.cli.sweeps import jobs
from smallbatch.cli.sweeps.jobs import Job
from smallbatch.cli.sweeps.launching import Launch
from smallbatch.cli.sweeps.places import Machine
from smallbatch.errors import UserError
from smallbatch.status import Status
from tests.cli import UNDRAWN

FINISH = "import pathlib; pathlib.Path('status.json').write_text('{\"state\": \"finished\"}')"


class Script(Job):
    """A job that runs a line of Python in its folder in place of `smallbatch train`."""

    @property
    def command(self):
        return [sys.executable, "-c", f"import os; os.chdir({str(self.folder)!r})\n{self.words[0]}"]


def script(folder, line, gpus=0, cores=1):
    return Script([line], folder.name, OmegaConf.create({"devices": 1, "nodes": 1}), folder, gpus, cores)


def launch(found, cores=2, gpus=()):
    launched = Launch(found, Machine(list(gpus), cores))
    launched.run()
    return [launched.states[job] for job in found]


def test_as_many_jobs_run_at_once_as_there_is_room_for(tmp_path):
    line = (
        "import time, pathlib; a = time.time(); time.sleep(0.5); pathlib.Path('span').write_text(f'{a} {time.time()}')"
    )
    found = [script(tmp_path / str(i), line) for i in range(5)]
    assert launch(found) == ["finished"] * 5
    spans = [tuple(map(float, (job.folder / "span").read_text().split())) for job in found]
    at_once = [sum(start <= moment < end for start, end in spans) for moment, _ in spans]
    assert max(at_once) == 2
    assert [start for start, _ in spans[::2]] == sorted(start for start, _ in spans[::2])


def test_a_job_gets_its_own_gpus_and_nothing_that_makes_it_a_rank(tmp_path, monkeypatch):
    for name in ("LOCAL_RANK", "MASTER_PORT", "PL_GLOBAL_SEED", "SLURM_NTASKS", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "1")
    line = "import json, pathlib; pathlib.Path('env').write_text(json.dumps(dict(os.environ)))"
    found = [script(tmp_path / str(i), line, gpus=1) for i in range(2)]
    launch(found, gpus=["3", "7"])
    told = [OmegaConf.load(job.folder / "env") for job in found]
    assert sorted(env.CUDA_VISIBLE_DEVICES for env in told) == ["3", "7"]
    assert not {"LOCAL_RANK", "MASTER_PORT", "PL_GLOBAL_SEED", "SLURM_NTASKS", "TORCHELASTIC_RUN_ID"} & set(told[0])
    assert os.environ["PATH"] == told[0].PATH


def test_a_failed_job_is_recorded_with_the_end_of_its_log_and_the_others_go_on(tmp_path, capsys):
    bad, good = script(tmp_path / "bad", "raise SystemExit('no such luck')"), script(tmp_path / "good", FINISH)
    with pytest.raises(UserError, match=rf"1 of 2 jobs failed \(see {bad.log}\)"):
        launch([bad, good], cores=1)
    assert "no such luck" in capsys.readouterr().err
    assert status.read(bad.folder) == Status("failed", error="exit code 1: no such luck")
    assert status.read(good.folder).state == "finished"


def test_a_second_launch_skips_what_is_finished_and_tries_the_rest_again(tmp_path):
    again = (
        "import pathlib; seen = pathlib.Path('seen').exists(); pathlib.Path('seen').touch(); "
        + FINISH
        + "; assert seen"
    )
    found = [script(tmp_path / "once", FINISH), script(tmp_path / "twice", again)]
    with pytest.raises(UserError):
        launch(found)
    assert launch(found) == ["finished before", "finished"]


@contextmanager
def trained(job):
    """As a run that somebody started by hand holds its folder."""
    job.folder.mkdir(parents=True, exist_ok=True)
    with open(job.folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("holds", [Job.alone, trained])
def test_a_job_in_another_process_is_left_to_it_and_begun_should_that_one_not_finish_it(holds, tmp_path):
    theirs, ours = script(tmp_path / "theirs", FINISH), script(tmp_path / "ours", FINISH)
    launched, seen = Launch([theirs, ours], Machine([], 1)), []
    process = holds(theirs)
    process.__enter__()

    def dies():
        while launched.states[ours] != "finished":
            time.sleep(0.05)
        seen.append((launched.states[theirs], theirs.log.exists()))
        process.__exit__(None, None, None)

    watcher = threading.Thread(target=dies)
    watcher.start()
    launched.run()
    watcher.join()
    assert seen == [("in another process", False)]
    assert set(launched.states.values()) == {"finished"}


def test_a_failure_is_not_written_over_a_run_that_somebody_else_trains(tmp_path):
    job = script(tmp_path / "theirs", FINISH)
    with trained(job):
        status.write(job.folder, Status("training", images=8))
        job.failed("refused")
    assert status.read(job.folder) == Status("training", images=8)


def test_a_job_that_somebody_stopped_leaves_the_sweep_unfinished(tmp_path):
    with pytest.raises(UserError, match="1 of 1 jobs failed"):
        launch([script(tmp_path / "stopped", "raise SystemExit(128 + 15)")])
    assert status.read(tmp_path / "stopped").state == "training"  # the run itself says that it was interrupted


def test_a_job_killed_from_outside_has_failed(tmp_path):
    killed = script(tmp_path / "killed", "import signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(UserError):
        launch([killed])
    assert status.read(killed.folder).error.startswith("signal 9")


WAIT = "import time, pathlib; pathlib.Path('up').touch(); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGINT, lambda *_: None); " + WAIT.replace("60", "1)\ntime.sleep(60")


def signals(found, *numbers):
    """Sends each signal to this process, once the jobs are up, 0.5 s apart."""

    def send():
        while not all((job.folder / "up").exists() for job in found):
            time.sleep(0.05)
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(0.5)

    threading.Thread(target=send, daemon=True).start()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_every_job_and_starts_no_more(number, tmp_path):
    found = [script(tmp_path / str(i), WAIT) for i in range(3)]
    launched, before = Launch(found, Machine([], 2)), signal.getsignal(signal.SIGINT)
    signals(found[:2], number)
    with pytest.raises(SystemExit) as stopped:
        launched.run()
    assert stopped.value.code == 128 + number
    assert [launched.states[job] for job in found] == ["interrupted", "interrupted", "waiting"]
    assert signal.getsignal(signal.SIGINT) is before


class Interrupting(Script):
    @property
    def command(self):
        os.kill(os.getpid(), signal.SIGTERM)
        return super().command


def test_a_signal_while_jobs_are_started_reaches_the_one_being_started_and_starts_no_more(tmp_path):
    found = [
        script(tmp_path / "0", WAIT),
        Interrupting(**vars(script(tmp_path / "1", WAIT))),
        script(tmp_path / "2", WAIT),
    ]
    launched = Launch(found, Machine([], 3))
    with pytest.raises(SystemExit):
        launched.run()
    assert [launched.states[job] for job in found] == ["interrupted", "interrupted", "waiting"]


def test_the_second_signal_kills_jobs_that_do_not_listen(tmp_path):
    found, since = [script(tmp_path / "stubborn", STUBBORN)], time.monotonic()
    signals(found, signal.SIGINT, signal.SIGINT)
    with pytest.raises(SystemExit):
        launch(found)
    assert time.monotonic() - since < 20


def test_a_job_ends_when_its_launcher_is_gone(tmp_path):
    child = "from smallbatch.cli import lifeline; lifeline.follow(); " + WAIT
    launcher = [
        "import os, subprocess, sys, time",
        "from smallbatch.cli.lifeline import lead",
        f"os.chdir({str(tmp_path)!r})",
        "lead()",
        f"job = subprocess.Popen([sys.executable, '-c', {child!r}])",
        "print(job.pid, flush=True)",
        "time.sleep(60)",
    ]
    process = subprocess.Popen([sys.executable, "-c", "\n".join(launcher)], stdout=subprocess.PIPE, text=True)
    job = int(process.stdout.readline())
    while not (tmp_path / "up").exists():
        time.sleep(0.05)
    process.kill()
    process.wait()
    for _ in range(200):
        if not Path(f"/proc/{job}").exists():
            return
        time.sleep(0.05)
    raise AssertionError("the job goes on without its launcher")


def test_a_sweep_of_real_runs(smallbatch, refused, tmp_path):
    """One of two is made to fail: its learning rate is a word."""
    words = ["train", "-m", *UNDRAWN, "optimizer.lr=1e-3,fast"]
    assert "1 of 2 jobs failed" in refused(*words)
    known = {status.read(folder).state: folder for folder in Path("runs/digits").iterdir()}
    assert "optimizer.lr=fast must be a number" in status.read(known["failed"]).error
    assert "optimizer.lr=fast" in (known["failed"] / "config.yaml").read_text().split("\n")[0]
    assert status.read(known["finished"]).images == 320 and (known["finished"] / "model.safetensors").exists()
    assert str(known["finished"]) in (known["finished"] / "job.log").read_text()


def test_words_that_change_no_result_name_one_job(smallbatch, monkeypatch):
    seen = []
    monkeypatch.setattr(Launch, "run", lambda self: seen.extend(self.states))
    smallbatch("train", "-m", *UNDRAWN, "log.every_images=160,320", "seed=0,1")
    assert [job.name for job in seen] == ["log.every_images=160 seed=0", "log.every_images=160 seed=1"]
    assert isinstance(seen[0], jobs.Job) and seen[0].cores == 1


def test_a_plan_of_a_sweep_is_refused(refused):
    assert "hydra/launcher=basic" in refused("train", "-m", *UNDRAWN, "seed=0,1", "dry_run=true")
