"""Runs the jobs of a sweep, as many at once as the machine holds. One that fails does not stop the others."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType

from smallbatch.cli.resume import describe
from smallbatch.cli.sweeps.board import Board
from smallbatch.cli.sweeps.jobs import Job, Running, environment
from smallbatch.cli.sweeps.places import Machine
from smallbatch.errors import UserError

LOOK_SECONDS = 0.2


class Launch:
    """Jobs start in their order. `states` says of each: waiting, running, or what became of it."""

    def __init__(self, jobs: Sequence[Job], machine: Machine):
        for job in jobs:
            machine.check(job.gpus, job.cores)
        self.machine = machine
        self.states = {job: "finished before" if job.finished() else "waiting" for job in jobs}
        self.running: dict[Job, Running] = {}
        self.asked: int | None = None  # the signal that asked to stop

    def run(self) -> None:
        """Returns when every job has ended. UserError if some failed."""
        with self.stoppable(), Board(self.states, self.running) as board:
            while self.look(board):
                board.show()
                time.sleep(LOOK_SECONDS)
            board.show()
        if self.asked is not None:
            print("stopped; the same command goes on", file=sys.stderr)
            sys.exit(128 + self.asked)
        failed = [job for job, state in self.states.items() if state == "failed"]
        if failed:
            logs = " ".join(str(job.log) for job in failed[:3])
            raise UserError(
                f"{len(failed)} of {len(self.states)} jobs failed (see {logs}); the same command tries again"
            )

    def look(self, board: Board) -> bool:
        """Ends what has ended, starts what there is room for; whether there is more to come."""
        for job, running in list(self.running.items()):
            code = running.process.poll()
            if code is not None:
                self.end(job, code, board)
        if self.asked is None:
            for job in [job for job, state in self.states.items() if state == "waiting"]:
                if not self.start(job):
                    break  # in turn: a job that needs much room would otherwise wait for ever
        return bool(self.running) or (self.asked is None and "waiting" in self.states.values())

    def start(self, job: Job) -> bool:
        """Whether there was room."""
        place = self.machine.take(job.gpus, job.cores)
        if place is None:
            return False
        held = ExitStack()
        try:
            held.enter_context(job.alone())
            if job.finished():  # by another launch, meanwhile
                self.states[job] = "finished before"
        except BlockingIOError:
            self.states[job] = "in another launch"
        if self.states[job] != "waiting":
            held.close()
            self.machine.give_back(place)
            return True
        describe(job.folder, job.config, job.words)
        log = held.enter_context(job.log.open("a"))
        print(time.strftime("--- %Y-%m-%d %H:%M:%S"), file=log, flush=True)
        threads = max(1, place.cores // job.config.devices)
        process = subprocess.Popen(
            job.command,
            env=environment(place.gpus, threads),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C comes to us alone, and we pass it on
        )
        self.running[job], self.states[job] = Running(process, place, held), "running"
        return True

    def end(self, job: Job, code: int, board: Board) -> None:
        running = self.running.pop(job)
        if code == 0:
            self.states[job] = "finished"
        elif self.asked is not None or code > 128:  # a run that a signal asked to stop, and that has saved
            self.states[job] = "interrupted"
        else:
            self.states[job] = "failed"
            tail = job.tail()
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            job.failed(f"{how}: {tail[-1]}" if tail else how)
            board.failed(job, tail)
        running.held.close()
        self.machine.give_back(running.place)

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """The first signal lets every job save and stop, the second kills them all."""

        def ask(number: int, frame: FrameType | None) -> None:
            passed_on = number if self.asked is None else signal.SIGKILL
            self.asked = number
            for running in self.running.values():
                with suppress(ProcessLookupError):  # it has just ended
                    os.killpg(running.process.pid, passed_on)

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
