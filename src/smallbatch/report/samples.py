"""Sample grids for a page: as small as they can be without losing a pixel, or else smaller."""

import base64
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image as PILImage

from smallbatch.files import inside
from smallbatch.report.choices import Choice

GRIDS = 48  # of a page
SIDE = 640  # pixels
BYTES = 64_000  # of a grid; beyond, it becomes a JPEG
BROKEN = (OSError, SyntaxError, ValueError, PILImage.DecompressionBombError)  # what PIL raises for files of any content


class Grid(NamedTuple):
    """`images` is how far the run was, `data` the picture as an address."""

    seed: int
    images: int
    data: str
    width: int
    height: int


def newest(choice: Choice) -> Grid | None:
    """That of the lowest seed that has drawn any."""
    for seed, run in choice.runs.items():
        for path in sorted(run.folder.glob("samples/*.png"), reverse=True):
            own = path.stem.isdecimal() and path.is_file() and inside(run.folder, path)
            if own and (picture := opened(path)):
                picture = shrunk(picture)
                picture.thumbnail((SIDE, SIDE))
                return Grid(seed, int(path.stem), address(picture), *picture.size)
    return None


def opened(path: Path) -> PILImage.Image | None:
    try:
        with PILImage.open(path, formats=["PNG"]) as file:
            return file.convert("RGB")
    except BROKEN:
        return None


def shrunk(picture: PILImage.Image) -> PILImage.Image:
    """Undoes an enlargement by whole pixels."""
    pixels = np.asarray(picture)
    for factor in range(16, 1, -1):
        if picture.width % factor or picture.height % factor:
            continue
        small = pixels[::factor, ::factor]
        if (small.repeat(factor, axis=0).repeat(factor, axis=1) == pixels).all():
            return PILImage.fromarray(np.ascontiguousarray(small))
    return picture


def address(picture: PILImage.Image) -> str:
    grey = picture.convert("L")
    same = (np.asarray(picture) == np.asarray(grey)[..., None]).all()
    kind, data = "png", encoded(grey if same else picture, "PNG", optimize=True)
    if len(data) > BYTES:
        kind, data = "jpeg", encoded(picture, "JPEG", quality=80)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def encoded(picture: PILImage.Image, kind: str, **how: int | bool) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **how)
    return out.getvalue()
