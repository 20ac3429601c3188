"""What a run will write, and whether there is room for it before anything is trained."""

from pathlib import Path

from omegaconf import DictConfig
from rich.filesize import decimal

from smallbatch.errors import UserError
from smallbatch.files import free_bytes


def needed(parameters: int, config: DictConfig) -> int:
    """Bytes of the checkpoints (the last, the one before, one being written), the export, and the EMA's snapshots."""
    averages, weights = len(config.ema.profiles), 4 * parameters
    checkpoint = weights * (1 + 2 + averages)  # the weights, Adam's two moments, the averages
    every = config.ema.snapshot_every_images
    snapshots = config.budget.images // every if every and config.budget.images else 0
    return 3 * checkpoint + 2 * weights + snapshots * averages * weights // 2  # in float16


def check_room(folder: Path, wanted: int) -> None:
    """What the run has written before will be written over."""
    free = free_bytes(folder)
    own = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if wanted > free + own:
        raise UserError(
            f"the checkpoints of this run need {decimal(wanted)}, {decimal(free + own)} are free for {folder}: "
            "give root= on another disk, or fewer ema.profiles"
        )
