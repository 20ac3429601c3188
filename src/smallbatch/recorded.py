"""What a run has recorded: metrics.jsonl, read back, and cut where a resumed run goes on."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smallbatch.errors import printable
from smallbatch.files import replacing

Row = dict[str, Any]
IN_EVERY_ROW = {"images": int, "step": int, "seconds": (int, float), "name": str, "value": (int, float)}


def to_stderr(text: str) -> None:
    print(printable(text), file=sys.stderr)


def read(folder: Path, warn: Callable[[str], None] = to_stderr) -> list[Row]:
    """The whole lines of metrics.jsonl. Others, as a crash leaves them, are left out, and `warn` hears of them once."""
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().splitlines() if path.is_file() else []
    rows = list(map(parsed, lines))
    broken = [number for number, row in enumerate(rows, start=1) if row is None]
    if broken:
        warn(f"{path}: {len(broken)} of {len(lines)} lines cannot be read and are left out, the first is {broken[0]}")
    return [row for row in rows if row is not None]


def parsed(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # also where it is no UTF-8
        return None
    whole = isinstance(row, dict) and all(isinstance(row.get(key), kind) for key, kind in IN_EVERY_ROW.items())
    return row if whole else None


def rewind(folder: Path, images: int, warn: Callable[[str], None] = to_stderr) -> None:
    """Drops what was recorded beyond `images`: the resumed run will record it again."""
    kept = [row for row in read(folder, warn) if row["images"] <= images]
    with replacing(folder / "metrics.jsonl") as partial:
        partial.write_text("".join(json.dumps(row) + "\n" for row in kept))
