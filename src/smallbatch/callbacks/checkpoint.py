"""Checkpoints that survive a crash at any moment, and the run's weights in a form that anyone can load."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from smallbatch.callbacks.cadence import ImagesCallback
from smallbatch.errors import UserError
from smallbatch.files import replacing
from smallbatch.module import DiffusionModule

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


class AtomicCheckpointIO(CheckpointIO):
    """Writes aside and then takes the name; the checkpoint before it stays as previous.ckpt."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        with replacing(path) as partial:
            with open(partial, "wb") as file:  # given a path, torch would not say why a write failed
                torch.save(checkpoint, file)
            if path.exists():
                path.replace(path.with_name(PREVIOUS))  # a crash here leaves that one, which is whole

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        return torch.load(path, map_location=map_location, weights_only=True, mmap=True)

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


class Checkpoint(ImagesCallback):
    """Exports the weights by `export(trainer, module)`, on every rank, and then saves all that resuming needs.

    Comes last among the callbacks: whatever they did at this step is in the checkpoint.
    """

    def __init__(self, export: Callable[[L.Trainer, DiffusionModule], None], every_images: int | None):
        super().__init__(every_images)
        self.export = export

    def due(self, module: DiffusionModule) -> bool:
        return super().due(module) or module.interrupted

    def on_due(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        self.export(trainer, module)  # first, so that a finished checkpoint never stands beside older weights
        trainer.save_checkpoint(Path(trainer.default_root_dir) / "checkpoints" / LAST)


def last_good(folder: Path, warn: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint in `folder` that loads whole, and its content; a newer one that does not is set aside.

    UserError where none loads: they stay, as the disk may be to blame.
    """
    broken: dict[Path, str] = {}
    for path in (folder / LAST, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a truncated file fails in many ways
            broken[path] = type(error).__name__
            continue
        for other, reason in broken.items():
            warn(f"{other} cannot be read ({reason}): falling back to the one before")
            if rank_zero_only.rank == 0:
                other.rename(other.with_suffix(".bad"))
        return path, saved
    if broken:
        reasons = ", ".join(f"{path.name}: {reason}" for path, reason in broken.items())
        raise UserError(f"no checkpoint in {folder} can be read ({reasons}); move the folder away to start again")
    return None
