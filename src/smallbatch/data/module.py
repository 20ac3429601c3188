"""What training, validation and metrics may ask of a data set."""

from abc import ABC, abstractmethod

import lightning as L
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader

from smallbatch.data.store import Store, StreamedStore
from smallbatch.data.stream import Stream, Windows
from smallbatch.notation import Batch, ImageSpec
from smallbatch.randomness import generator


class ImageData(L.LightningDataModule, ABC):
    """A training part read in the order of one endless stream, and a held-out part read by index.

    `batch` counts the rows of a whole optimizer step, over all ranks and micro-batches. Leaves read lazily.
    """

    def __init__(self, batch: int, seed: int, flip: bool):
        super().__init__()
        self.batch = batch
        self.seed = seed
        self.flip = flip

    @property
    @abstractmethod
    def spec(self) -> ImageSpec: ...

    @property
    @abstractmethod
    def class_names(self) -> list[str]:
        """Empty where the images carry no label."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Differs whenever the images or their labels differ; what the config already says is left out."""

    @property
    @abstractmethod
    def train_store(self) -> Store: ...

    @property
    @abstractmethod
    def held_out_store(self) -> Store: ...

    @property
    def train_length(self) -> int:
        return len(self.train_store)

    @property
    def held_out_length(self) -> int:
        return len(self.held_out_store)

    def held_out(self, indices: Int[Tensor, " n"], device: torch.device | str) -> Batch:
        return self.held_out_store.take(indices).to(device).batch

    def setup(self, stage: str) -> None:
        """Reads both parts, so that an image that cannot be read is refused before training starts."""
        assert len(self.train_store) and len(self.held_out_store)

    def train_dataloader(self) -> DataLoader:
        """Continues where the restored optimizer step left the stream: no loader state is ever saved."""
        trainer = self.trainer
        windows = Windows(
            self.batch,
            first_step=trainer.global_step,
            rank=trainer.global_rank,
            ranks=trainer.world_size,
            micros=trainer.accumulate_grad_batches,
        )
        store = self.train_store.to(trainer.strategy.root_device)
        rows = StreamedStore(store, Stream(self.seed, len(store), self.flip))
        # a loader without a generator would draw its worker seed from the global RNG
        return DataLoader(rows, batch_size=None, sampler=windows, generator=generator(self.seed, "loader"))
