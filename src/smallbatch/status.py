"""What became of a run: status.json in its folder."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_type_hints

from beartype.door import is_bearable

from smallbatch.errors import UserError
from smallbatch.files import read_json, replacing

State = Literal["training", "finished", "interrupted", "failed"]


@dataclass(frozen=True)
class Status:
    """`training` is also what a killed run leaves. `flops_per_image` is what one row costs forward and backward."""

    state: State
    images: int = 0
    seconds: float = 0.0  # of training, over all resumptions
    device_seconds: float = 0.0  # the same, times the devices that each resumption had
    devices: int = 1
    device: str = "cpu"
    flops_per_image: int | None = None
    error: str | None = None

    def reached(self, images: int, seconds: float) -> "Status":
        """The same when it has come this far, on these devices since."""
        images, seconds = max(self.images, images), max(self.seconds, seconds)
        on_devices = self.device_seconds + self.devices * (seconds - self.seconds)
        return replace(self, images=images, seconds=seconds, device_seconds=on_devices)


def read(folder: Path) -> Status | None:
    """None where no run has begun."""
    path = folder / "status.json"
    if not path.exists():
        return None
    try:
        known = Status(**read_json(path))
        odd = [name for name, hint in get_type_hints(Status).items() if not is_bearable(getattr(known, name), hint)]
        if odd:
            raise ValueError(f"{odd[0]}={getattr(known, odd[0])}")
        return known
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}): remove it; the run's own command writes it again") from None


def write(folder: Path, status: Status) -> None:
    with replacing(folder / "status.json") as partial:
        partial.write_text(json.dumps(asdict(status), indent=1) + "\n")
