"""Which GPUs, or how many cores, a job gets: the room of one machine."""

import os
from collections import Counter
from dataclasses import dataclass

import torch

from smallbatch.errors import UserError


@dataclass(frozen=True)
class Place:
    """GPUs by the names that CUDA_VISIBLE_DEVICES gives them; without any, cores."""

    gpus: tuple[str, ...] = ()
    cores: int = 0

    def __str__(self) -> str:
        return f"GPU {', '.join(self.gpus)}" if self.gpus else f"{self.cores} core{'s' * (self.cores > 1)}"


class Machine:
    """Room for jobs: every GPU holds `jobs_per_gpu`, every core one thread."""

    def __init__(self, gpus: list[str], cores: int, jobs_per_gpu: int = 1):
        if jobs_per_gpu < 1:
            raise UserError(f"hydra.launcher.{jobs_per_gpu=} must be at least 1")
        self.free, self.cores = Counter(dict.fromkeys(gpus, jobs_per_gpu)), cores
        self.all_gpus, self.all_cores = len(gpus), cores

    def check(self, gpus: int, cores: int) -> None:
        """Refuses what would wait for ever."""
        if gpus > self.all_gpus:
            raise UserError(f"hydra.launcher.gpus_per_job={gpus}, but this machine has {self.all_gpus}")
        if gpus == 0 and not 1 <= cores <= self.all_cores:
            raise UserError(f"hydra.launcher.cores_per_job={cores}: give 1 to {self.all_cores}, as this machine has")

    def take(self, gpus: int, cores: int) -> Place | None:
        """The emptiest GPUs; None while there is no room."""
        if gpus:
            chosen = [gpu for gpu, room in self.free.most_common() if room][:gpus]
            if len(chosen) < gpus:
                return None
            self.free.subtract(chosen)
            return Place(gpus=tuple(chosen))
        if cores > self.cores:
            return None
        self.cores -= cores
        return Place(cores=cores)

    def give_back(self, place: Place) -> None:
        self.free.update(place.gpus)
        self.cores += place.cores


def this_machine(jobs_per_gpu: int) -> Machine:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    return Machine(gpus[: torch.cuda.device_count()], len(os.sched_getaffinity(0)), jobs_per_gpu)
