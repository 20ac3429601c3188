"""What became of a run, also of one that was killed before it could say, and the end of its log."""

import fcntl
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from smallbatch import status
from smallbatch.errors import UserError
from smallbatch.recorded import Row
from smallbatch.report.figures import finite
from smallbatch.status import Status

LOG_LINES = 20
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f]")  # colours, cursors and bells of a terminal


def outcome(folder: Path, rows: Sequence[Row]) -> Status:
    """status.json; while a run trains, and where it was killed, with how far its record came."""
    known = status.read(folder)
    if known is None:
        raise UserError(f"{folder} holds no status.json: the run's own command writes it")
    if not all(map(finite, (known.images, known.seconds, known.device_seconds, known.flops_per_image or 0))):
        raise UserError(f"{folder / 'status.json'} cannot be read: remove it; the run's own command writes it again")
    if known.state != "training":
        return known
    images = max([known.images, *(row["images"] for row in rows)])
    seconds = max([known.seconds, *(row["seconds"] for row in rows)])
    on_devices = known.device_seconds + known.devices * (seconds - known.seconds)
    known = replace(known, images=images, seconds=seconds, device_seconds=on_devices)
    return known if held(folder) else replace(known, state="interrupted", error="its process ended without a word")


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


def tail(path: Path) -> str:
    """The last lines of a log, as a terminal would have left them."""
    if not path.is_file():
        return ""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 65536))
        text = file.read().decode(errors="replace")
    lines = [CONTROL.sub("", line.rsplit("\r", 1)[-1]) for line in text.replace("\r\n", "\n").split("\n")]
    return "\n".join([line for line in lines if line.strip()][-LOG_LINES:])
