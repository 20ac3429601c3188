"""Runs the jobs of a sweep on a SLURM cluster: submitit submits them as arrays, and they go on without us."""

import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from smallbatch import status
from smallbatch.cli.sweeps.board import Board
from smallbatch.cli.sweeps.jobs import Job
from smallbatch.cli.sweeps.slurm_task import become
from smallbatch.errors import UserError
from smallbatch.files import in_turn

ARRAY = 1000  # jobs of one array: SLURM's own bound is 1,001
TIME_IS_NEAR = signal.SIGUSR1  # training saves and exits with 128 + its number
RANK_DIED_SECONDS = 60  # one process of a job has ended: so long later SLURM ends the others


@dataclass(frozen=True)
class Cluster:
    """How to submit. `sbatch`: parameters under submitit's names."""

    folder: Path
    signal_delay_s: int
    max_num_timeout: int
    sbatch: dict[str, Any]

    def submit(self, jobs: Sequence[Job]) -> dict[Job, str]:
        """SLURM's numbers of the jobs, which are also left in their folders."""
        numbers = {}
        for alike in arrays(jobs):
            for job in alike:
                job.begin()
            commands, logs = [job.command for job in alike], [str(job.log) for job in alike]
            for job, submitted in zip(alike, self.array(alike[0], become, commands, logs), strict=True):
                numbers[job] = submitted.job_id
                number_file(job).write_text(submitted.job_id)
        return numbers

    def array(self, like: Job, *call: Any) -> list[submitit.Job]:
        """submitit's jobs; each gets what `like` needs."""
        ranks = like.config.devices
        cores = max(1, like.cores // ranks)
        executor = submitit.SlurmExecutor(self.folder)
        try:
            executor.update_parameters(
                job_name="smallbatch",
                nodes=like.config.nodes,
                ntasks_per_node=ranks,
                cpus_per_task=cores,
                gpus_per_node=like.gpus or None,
                srun_args=[f"--cpus-per-task={cores}", f"--wait={RANK_DIED_SECONDS}"],
                teardown=self.after(),
                **self.sbatch,
                additional_parameters={"requeue": True, "signal": f"{TIME_IS_NEAR.name[3:]}@{self.signal_delay_s}"},
            )
            return executor.map_array(*call)
        except (ValueError, submitit.core.utils.FailedJobError) as error:
            raise UserError(f"sbatch takes no such job: {' '.join(str(error).split())}") from None

    def after(self) -> list[str]:
        """The end of the batch script: back into the queue, where a signal has made the training save and stop.

        That is near the end of its time, or of the grace that pre-emption gives. `scancel` ends the script as well.
        In an array SLURM_JOB_ID will not do: for one of the jobs it names the whole array.
        """
        stopped = "|".join(str(128 + number) for number in (TIME_IS_NEAR, signal.SIGTERM))
        return [
            "code=$?",
            "job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}",
            f"if [[ $code =~ ^({stopped})$ && ${{SLURM_RESTART_COUNT:-0}} -lt {self.max_num_timeout} ]]; then",
            '  scontrol requeue "${job:-$SLURM_JOB_ID}"',
            "fi",
            "exit $code",
        ]


def arrays(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Jobs that need the same, in arrays that SLURM takes."""
    alike: dict[tuple[int, ...], list[Job]] = defaultdict(list)
    for job in jobs:
        alike[job.config.nodes, job.config.devices, job.gpus, job.cores].append(job)
    for some in alike.values():
        yield from (some[first : first + ARRAY] for first in range(0, len(some), ARRAY))


def number_file(job: Job) -> Path:
    return job.folder / "slurm_job"


def launch(jobs: Sequence[Job], cluster: Cluster) -> None:
    """Returns when every job has left the queue. UserError if some did not finish."""
    if shutil.which("sbatch") is None:
        raise UserError("hydra/launcher=slurm, but there is no sbatch here: give the command where you submit jobs")
    states = {job: "finished before" if job.finished() else "waiting" for job in jobs}
    with in_turn(cluster.folder / "submission"):  # the same sweep, given twice at once, submits each job once
        inside = queue()
        wanted = [job for job, state in states.items() if state == "waiting"]
        numbers = {job: number_file(job).read_text() for job in wanted if number_file(job).exists()}
        numbers = {job: number for job, number in numbers.items() if number in inside}
        numbers |= cluster.submit([job for job in wanted if job not in numbers])
    arrays = " ".join(dict.fromkeys(number.split("_")[0] for number in numbers.values()))
    if numbers:
        print(
            f"SLURM has {len(numbers)} jobs; `scancel {arrays}` stops them, Ctrl-C only this waiting", file=sys.stderr
        )
    try:
        watch(states, numbers)
    except KeyboardInterrupt:
        print(f"the jobs go on; the same command waits for them again, `scancel {arrays}` stops them", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    lost = [job for job, state in states.items() if not state.startswith("finished")]
    if lost:
        logs = " ".join(str(job.log) for job in lost[:3])
        raise UserError(f"{len(lost)} of {len(states)} jobs did not finish (see {logs}); the same command tries again")


def watch(states: dict[Job, str], numbers: dict[Job, str]) -> None:
    """Looks every two seconds at first, every minute in the end."""
    began = time.monotonic()
    with Board(states, {}) as board:
        while True:
            inside = queue()
            for job, number in list(numbers.items()):
                if number not in inside:
                    del numbers[job]
                    states[job] = ended(job, last_word(number), board)
                elif inside[number] == "RUNNING":
                    states[job] = "running"
                elif states[job] == "running" and inside[number] == "PENDING":
                    states[job] = "requeued"
            board.show()
            if not numbers:
                return
            time.sleep(min(60.0, 2 + (time.monotonic() - began) / 20))


def ended(job: Job, said: str, board: Board) -> str:
    """What became of a job that has left the queue, of which SLURM last `said` this."""
    known = status.read(job.folder)
    if known and known.state == "interrupted":
        return "interrupted"
    if job.finished() and said in ("COMPLETED", ""):
        return "finished"
    tail = job.tail()
    if known is None or known.state != "failed":
        job.failed(": ".join(["SLURM says", said or "nothing of it", *tail[-1:]]))
    board.failed(job, tail)
    return "failed"


def last_word(number: str) -> str:
    """COMPLETED, FAILED, OUT_OF_MEMORY, ...; nothing once SLURM has forgotten the job, after some minutes."""
    command = ["squeue", f"--jobs={number}", "--states=all", "--noheader", "--format=%T"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def queue() -> dict[str, str]:
    """The states of this user's jobs, by SLURM's numbers: 12, or 12_3 in an array. Waits until SLURM answers."""
    command = ["squeue", "--me", "--all", "--array", "--noheader", "--format=%i %T"]
    while (asked := subprocess.run(command, capture_output=True, text=True)).returncode:
        print(" ".join(asked.stderr.split()), file=sys.stderr)
        time.sleep(30)
    return dict(line.split() for line in asked.stdout.splitlines())
