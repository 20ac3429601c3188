"""The jobs of a sweep: what each is told, where it runs, what became of it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf, open_dict

from smallbatch import status
from smallbatch.cli import lifeline, naming
from smallbatch.cli.building import from_config
from smallbatch.cli.resume import describe
from smallbatch.cli.sweeps.places import Place
from smallbatch.errors import UserError
from smallbatch.files import alone, last_lines
from smallbatch.recorded import read
from smallbatch.report.outcome import held

RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "MASTER_ADDR")
RANKS += ("MASTER_PORT", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")


@dataclass(frozen=True, eq=False)
class Job:
    """`words` follow `smallbatch train`; `name` is those in which it differs from the other jobs."""

    words: Sequence[str]
    name: str
    config: DictConfig
    folder: Path
    gpus: int
    cores: int

    @property
    def log(self) -> Path:
        return self.folder / "job.log"

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "smallbatch.cli.main", "train", *self.words]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Holds this job against other launches; BlockingIOError if one of them has it, or a run trains it."""
        with alone(self.folder / "job"):
            if held(self.folder):
                raise BlockingIOError
            yield

    def finished(self) -> bool:
        known = status.read(self.folder)
        return known is not None and known.state == "finished"

    def begin(self) -> None:
        """Records what there is to do, should the job be killed before it says so itself."""
        describe(self.folder, self.config, ["smallbatch", "train", *self.words])
        if status.read(self.folder) is None:
            status.write(self.folder, status.Status("training", devices=self.devices))

    @property
    def devices(self) -> int:
        return self.config.devices * self.config.nodes

    def failed(self, why: str) -> None:
        """Records a failure, also of a job that had no time to record anything itself; but not over who trains it."""
        if held(self.folder):
            return
        known = status.read(self.folder) or status.Status("failed", devices=self.devices)
        status.write(self.folder, replace(known, state="failed", error=why))

    def figure(self) -> float | None:
        """The last of what a search minimises."""
        rows = [row for row in read(self.folder) if row["name"] == self.config.minimize and "logsnr" not in row]
        return rows[-1]["value"] if rows else None

    def tail(self, lines: int = 15) -> list[str]:
        """The end of its log."""
        return last_lines(self.log, lines)


@dataclass
class Running:
    process: subprocess.Popen
    place: Place
    held: ExitStack  # the job's lock and its log
    told: int = 0  # how many signals it has been sent
    since: float = field(default_factory=time.monotonic)


def found(wanted: list[list[str]], compose: Callable[[list[str]], DictConfig], on_gpus: bool) -> list[Job]:
    """The job of each of `wanted`: the same one where words name the same run folder, as they change no result.

    `on_gpus`: whether there are any where the jobs will run.
    """
    shared = set.intersection(*map(set, wanted))
    fingerprints: dict[str, str] = {}
    jobs: dict[Path, Job] = {}
    every: list[Job] = []
    for words in wanted:
        config = compose(words)
        if config.dry_run:
            raise UserError("dry_run=true in a sweep: use hydra/launcher=basic, which shows one plan after the other")
        launcher = config.hydra.launcher.copy()
        gpus = launcher.gpus_per_job if on_gpus and config.trainer.accelerator != "cpu" else 0
        with open_dict(config):
            del config.hydra
        data = json.dumps(OmegaConf.to_container(config.data, resolve=True), sort_keys=True)
        if data not in fingerprints:
            fingerprints[data] = from_config(config.data, "data").fingerprint
        folder = naming.run_folder(config, fingerprints[data])
        name = " ".join(word for word in words if word not in shared) or " ".join(words)
        every.append(jobs.setdefault(folder, Job(words, name, config, folder, gpus, launcher.cores_per_job)))
    return every


def returned(jobs: Sequence[Job]) -> list[JobReturn]:
    """What Hydra's sweepers are told of finished jobs."""
    return [JobReturn(job.words, status=JobStatus.COMPLETED, _return_value=job.figure()) for job in jobs]


def environment(gpus: Sequence[str], threads: int) -> dict[str, str]:
    """Of a job: nothing that says it is a rank of another, its own GPUs, as many threads as it has cores."""
    kept = {k: v for k, v in os.environ.items() if k not in RANKS and not k.startswith(("PL_", "TORCHELASTIC_"))}
    kept[lifeline.PARENT] = str(os.getpid())
    if gpus:
        return kept | {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    return kept | {"OMP_NUM_THREADS": str(threads)}
