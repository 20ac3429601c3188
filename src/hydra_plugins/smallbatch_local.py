"""`hydra/launcher=local`: every job of a sweep in a fresh process, packed on this machine's GPUs or cores."""

from collections.abc import Sequence
from functools import partial

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class LocalLauncher(Launcher):
    """What a job takes is read from the job's own configuration, as a sweep may vary its devices."""

    def __init__(self, gpus_per_job: int, jobs_per_gpu: int, cores_per_job: int):
        self.jobs_per_gpu = jobs_per_gpu

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.loader = config, hydra_context.config_loader

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        # Hydra imports every plugin at every start
        from smallbatch.cli.sweeps import jobs
        from smallbatch.cli.sweeps.launching import Launch
        from smallbatch.cli.sweeps.places import this_machine

        wanted = [list(words) for words in job_overrides]
        machine = this_machine(self.jobs_per_gpu)
        compose = partial(self.loader.load_sweep_config, self.config)
        found = jobs.found(wanted, compose, on_gpus=machine.all_gpus > 0)
        Launch(found, machine).run()
        return jobs.returned(found)
