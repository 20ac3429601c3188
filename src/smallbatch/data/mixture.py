"""Several data sets as one, each with its share of the training images: real and made ones, for instance."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from smallbatch.data.module import ImageData, Parts
from smallbatch.data.shares import Shared, quotas
from smallbatch.data.store import Source, Store
from smallbatch.data.stream import Order
from smallbatch.errors import UserError
from smallbatch.latents.autoencoder import Autoencoder
from smallbatch.notation import ImageSpec, Text
from smallbatch.text.encoder import TextEncoder


@dataclass(frozen=True)
class Joined(Source):
    """The rows of the first part, then those of the next. `labelled`: labels mean the same in all of them."""

    parts: list[Source]
    labelled: bool

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def each(self, indices: Int[Tensor, " n"]) -> list[tuple[Source, Tensor, Tensor]]:
        """The parts that hold some of these rows: which places of `indices`, and their rows in the part."""
        ends = torch.tensor(np.cumsum([len(part) for part in self.parts]))
        of = torch.searchsorted(ends, indices, right=True)
        firsts = ends - torch.tensor([len(part) for part in self.parts])
        places = [(of == number).nonzero().flatten() for number in range(len(self.parts))]
        found = zip(self.parts, places, firsts.tolist(), strict=True)
        return [(part, at, indices[at] - first) for part, at, first in found if len(at)]

    def take(self, indices: Int[Tensor, " n"]) -> Store:
        found = [(at, part.take(rows)) for part, at, rows in self.each(indices)]
        back = torch.cat([at for at, _ in found]).argsort()
        return joined([store for _, store in found], self.labelled).take(back)

    def captions(self, indices: Int[Tensor, " n"]) -> list[str] | None:
        said: list[str | None] = [None] * len(indices)
        for part, at, rows in self.each(indices):
            captions = part.captions(rows)
            if captions is None:
                return None
            for place, caption in zip(at.tolist(), captions, strict=True):
                said[place] = caption
        return said

    def check(self) -> None:
        for part in self.parts:
            part.check()

    def check_captions(self) -> None:
        for part in self.parts:
            part.check_captions()


def joined(stores: Sequence[Store], labelled: bool) -> Store:
    labels = torch.cat([store.labels for store in stores]) if labelled else None
    texts = [store.text for store in stores]
    text = None if texts[0] is None else Text(*map(torch.cat, zip(*texts, strict=True)))
    return Store(torch.cat([store.pixels for store in stores]), labels, text)


class Mixture(ImageData):
    """`weights` are shares of the training images by the name of the set; of every 1,000 images each has its share.

    A set that is smaller than its share comes round more often. Held-out images are those of all sets, one set after
    the other. Labels count where all sets have the same classes.
    """

    def __init__(
        self,
        sets: Mapping[str, ImageData],
        weights: Mapping[str, float],
        batch: int,
        seed: int,
        memory_gib: float = 8.0,
        workers: int | None = None,
        per_image: int = 1,
        low_size: int | None = None,
    ):
        super().__init__(batch, seed, False, memory_gib, workers, per_image, low_size)
        if not sets or sets.keys() != weights.keys():
            raise UserError(f"data.weights of {[*weights]} and data.sets of {[*sets]} must name the same sets")
        self.sets, self.counts = sets, quotas([weights[name] for name in sets])

    @cached_property
    def spec(self) -> ImageSpec:
        specs = {name: data.spec for name, data in self.sets.items()}
        (first, spec), *others = specs.items()
        for name, other in others:
            if (other.size, other.channels) != (spec.size, spec.channels):
                raise UserError(
                    f"data.sets.{name} has {other.channels}x{other.size}x{other.size} images, {first} "
                    f"{spec.channels}x{spec.size}x{spec.size}: give both the same data.sets.NAME.size"
                )
        text, latents = self.text and self.text.spec, self.autoencoder is not None
        return ImageSpec(spec.channels, spec.size, len(self.class_names), self.low_size, text, latents)

    @cached_property
    def autoencoder(self) -> Autoencoder | None:
        described = [data.autoencoder and data.autoencoder.described() for data in self.sets.values()]
        if any(one != described[0] for one in described):
            raise UserError(f"data.sets of {[*self.sets]} are not latents of the same autoencoder: {described}")
        return next(iter(self.sets.values())).autoencoder

    def brought(self, text: TextEncoder) -> TextEncoder | None:
        """By all sets alike, or by none."""
        first, *others = (data.brought(text) for data in self.sets.values())
        if any((one and one.described()) != (first and first.described()) for one in others):
            raise UserError(f"data.sets of {[*self.sets]} do not all bring the same text features: prepare them alike")
        if first is not None:
            for data in self.sets.values():
                data.tell(text)
        return first

    def _at_hand(self, source: Joined) -> Source:
        if not (self.spec.latents or self.brings_text):
            return super()._at_hand(source)
        parts = zip(self.sets.values(), source.parts, strict=True)
        return Joined([data._at_hand(part) for data, part in parts], source.labelled)

    @cached_property
    def class_names(self) -> list[str]:
        first, *others = (data.class_names for data in self.sets.values())
        return first if all(other == first for other in others) else []

    @cached_property
    def fingerprint(self) -> str:
        marks = [(name, data.fingerprint) for name, data in self.sets.items()]
        return hashlib.blake2b(repr(marks).encode(), digest_size=16).hexdigest()

    @cached_property
    def parts(self) -> Parts:
        found = zip(*(data.parts for data in self.sets.values()), strict=True)
        return Parts(*(Joined([*parts], bool(self.class_names)) for parts in found))

    @property
    def image_order(self) -> Order:
        lengths = [len(data.parts.train) for data in self.sets.values()]
        firsts = [sum(lengths[:number]) for number in range(len(lengths))]
        return Shared(self.seed, self.counts, [data.image_order for data in self.sets.values()], firsts)
