"""Runs the jobs of a sweep, as many at once as the machine holds. One that fails does not stop the others."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType

from smallbatch.cli.sweeps.board import Board
from smallbatch.cli.sweeps.jobs import Job, Running, environment
from smallbatch.cli.sweeps.places import Machine
from smallbatch.errors import UserError
from smallbatch.files import BEGUN

LOOK_SECONDS = 0.2
WAITING, ELSEWHERE = "waiting", "in another process"


class Launch:
    """Jobs start in their order. `states` says of each: waiting, running, or what became of it.

    One that another process trains is waited for, and begun here should that process end without finishing it.
    """

    def __init__(self, jobs: Sequence[Job], machine: Machine):
        for job in jobs:
            machine.check(job.gpus, job.cores)
        self.machine = machine
        self.states = {job: "finished before" if job.finished() else WAITING for job in jobs}
        self.running: dict[Job, Running] = {}
        self.asked: list[int] = []  # the signals that asked to stop

    def run(self) -> None:
        """Returns when every job is finished. UserError if some ended otherwise."""
        with self.stoppable(), Board(self.states, self.running) as board:
            while self.look(board):
                board.show()
                time.sleep(LOOK_SECONDS)
            board.show()
        if self.asked:
            print("stopped; the same command goes on", file=sys.stderr)
            sys.exit(128 + self.asked[-1])
        lost = [job for job, state in self.states.items() if not state.startswith("finished")]
        if lost:
            logs = " ".join(str(job.log) for job in lost[:3])
            raise UserError(f"{len(lost)} of {len(self.states)} jobs failed (see {logs}); the same command tries again")

    def look(self, board: Board) -> bool:
        """Ends what has ended, starts what there is room for; whether there is more to come."""
        self.pass_on()
        for job, running in list(self.running.items()):
            code = running.process.poll()
            if code is not None:
                self.end(job, code, board)
        to_come = [job for job, state in self.states.items() if state in (WAITING, ELSEWHERE)]
        for job in to_come:
            if self.asked or not self.start(job):
                break  # in turn: a job that needs much room would otherwise wait for ever
        return bool(self.running) or (bool(to_come) and not self.asked)

    def start(self, job: Job) -> bool:
        """Whether there was room."""
        place = self.machine.take(job.gpus, job.cores)
        if place is None:
            return False
        held = ExitStack()
        try:
            held.enter_context(job.alone())
            self.states[job] = "finished before" if job.finished() else "running"
        except BlockingIOError:
            self.states[job] = ELSEWHERE
        if self.states[job] != "running":
            held.close()
            self.machine.give_back(place)
            return True
        job.begin()
        log = held.enter_context(job.log.open("a"))
        print(time.strftime(f"{BEGUN}%Y-%m-%d %H:%M:%S"), file=log, flush=True)
        threads = max(1, place.cores // job.config.devices)
        process = subprocess.Popen(
            job.command,
            env=environment(place.gpus, threads),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C comes to us alone, and we pass it on
        )
        self.running[job] = Running(process, place, held)
        return True

    def end(self, job: Job, code: int, board: Board) -> None:
        running = self.running.pop(job)
        if code == 0:
            self.states[job] = "finished"
        elif self.asked or code > 128:  # a run that a signal asked to stop, and that has saved
            self.states[job] = "interrupted"
        else:
            self.states[job] = "failed"
            tail = job.tail()
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            job.failed(f"{how}: {tail[-1]}" if tail else how)
            board.failed(job, tail)
        running.held.close()
        self.machine.give_back(running.place)

    def pass_on(self) -> None:
        """The first signal lets every job save and stop, the second kills them all."""
        for running in self.running.values():
            for number in self.asked[running.told :]:
                with suppress(ProcessLookupError):  # it has just ended
                    os.killpg(running.process.pid, signal.SIGKILL if running.told else number)
                running.told += 1

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Signals are noted here, and passed on by the loop: to every job, whenever it was started."""

        def ask(number: int, frame: FrameType | None) -> None:
            self.asked.append(number)

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
