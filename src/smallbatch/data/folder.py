"""Your own images, from a folder or a zip."""

import hashlib
from functools import cached_property

from smallbatch.data.classes import Classes, find_classes
from smallbatch.data.decode import decode, said
from smallbatch.data.decoded import Alike, Cropped, Decoded, Fit
from smallbatch.data.files import Files, Mark, open_files
from smallbatch.data.module import ImageData, Parts
from smallbatch.data.reading import chunks
from smallbatch.errors import UserError
from smallbatch.notation import ImageSpec
from smallbatch.randomness import key


def held_out_rows(names: list[str], share: float) -> list[int]:
    """Chosen by each name's hash, so that images added later leave the choice as it is; never none."""
    draws = [key("held out", name) / 2**63 for name in names]
    return [row for row, draw in enumerate(draws) if draw < share] or [draws.index(min(draws))]


def split(names: list[str], share: float) -> tuple[list[int], list[int]]:
    """Rows to train on, and rows held out."""
    held_out = held_out_rows(names, share)
    train = sorted(set(range(len(names))) - set(held_out))
    if not train:
        raise UserError(f"data.held_out={share} leaves none of {len(names)} images to train on")
    return train, held_out


class Images(ImageData):
    """Class folders, flat, or EDM's dataset.json. `size` None takes that of the images, if all share it.

    Images with a side below `smallest` pixels (None: below `size`) are refused, others enlarged where they must be.
    """

    def __init__(
        self,
        path: str,
        batch: int,
        seed: int,
        size: int | None,
        channels: int = 3,
        flip: bool = True,
        held_out: float = 0.01,
        smallest: int | None = None,
        memory_gib: float = 8.0,
        workers: int | None = None,
        per_image: int = 1,
        low_size: int | None = None,
    ):
        super().__init__(batch, seed, flip, memory_gib, workers, per_image, low_size)
        if not isinstance(path, str):
            raise UserError(f"data.path={path}: give a folder or a zip of images")
        if size is not None and (not isinstance(size, int) or size < 1):
            raise UserError(f"data.size={size} must be a whole number, at least 1, or null for the size of the images")
        if channels not in (1, 3):
            raise UserError(f"data.channels={channels} must be 1 (grey) or 3 (colour)")
        if not 0 < held_out < 1:
            raise UserError(f"data.held_out={held_out} must lie between 0 and 1: neither part may be empty")
        if smallest is not None and smallest < 1:
            raise UserError(f"data.smallest={smallest} must be at least 1, or null for data.size")
        self.path, self.size, self.channels, self.share = path, size, channels, held_out
        self.smallest = smallest

    @cached_property
    def files(self) -> Files:
        return open_files(self.path)

    @cached_property
    def names(self) -> list[str]:
        """Of the images, sorted."""
        return self.files.images

    @cached_property
    def classes(self) -> Classes:
        return find_classes(self.files)

    @property
    def class_names(self) -> list[str]:
        return self.classes.names

    @cached_property
    def spec(self) -> ImageSpec:
        return ImageSpec(self.channels, self.size or self.first_size, len(self.class_names), self.low_size)

    @cached_property
    def first_size(self) -> int:
        name = self.names[0]
        image = decode(self.files, name, self.channels)
        if image.width != image.height:
            raise UserError(f"{name} is {said(image.size)}, not square: set data.size to crop the images")
        return image.width

    @cached_property
    def fingerprint(self) -> str:
        """Of every image's name, checksum, length and class; a zip lists them, a folder is read for them."""
        names = self.names

        def marks(rows: range) -> list[Mark]:
            return [self.files.mark(name) for name in names[rows.start : rows.stop]]

        digest = hashlib.blake2b(repr(self.class_names).encode(), digest_size=16)
        labels = iter(self.classes.labels or [-1] * len(names))
        for rows, found, _ in chunks(marks, 0, len(names), "looking for changes"):
            for name, mark in zip(names[rows.start : rows.stop], found, strict=True):
                digest.update(repr((name, *mark, next(labels))).encode())
        return digest.hexdigest()

    @cached_property
    def parts(self) -> Parts:
        return Parts(*map(self._decoded, split(self.names, self.share)))

    def _decoded(self, rows: list[int]) -> Decoded:
        names, labels = self.names, self.classes.labels
        fit: Fit = Alike(self.spec.size) if self.size is None else Cropped(self.size, self.smallest or self.size)
        own = [labels[row] for row in rows] if labels else []
        return Decoded(self.files, [names[row] for row in rows], own, self.spec, fit)
