"""Images to be judged, in a FILE.npz as guided-diffusion writes it or in a folder of image files, as uint8 rows."""

import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from PIL import Image
from rich.filesize import decimal

from smallbatch.data.decode import FORMATS, said, undecodable
from smallbatch.data.decoded import Alike, Decoded, Extent
from smallbatch.data.files import Folder, is_image
from smallbatch.data.reading import chunks, refuse
from smallbatch.data.store import Source, Store
from smallbatch.errors import UserError
from smallbatch.notation import ImageSpec, Labels

IMAGES, LABELS = "arr_0", "arr_1"  # guided-diffusion's names, which np.savez gives to what has none
SMALL = 64 * 2**20  # bytes that an array may unpack to whatever its file holds
BROKEN = (OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)
LOSSY = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WebP"}


class ImageFiles(NamedTuple):
    """Rows, what they are, and what a reader of their score should know."""

    source: Source
    spec: ImageSpec
    marks: list[str]


def open_images(path: str | Path, setting: str) -> ImageFiles:
    """`setting` is the name under which the user gave the path."""
    path = Path(path).expanduser()
    if path.is_dir():
        return in_folder(path, setting)
    if not path.exists():
        raise UserError(f"{setting}={path} does not exist: give FILE.npz or a folder of PNG files")
    if path.suffix != ".npz":
        raise UserError(f"{setting}={path} is neither a folder nor FILE.npz: unpack it, or save it with np.savez")
    return in_npz(path, setting)


def in_npz(path: Path, setting: str) -> ImageFiles:
    """arr_0: uint8 (n, h, w, c); arr_1, if it is there: the classes they were drawn as."""
    found = members(path, setting)
    if IMAGES not in found:
        use = "are statistics: give them as reference=" if "mu" in found else f"lack {IMAGES}: np.savez(FILE, images)"
        raise UserError(f"{setting}={path}: {', '.join(found) or 'its arrays'} {use}")
    (images,) = load(path, setting, [IMAGES])
    refuse_unless_pixels(images, f"{setting}={path}")
    size, channels = images.shape[2:]
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    marks = [] if images.max() > 1 else ["no pixel is above 1 of 255: were the images cast before they were scaled?"]
    return ImageFiles(Store(pixels, labels(path, setting, found, len(pixels))), ImageSpec(channels, size, 0), marks)


def labels(path: Path, setting: str, found: list[str], n: int) -> Labels | None:
    if LABELS not in found:
        return None
    (classes,) = load(path, setting, [LABELS])
    if classes.shape != (n,) or classes.dtype.kind not in "iu":
        raise UserError(
            f"{setting}={path}: {LABELS} of {classes.dtype} {classes.shape} is not a class for each of {n} images"
        )
    return torch.from_numpy(classes.astype(np.int64))


def refuse_unless_pixels(images: np.ndarray, where: str) -> None:
    """Names what `images` are, and the line of numpy that mends them."""
    shape = f"{where}: {IMAGES} of shape {images.shape}"
    if images.ndim != 4:
        fix = ": images[..., None] makes grey images of it" if images.ndim == 3 else ""
        raise UserError(f"{shape} is not n,h,w,c{fix}")
    n, height, width, channels = images.shape
    if not n:
        raise UserError(f"{shape} holds no images")
    if channels not in (1, 3):
        fix = "images.transpose(0, 2, 3, 1)" if height in (1, 3) else "images[..., :3]"
        raise UserError(f"{shape} is not n,h,w,c with 1 or 3 channels: save {fix}")
    if height != width:
        raise UserError(f"{shape}: the images must be square")
    if images.dtype != np.uint8:
        raise UserError(f"{where}: {IMAGES} holds {images.dtype}, not uint8: {mended(images)}")


