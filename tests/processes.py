"""`smallbatch ...` as processes of their own, forked from one server that has torch and Lightning loaded.

A fresh interpreter spends seconds on imports; a fork of the server starts at once, and is as real: it has signals,
locks and a session of its own, and dies by `kill -9`. The server itself has run nothing: no threads, no random draws.
"""

import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SMALLBATCH = Path(sys.executable).with_name("smallbatch")
FORKS = multiprocessing.get_context("forkserver")
LOADED = ["smallbatch.cli.main", "smallbatch.cli.train", "smallbatch.cli.report", "smallbatch.networks.unet"]
LOADED += ["sklearn.datasets", "matplotlib.backends.backend_agg"]
FORKS.set_forkserver_preload(LOADED)


class Running:
    """A command that runs in a session of its own."""

    def __init__(self, process: multiprocessing.process.BaseProcess, output: Path):
        self.process, self.output = process, output

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def code(self) -> int | None:
        """The exit status, -9 after SIGKILL; None while it runs."""
        return self.process.exitcode

    @property
    def said(self) -> str:
        """What it has written to stdout and stderr until now."""
        return self.output.read_text()

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def finish(self, code: int = 0, seconds: float = 240) -> str:
        """Waits for its end, which must be by this exit status; returns what it said."""
        self.process.join(seconds)
        assert self.code == code, f"{self.code}, not {code}: {self.said}"
        return self.said

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.finish(-signal.SIGKILL)

    def gone(self, seconds: float = 20) -> bool:
        """Whether every process of its session ends within so many seconds."""
        return within(seconds, lambda: not session(self.pid))


def start(folder: Path, *words: object, environment: dict[str, str] | None = None, file_bytes: int = -1) -> Running:
    """`smallbatch WORDS` in `folder`; no file that it writes may grow beyond `file_bytes`."""
    handle, output = tempfile.mkstemp(prefix="smallbatch.")  # not in `folder`: its disk may be full
    os.close(handle)
    settings = os.environ | (environment or {})
    process = FORKS.Process(target=_command, args=(folder, list(map(str, words)), output, settings, file_bytes))
    process.start()
    STARTED.append(Running(process, Path(output)))
    return STARTED[-1]


STARTED: list[Running] = []


def end_all() -> None:
    """Kills what a failed test leaves running, for which this process would wait at its end."""
    for run in STARTED:
        for pid in session(run.pid):
            os.kill(pid, signal.SIGKILL)
        run.process.join()
        run.output.unlink()
    STARTED.clear()


def session(leader: int) -> list[int]:
    """The processes of a session that still run."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its = file.read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):  # it ended between the two looks
            continue
        if int(its) == leader and state != "Z":
            found.append(int(file.parent.name))
    return found


def within(seconds: float, true: Callable[[], object], every: float = 0.02) -> bool:
    """Whether it comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(every)
    return False


def _command(folder: Path, words: list[str], output: str, settings: dict[str, str], file_bytes: int) -> None:
    from smallbatch.cli.main import main

    os.setsid()
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(settings)
    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))  # -1: none
    sys.argv = [str(SMALLBATCH), *words]
    main()
