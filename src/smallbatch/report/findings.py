"""What `smallbatch diagnose` left in a run folder: a line and a picture each."""

from pathlib import Path
from typing import Any, NamedTuple

from smallbatch.errors import printable
from smallbatch.files import inside, read_json
from smallbatch.report import samples
from smallbatch.report.runs import Run

WIDTH = 1100  # pixels of a figure


class Finding(NamedTuple):
    name: str
    line: str
    data: str | None  # the picture as an address
    width: int
    height: int


def found(run: Run) -> list[Finding]:
    """In the order of their names. What cannot be read is left out: anyone may have written it."""
    folder = run.folder / "diagnostics"
    files = sorted(folder.glob("*.json")) if inside(run.folder, folder) else []
    known = [(file, about(file)) for file in files if file.is_file() and inside(run.folder, file)]
    return [_shown(file, said) for file, said in known if said is not None]


def about(file: Path) -> dict[str, Any] | None:
    try:
        said = read_json(file)
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) and isinstance(said.get("line"), str) else None


def _shown(file: Path, said: dict[str, Any]) -> Finding:
    path, name, line = file.with_suffix(".png"), printable(file.stem), printable(said["line"])
    picture = samples.opened(path) if path.is_file() and inside(file.parent, path) else None
    if picture is None:
        return Finding(name, line, None, 0, 0)
    picture.thumbnail((WIDTH, WIDTH))
    return Finding(name, line, samples.address(picture), *picture.size)
