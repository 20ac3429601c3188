"""`hydra/launcher=slurm`: every job of a sweep is a job of a SLURM cluster."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class SlurmLauncher(Launcher):
    """Waits for the jobs, as a sweeper needs their results; but they do not wait for it."""

    def __init__(
        self,
        folder: str,
        gpus_per_job: int,
        cores_per_job: int,
        signal_delay_s: int,
        max_num_timeout: int,
        sbatch: DictConfig,
    ):
        self.folder, self.signal_delay_s, self.max_num_timeout = Path(folder), signal_delay_s, max_num_timeout
        self.sbatch = OmegaConf.to_container(sbatch, resolve=True)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.loader = config, hydra_context.config_loader

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        # Hydra imports every plugin at every start
        from smallbatch.cli.sweeps import jobs
        from smallbatch.errors import UserError

        try:
            from smallbatch.cli.sweeps import slurm
        except ModuleNotFoundError as error:
            raise UserError(
                f"hydra/launcher=slurm needs its package ({error}): pip install 'smallbatch[slurm]'"
            ) from None
        wanted = [list(words) for words in job_overrides]
        compose = partial(self.loader.load_sweep_config, self.config)
        found = jobs.found(wanted, compose, on_gpus=True)
        cluster = slurm.Cluster(self.folder.absolute(), self.signal_delay_s, self.max_num_timeout, self.sbatch)
        slurm.launch(found, cluster)
        return jobs.returned(found)
