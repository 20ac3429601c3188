"""What became of a run, also of one that was killed before it could say."""

import fcntl
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from smallbatch import status
from smallbatch.errors import UserError
from smallbatch.recorded import Row
from smallbatch.report.figures import finite
from smallbatch.status import Status


def outcome(folder: Path, rows: Sequence[Row]) -> Status:
    """status.json; of a run that has not finished, with how far its record came: what kills it may say no more.

    `rows` are in the order of their images.
    """
    known = status.read(folder)
    if known is None:
        raise UserError(f"{folder} holds no status.json: the run's own command writes it")
    if not all(map(finite, (known.images, known.seconds, known.device_seconds, known.flops_per_image or 0))):
        raise UserError(f"{folder / 'status.json'} cannot be read: remove it; the run's own command writes it again")
    if known.state == "finished":
        return known
    for row in rows[-1:]:
        known = known.reached(row["images"], row["seconds"])
    if known.state != "training" or held(folder):
        return known
    return replace(known, state="interrupted", error="its process ended without a word")


def held(folder: Path) -> bool:
    """Whether a process trains there."""
    if not (folder / ".lock").is_file():
        return False
    try:
        with open(folder / ".lock") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
