"""Small image files for the tests of this folder."""

import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = [f"{animal}/{number}.png" for animal in ("cat", "dog", "eel") for number in range(10)]


def draw(path: Path, seed: int, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def pack(folder: Path, target: Path, names: list[str] | None = None) -> Path:
    """A zip of the folder's files, in the given order."""
    names = names or [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    with zipfile.ZipFile(target, "w") as archive:
        for name in names:
            archive.write(folder / name, name)
    return target


def label(folder: Path, labels: object) -> None:
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