def mended(images: np.ndarray) -> str:
    """How images of another type become 0..255, judged by their least and greatest value."""
    if images.dtype.kind not in "buif":
        return "save numbers"
    broken = ~np.isfinite(images).all(axis=(1, 2, 3))
    if broken.any():
        return f"image {broken.argmax()} is not finite, as {broken.sum()} of {len(images)} are: draw them again"
    low, high = images.min(), images.max()
    for least, most, fix in (
        (0, 1, "(images * 255).round().astype('uint8')"),
        (-1, 1, "((images + 1) * 127.5).round().astype('uint8')"),
        (0, 255, "images.round().astype('uint8')"),
    ):
        if least <= low and high <= most:
            return f"its values lie in [{least}, {most}], so save {fix}"
    return f"its values reach from {low:.4g} to {high:.4g}: scale them to 0..255 and save astype('uint8')"


class Head(NamedTuple):
    extent: Extent
    grey: bool


def in_folder(path: Path, setting: str) -> ImageFiles:
    """Sorted by name, however deep they lie; grey if all are."""
    files = Folder(path)
    names = sorted(name for name in files.names if is_image(name))
    if not names:
        raise UserError(f"{setting}={path} holds no images: give a folder of PNG files")
    found = heads(files, names)
    (width, height), _ = found[0]
    if width != height:
        raise UserError(f"{setting}={path}: {names[0]} is {said((width, height))}: the images must be square")
    for name, (extent, _) in zip(names, found, strict=True):
        if extent != (width, height):
            sizes = f"{names[0]} is {said((width, height))}, {name} {said(extent)}"
            raise UserError(f"{setting}={path}: {sizes}: all images must have one size")
    spec = ImageSpec(1 if all(head.grey for head in found) else 3, width, classes=0)
    return ImageFiles(Decoded(files, names, [], spec, Alike(width)), spec, lossy(names))


def heads(files: Folder, names: list[str]) -> list[Head]:
    def look(rows: range) -> list[Head]:
        return [head(files, name) for name in names[rows.start : rows.stop]]

    found, problems = [], []
    for chunk in chunks(look, 0, len(names), "looking at images"):
        found += chunk.result or []
        problems += chunk.problems
    refuse(problems, len(names))
    return found


def head(files: Folder, name: str) -> Head:
    try:
        with files.open(name) as file, Image.open(file, formats=FORMATS) as image:
            return Head(image.size, image.mode in ("1", "L", "LA") or image.mode.startswith("I"))
    except Exception as error:  # a damaged file makes PIL raise almost anything
        raise undecodable(files, name, error) from None


def lossy(names: list[str]) -> list[str]:
    kinds = Counter(filter(None, (LOSSY.get(Path(name).suffix.lower()) for name in names)))
    why = "whose artefacts change the distance"
    return [f"{count} of {len(names)} images are {kind}, {why}" for kind, count in sorted(kinds.items())]


def members(path: Path, setting: str) -> list[str]:
    """The names of the arrays."""
    with _opened(path, setting) as arrays:
        return arrays.files


def load(path: Path, setting: str, names: list[str]) -> list[np.ndarray]:
    with _opened(path, setting) as arrays:
        return [arrays[name] for name in names]


@contextmanager
def _opened(path: Path, setting: str) -> Iterator[NpzFile]:
    try:
        if not path.is_file():
            raise ValueError("it is no file")
        arrays = np.load(path, allow_pickle=False)
        if not isinstance(arrays, NpzFile):
            raise ValueError("it is one .npy array")
        with arrays:
            refuse_bomb(arrays.zip, path.stat().st_size)
            yield arrays
    except BROKEN as error:
        reason = "it is no .npz, or holds Python objects" if "pickle" in str(error) else " ".join(str(error).split())
        raise UserError(f"{setting}={path} cannot be read ({reason}): copy it or write it again") from None


def refuse_bomb(archive: zipfile.ZipFile, packed: int) -> None:
    """Images and features do not shrink to a hundredth."""
    most = 100 * packed + SMALL
    for entry in archive.infolist():
        if entry.file_size > most:
            raise ValueError(f"{entry.filename} would unpack from {decimal(packed)} to {decimal(entry.file_size)}")
