"""Coloured shapes on muted backgrounds, drawn as they are asked for: a colour data set without end or download."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from smallbatch.data.drawing import draw
from smallbatch.data.module import ImageData, Parts
from smallbatch.data.scenes import CLASS_NAMES, VERSION, Scenes, caption, scenes
from smallbatch.data.store import Source, Store
from smallbatch.data.stream import Order, Unrepeated
from smallbatch.errors import UserError
from smallbatch.notation import ImageSpec

ENDLESS = 1 << 40  # scenes to train on; those held out come after them
HELD_OUT = 10_000


@dataclass(frozen=True)
class Drawn(Source):
    """Row i is scene `first` + i."""

    first: int
    length: int
    size: int

    def __len__(self) -> int:
        return self.length

    def scenes(self, indices: Int[Tensor, " n"]) -> Scenes:
        """What these rows show, for their captions."""
        assert ((indices >= 0) & (indices < self.length)).all(), f"rows of {self} asked for: {indices}"
        return scenes(self.first + indices.cpu().numpy())

    def captions(self, indices: Int[Tensor, " n"]) -> list[str]:
        asked = self.scenes(indices)
        return [caption(asked.at(row)) for row in range(len(indices))]

    def take(self, indices: Int[Tensor, " n"]) -> Store:
        asked = self.scenes(indices)
        return Store(torch.from_numpy(draw(asked, self.size)), torch.from_numpy(asked.label))

    def check(self) -> None:
        """Every scene can be drawn."""


class Shapes(ImageData):
    """A class is colour and shape of the larger object. Row j of every run is scene j, whatever the seed."""

    def __init__(
        self,
        batch: int,
        seed: int,
        size: int = 32,
        flip: bool = False,
        workers: int | None = None,
        per_image: int = 1,
        low_size: int | None = None,
    ):
        # drawing is faster than most reading: nothing is kept
        super().__init__(batch, seed, flip, memory_gib=0, workers=workers, per_image=per_image, low_size=low_size)
        if not isinstance(size, int) or size < 16:
            raise UserError(f"data.size={size}: shapes can be told apart from 16 pixels on, e.g. 32")
        if flip:
            raise UserError(f"data.flip={flip}: a mirrored scene would belie its caption: set data.flip=false")
        self.size = size

    @property
    def spec(self) -> ImageSpec:
        return ImageSpec(3, self.size, len(CLASS_NAMES), self.low_size, self.text and self.text.spec)

    @property
    def class_names(self) -> list[str]:
        return CLASS_NAMES

    @property
    def fingerprint(self) -> str:
        return f"shapes, version {VERSION}"

    @property
    def parts(self) -> Parts:
        return Parts(Drawn(0, ENDLESS, self.size), Drawn(ENDLESS, HELD_OUT, self.size))

    @property
    def image_order(self) -> Order:
        return Unrepeated()
