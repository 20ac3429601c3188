"""What submitit starts on a node: it becomes the job, so that SLURM's signals reach the training, each once."""

import os
import sys


def become(command: list[str], log: str) -> None:
    """Replaces this process by `command`, which writes to the end of `log`. Imports little: every rank waits for it."""
    sys.stdout.flush()
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.setdefault("OMP_NUM_THREADS", os.environ["SLURM_CPUS_PER_TASK"])
    os.execv(command[0], command)
