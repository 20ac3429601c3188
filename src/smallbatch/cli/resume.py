"""Where a run begins: its folder, locked and described, and the checkpoint it goes on from."""

from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from smallbatch.callbacks.checkpoint import last_good
from smallbatch.callbacks.record import MetricsFile, rewind
from smallbatch.cli import runs
from smallbatch.errors import UserError
from smallbatch.files import replacing


class Start(NamedTuple):
    """Where a resumed run goes on."""

    checkpoint: Path
    images: int
    seconds: float


def open_folder(config: DictConfig, folder: Path) -> MetricsFile:
    """The run folder, locked and described by rank 0."""
    if rank_zero_only.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        runs.lock(folder)
        with replacing(folder / "config.yaml") as partial:
            OmegaConf.save(config, partial, resolve=True)
    return MetricsFile(folder)


def find_start(resume: str, folder: Path, local: MetricsFile, batch: int) -> Start | None:
    """The newest whole checkpoint; the record is wound back to it."""
    if resume not in ("auto", "never", "must"):
        raise UserError(f"{resume=}: give auto, never or must")
    path = last_good(folder / "checkpoints", warn=local.event)
    if resume == "never" and path:
        raise UserError(f"resume=never, but {folder} already holds a checkpoint; resume=auto goes on with it")
    if resume == "must" and not path:
        raise UserError(f"resume=must, but {folder} holds no checkpoint; resume=auto starts a new run")
    saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True) if path else {}
    images = saved["global_step"] * batch if saved else 0
    if rank_zero_only.rank == 0:
        rewind(folder, images)
    return Start(path, images, saved["callbacks"]["Budget"]["seconds"]) if saved else None
