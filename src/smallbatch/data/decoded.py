"""Image files as rows, decoded when they are taken."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from smallbatch.data.decode import decode, extent_of, said, shrink
from smallbatch.data.files import Files
from smallbatch.data.reading import chunks, refuse
from smallbatch.data.store import Source, Store
from smallbatch.errors import UserError
from smallbatch.notation import ImageSpec

Extent = tuple[int, int]  # width and height


class Fit(ABC):
    """How images of any extent become squares of `size` pixels."""

    size: int

    @abstractmethod
    def check(self, extent: Extent, name: str) -> None:
        """Refuses an image by its width and height."""

    def __call__(self, image: Image.Image, name: str) -> Image.Image:
        self.check(image.size, name)
        return shrink(image, self.size)


@dataclass(frozen=True)
class Cropped(Fit):
    """The middle, resized as ADM does. A side below `smallest` is refused; from there to `size` it is enlarged."""

    size: int
    smallest: int

    def check(self, extent: Extent, name: str) -> None:
        if min(extent) < self.smallest:
            raise UserError(
                f"{name} is {said(extent)}, smaller than {self.smallest}: lower data.size, remove it, "
                f"or enlarge such images with data.smallest={min(extent)}"
            )


@dataclass(frozen=True)
class Alike(Fit):
    """For a size that was read off the first image."""

    size: int

    def check(self, extent: Extent, name: str) -> None:
        if extent != (self.size, self.size):
            raise UserError(f"{name} is {said(extent)}, the first image {self.size}x{self.size}: set data.size")


@dataclass(frozen=True)
class Decoded(Source):
    """The files `names`; `labels` has one each, or is empty."""

    files: Files
    names: list[str]
    labels: list[int]
    spec: ImageSpec
    fit: Fit

    def __len__(self) -> int:
        return len(self.names)

    def take(self, indices: Int[Tensor, " n"]) -> Store:
        rows = indices.tolist()
        pixels = np.empty((len(rows), self.spec.size, self.spec.size, self.spec.channels), np.uint8)
        for at, row in enumerate(rows):
            name = self.names[row]
            image = self.fit(decode(self.files, name, self.spec.channels), name)
            pixels[at] = np.asarray(image).reshape(pixels.shape[1:])
        labels = torch.tensor([self.labels[row] for row in rows]) if self.labels else None
        return Store(torch.from_numpy(pixels).permute(0, 3, 1, 2), labels)  # whoever uses them puts channels first

    def check(self) -> None:
        """By the head of every file, which says what and how large it is; its pixels may still be damaged."""

        def look(rows: range) -> None:
            for name in self.names[rows.start : rows.stop]:
                self.fit.check(extent_of(self.files, name), name)

        problems = [p for chunk in chunks(look, 0, len(self), "looking at images") for p in chunk.problems]
        refuse(problems, len(self))
