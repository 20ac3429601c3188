"""Where a run begins: its folder, locked and described, and the checkpoint it goes on from."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from smallbatch.callbacks.checkpoint import last_good
from smallbatch.callbacks.record import MetricsFile
from smallbatch.cli import runs
from smallbatch.errors import UserError
from smallbatch.files import replacing
from smallbatch.recorded import rewind


class Start(NamedTuple):
    """Where a run goes on; without a checkpoint, from nothing."""

    checkpoint: Path | None
    images: int
    seconds: float
    device_seconds: float


def open_folder(config: DictConfig, folder: Path) -> MetricsFile:
    """The run folder, locked and described by rank 0."""
    if rank_zero_only.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        runs.lock(folder)
        words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
        describe(folder, config, ["smallbatch", "train", *words])
    return MetricsFile(folder)


def describe(folder: Path, config: DictConfig, command: Sequence[str]) -> None:
    """config.yaml: what to type for this run again, and all that this means."""
    with replacing(folder / "config.yaml") as partial:
        partial.write_text(f"# {shlex.join(command)}\n{OmegaConf.to_yaml(config, resolve=True)}")


def find_start(resume: str, folder: Path, local: MetricsFile, batch: int) -> Start:
    """The newest whole checkpoint; the record is wound back to it."""

    if resume not in ("auto", "never", "must"):
        raise UserError(f"{resume=}: give auto, never or must")
    found = last_good(folder / "checkpoints", local.warn)
    if resume == "never" and found:
        raise UserError(f"resume=never, but {folder} already holds a checkpoint; resume=auto goes on with it")
    if resume == "must" and not found:
        raise UserError(f"resume=must, but {folder} holds no checkpoint; resume=auto starts a new run")
    path, saved = found or (None, {"global_step": 0, "callbacks": {"Budget": {"seconds": 0.0, "device_seconds": 0.0}}})
    start = Start(path, saved["global_step"] * batch, **saved["callbacks"]["Budget"])
    if rank_zero_only.rank == 0:
        rewind(folder, start.images, local.warn)
    return start
