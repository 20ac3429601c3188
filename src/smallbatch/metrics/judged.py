"""What an evaluation says, and leaves on disk."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from smallbatch import pictures
from smallbatch.files import replacing
from smallbatch.notation import Pixels


class Score(NamedTuple):
    """`error` is a standard error; `low` and `high` end a 95 % interval; `marks` are what a reader must know."""

    name: str
    value: float
    n: int
    extractor: str | None = None
    reference: str | None = None
    error: float | None = None
    low: float | None = None
    high: float | None = None
    marks: Sequence[str] = ()

    @property
    def record(self) -> dict[str, Any]:
        return {key: value for key, value in self._asdict().items() if value is not None} | {"marks": list(self.marks)}


class Judged(NamedTuple):
    """The headline first, then its floor and its extrapolation; `pairs` are some samples, then as many training images,
    each the nearest to its sample.
    """

    scores: list[Score]
    pairs: Pixels | None


def write(judged: Judged, path: Path, asked: Mapping[str, Any]) -> list[Path]:
    """FILE.json, with what was asked beside it, and FILE_nearest.png; returns what was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"metrics": [score.record for score in judged.scores], "asked": asked}
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")
    if judged.pairs is None:
        return [path]
    picture = path.with_name(f"{path.stem}_nearest.png")
    pictures.save(pictures.grid(judged.pairs, len(judged.pairs) // 2), picture)
    return [path, picture]
