"""A data set held in memory; batches are gathered and mirrored on the device where it lies."""

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from smallbatch.data.images import to_float
from smallbatch.data.stream import Stream
from smallbatch.notation import Batch, Condition, Labels, Mask, Pixels


@dataclass(frozen=True)
class Store:
    """Every image and, where the set has classes, its label."""

    pixels: Pixels
    labels: Labels | None

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device: torch.device | str) -> "Store":
        return Store(self.pixels.to(device), None if self.labels is None else self.labels.to(device))

    def take(self, indices: Int[Tensor, " n"]) -> "Store":
        at = indices.to(self.pixels.device)
        return Store(self.pixels[at], None if self.labels is None else self.labels[at])

    def mirrored(self, flips: Mask) -> "Store":
        where = flips.to(self.pixels.device)[:, None, None, None]
        return Store(torch.where(where, self.pixels.flip(3), self.pixels), self.labels)

    @property
    def batch(self) -> Batch:
        return Batch(to_float(self.pixels), Condition(label=self.labels))

    @property
    def digest(self) -> str:
        """The same for the same images and labels in the same order."""
        whole = self.to("cpu")
        labels = None if whole.labels is None else whole.labels.tolist()
        digest = hashlib.blake2b(f"{tuple(whole.pixels.shape)} {labels}".encode(), digest_size=16)
        digest.update(whole.pixels.numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class StreamedStore(Dataset[Batch]):
    """What a DataLoader reads: the training batch at the given positions of the stream."""

    store: Store
    stream: Stream

    def __getitem__(self, rows: range) -> Batch:
        indices, flips = self.stream[rows]
        return self.store.take(indices).mirrored(flips).batch
