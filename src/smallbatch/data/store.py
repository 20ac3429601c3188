"""Images and labels by row: held in memory, mapped from a file, or made when they are asked for."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from smallbatch.data.images import to_float
from smallbatch.data.stream import Order
from smallbatch.errors import UserError
from smallbatch.notation import Batch, Condition, ImageSpec, Labels, Latents, Mask, Pixels, Text


class Source(ABC):
    """Rows that can be taken in any order, as often as one likes."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, indices: Int[Tensor, " n"]) -> "Store": ...

    def captions(self, indices: Int[Tensor, " n"]) -> list[str] | None:
        """What each of these rows shows, in words; None where nobody has said."""
        return None

    def check_captions(self) -> None:
        """Refuses what could not be said; where captions follow from the rows, the first is as good as all."""
        self.captions(torch.arange(min(1, len(self))))

    @abstractmethod
    def check(self) -> None:
        """Refuses, as cheaply as it can be found out, what could not be taken."""


@dataclass(frozen=True)
class Store(Source):
    """Every image with its label and its text, where there are any. Batches are gathered where the pixels lie."""

    pixels: Pixels | Latents
    labels: Labels | None
    text: Text | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, indices: Int[Tensor, " n"]) -> "Store":
        at = indices.to(self.pixels.device, non_blocking=True)  # a blocking copy would wait for the step before
        return self._each(lambda part: part[at])

    def check(self) -> None:
        """Every image was read already."""

    def to(self, device: torch.device | str) -> "Store":
        return self._each(lambda part: part.to(device, non_blocking=True))

    def pin_memory(self) -> "Store":
        return self._each(torch.Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Store":
        labels = None if self.labels is None else change(self.labels)
        return Store(change(self.pixels), labels, None if self.text is None else Text(*map(change, self.text)))

    def mirrored(self, flips: Mask) -> "Store":
        where = flips.to(self.pixels.device, non_blocking=True)[:, None, None, None]
        return replace(self, pixels=torch.where(where, self.pixels.flip(3), self.pixels))

    @property
    def batch(self) -> Batch:
        return Batch(to_float(self.pixels).contiguous(), Condition(label=self.labels, text=self.text))


@dataclass(frozen=True)
class Streamed(Dataset[Store | UserError]):
    """What a DataLoader reads: the training rows at the given positions of the run.

    An error is handed over, not raised: a process that reads data would wrap it in its traceback.
    """

    source: Source
    order: Order

    def __getitem__(self, rows: range) -> Store | UserError:
        indices, flips = self.order[rows]
        once, where = indices.unique_consecutive(return_inverse=True)  # an image of several rows is read once
        try:
            taken = self.source.take(once)
            return (taken.take(where) if len(once) < len(indices) else taken).mirrored(flips)
        except UserError as error:
            return error


def size_in_bytes(source: Source, spec: ImageSpec) -> int:
    return len(source) * spec.channels * spec.size**2


def digest(*stores: Store) -> str:
    """The same for the same images and labels in the same order."""
    total = hashlib.blake2b(digest_size=16)
    for store in stores:
        labels = None if store.labels is None else store.labels.tolist()
        total.update(f"{tuple(store.pixels.shape)} {labels}".encode())
        for rows in store.pixels.split(4096):  # so that a mapped file need not fit in memory
            total.update(rows.contiguous().numpy())
    return total.hexdigest()
