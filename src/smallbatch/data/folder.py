"""Your own images, from a folder or a zip, held in memory."""

import hashlib
from functools import cached_property

import torch

from smallbatch.data.classes import Classes, find_classes
from smallbatch.data.decode import alike, decode, extent, load, shrunk
from smallbatch.data.files import Files, open_files
from smallbatch.data.module import ImageData
from smallbatch.data.store import Store
from smallbatch.errors import UserError
from smallbatch.notation import ImageSpec
from smallbatch.randomness import key

MEMORY = 8 * 2**30  # bytes


def held_out_rows(names: list[str], share: float) -> list[int]:
    """Chosen by each name's hash, so that images added later leave the choice as it is; never none."""
    draws = [key("held out", name) / 2**63 for name in names]
    return [row for row, draw in enumerate(draws) if draw < share] or [draws.index(min(draws))]


class Images(ImageData):
    """Class folders, flat, or EDM's dataset.json. `size` None takes that of the images, if all share it."""

    def __init__(
        self,
        path: str,
        batch: int,
        seed: int,
        size: int | None,
        channels: int = 3,
        flip: bool = True,
        held_out: float = 0.01,
    ):
        super().__init__(batch, seed, flip)
        if not isinstance(path, str):
            raise UserError(f"data.path={path}: give a folder or a zip of images")
        if size is not None and (not isinstance(size, int) or size < 1):
            raise UserError(f"data.size={size} must be a whole number, at least 1, or null for the size of the images")
        if channels not in (1, 3):
            raise UserError(f"data.channels={channels} must be 1 (grey) or 3 (colour)")
        if not 0 < held_out < 1:
            raise UserError(f"data.held_out={held_out} must lie between 0 and 1: neither part may be empty")
        self.path, self.size, self.channels, self.share = path, size, channels, held_out

    @cached_property
    def files(self) -> Files:
        return open_files(self.path)

    @cached_property
    def classes(self) -> Classes:
        return find_classes(self.files)

    @property
    def class_names(self) -> list[str]:
        return self.classes.names

    @cached_property
    def spec(self) -> ImageSpec:
        spec = ImageSpec(self.channels, self.size or self.first_size, len(self.class_names))
        count = len(self.files.images)
        needed = count * spec.channels * spec.size**2
        if needed > MEMORY:
            raise UserError(
                f"{count} images at data.size={spec.size} need {needed / 2**30:.1f} GiB, more than 8: "
                "lower data.size (larger sets will come through a packed store, not available yet)"
            )
        return spec

    @cached_property
    def first_size(self) -> int:
        name = self.files.images[0]
        image = decode(self.files, name, self.channels)
        if image.width != image.height:
            raise UserError(f"{name} is {extent(image)}, not square: set data.size to crop the images")
        return image.width

    @cached_property
    def fingerprint(self) -> str:
        """Of every image's name, checksum, length and class; a zip lists them, a folder is read for them."""
        digest = hashlib.blake2b(repr(self.class_names).encode(), digest_size=16)
        labels = self.classes.labels or [-1] * len(self.files.images)
        for name, label in zip(self.files.images, labels, strict=True):
            digest.update(repr((name, *self.files.mark(name), label)).encode())
        return digest.hexdigest()

    @cached_property
    def rows(self) -> tuple[list[int], list[int]]:
        """Of the training part and of the held-out part."""
        names = self.files.images
        held_out = held_out_rows(names, self.share)
        train = sorted(set(range(len(names))) - set(held_out))
        if not train:
            raise UserError(f"data.held_out={self.share} leaves none of {len(names)} images to train on")
        return train, held_out

    @cached_property
    def train_store(self) -> Store:
        return self._store(self.rows[0])

    @cached_property
    def held_out_store(self) -> Store:
        return self._store(self.rows[1])

    def _store(self, rows: list[int]) -> Store:
        fit = alike if self.size is None else shrunk
        pixels = load(self.files, [self.files.images[row] for row in rows], self.spec, fit)
        labels = self.classes.labels
        return Store(pixels, torch.tensor([labels[row] for row in rows]) if labels else None)
