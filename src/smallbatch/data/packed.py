"""The packed store: a data set decoded once, in arrays that are mapped into memory instead of read.

STORE/store.json says how it was made; train.npy and held_out.npy hold uint8 pixels (n, c, h, w), and
train_labels.npy and held_out_labels.npy their classes.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smallbatch.data.module import ImageData, Parts
from smallbatch.data.stamp import ARRAYS, STAMP, read_stamp
from smallbatch.data.store import Store
from smallbatch.errors import UserError
from smallbatch.notation import ImageSpec


def mapped(path: Path, shape: tuple[int, ...], dtype: type) -> torch.Tensor:
    """Pages are read when they are used; mode c, as a tensor must not share memory that it may not write to."""
    try:
        if not path.is_file():
            raise OSError("it is no file")
        array = np.lib.format.open_memmap(path, mode="c")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is missing or cut short ({error}): copy or prepare the store again") from None
    if (array.shape, array.dtype) != (shape, dtype):
        raise UserError(
            f"{path} has shape {array.shape} of {array.dtype}, {STAMP} says {shape} of {np.dtype(dtype)}: "
            "copy or prepare the store again"
        )
    return torch.from_numpy(array)


def open_part(folder: Path, name: str, spec: ImageSpec, count: int) -> Store:
    pixels = mapped(folder / f"{name}.npy", (count, spec.channels, spec.size, spec.size), np.uint8)
    if not spec.classes:
        return Store(pixels, None)
    labels = mapped(folder / f"{name}_labels.npy", (count,), np.int64)
    if labels.min() < 0 or labels.max() >= spec.classes:
        raise UserError(
            f"{folder}: {name} has labels from {labels.min()} to {labels.max()}, {STAMP} names {spec.classes} classes: "
            "prepare the store again"
        )
    return Store(pixels, labels)


class Packed(ImageData):
    """What `smallbatch prepare` made. `size`, if given, must be the store's."""

    def __init__(
        self,
        path: str,
        batch: int,
        seed: int,
        size: int | None = None,
        flip: bool = True,
        workers: int | None = None,
        per_image: int = 1,
        low_size: int | None = None,
    ):
        super().__init__(batch, seed, flip, workers=workers, per_image=per_image, low_size=low_size)
        self.path, self.size = Path(path).expanduser(), size

    @cached_property
    def stamp(self) -> dict[str, Any]:
        stamp = read_stamp(self.path, ARRAYS)
        made = stamp["spec"]["size"]
        if self.size not in (None, made):
            raise UserError(
                f"data.path={self.path} was made with data.size={made}, not {self.size}: "
                f"use data.size={made}, or prepare another store"
            )
        return stamp

    @property
    def spec(self) -> ImageSpec:
        return ImageSpec(**self.stamp["spec"])._replace(low_size=self.low_size)

    @property
    def class_names(self) -> list[str]:
        return self.stamp["class_names"]

    @property
    def fingerprint(self) -> str:
        """Of the pixels and labels themselves."""
        return self.stamp["digest"]

    @property
    def made_from(self) -> str:
        return self.stamp["made_from"]

    @cached_property
    def parts(self) -> Parts:
        return Parts(*(open_part(self.path, name, self.spec, self.stamp["counts"][name]) for name in Parts._fields))
