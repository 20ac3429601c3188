"""Small images to enlarge, from a folder, a zip or one file."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from smallbatch.data.decode import decode, said
from smallbatch.data.files import Files, Folder, is_image, open_files
from smallbatch.data.images import shrunk, to_float, to_pixels
from smallbatch.data.reading import chunks, refuse
from smallbatch.errors import UserError
from smallbatch.notation import Pixels


class Small(NamedTuple):
    """Sorted by name; of larger ones the middle square, every pixel the mean of its area."""

    pixels: Pixels
    extents: list[tuple[int, int]]  # width and height of each, as it was

    @property
    def larger(self) -> int:
        """How many were."""
        return sum(extent != (self.pixels.shape[3], self.pixels.shape[2]) for extent in self.extents)


def small_images(path: str, size: int, channels: int, setting: str) -> Small:
    """All of them, in memory; one with a side below `size` is refused. `setting` is how the user named the path."""
    files, names = listed(path, setting)
    read = reader(files, size, channels)
    found, problems = [], []
    for chunk in chunks(lambda rows: [read(names[row]) for row in rows], 0, len(names), "reading images"):
        found += chunk.result or []
        problems += chunk.problems
    refuse(problems, len(names))
    return Small(torch.cat([one.pixels for one in found]), [extent for one in found for extent in one.extents])


def listed(path: str, setting: str) -> tuple[Files, list[str]]:
    """A single image file is a folder with one name."""
    root = Path(path).expanduser()
    if root.is_file() and is_image(root.name):
        return Folder(root.parent, setting), [root.name]
    files = open_files(path, setting)
    return files, files.images


def reader(files: Files, size: int, channels: int) -> Callable[[str], Small]:
    def read(name: str) -> Small:
        image = decode(files, name, channels)
        if min(image.size) < size:
            where = f"{files.setting}={files.path}: {name} is {said(image.size)}"
            raise UserError(f"{where}, smaller than the {size}x{size} that this run enlarges: remove it")
        return Small(to_pixels(shrunk(middle(image, channels), size)), [image.size])

    return read


def middle(image: Image.Image, channels: int) -> torch.Tensor:
    """The largest square around the middle, (1, c, side, side)."""
    side = min(image.size)
    left, upper = (image.width - side) // 2, (image.height - side) // 2
    square = np.array(image.crop((left, upper, left + side, upper + side))).reshape(1, side, side, channels)
    return to_float(torch.from_numpy(square).permute(0, 3, 1, 2))
