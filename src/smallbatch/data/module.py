"""What training, validation and metrics may ask of a data set."""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import NamedTuple

import lightning as L
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader

from smallbatch.data.captioned import Captioned
from smallbatch.data.images import shrunk
from smallbatch.data.reading import deaf, processes, read
from smallbatch.data.store import Source, Store, Streamed, size_in_bytes
from smallbatch.data.stream import Order, Repeated, Stream, Windows
from smallbatch.errors import UserError
from smallbatch.latents.autoencoder import Autoencoder
from smallbatch.notation import Batch, Condition, Image, ImageSpec, Labels
from smallbatch.randomness import generator
from smallbatch.text.encoder import TextEncoder

LABELS_AT_ONCE = 256  # images that are read for their labels
CAPTIONS_LEARNED = 10_000  # of the training part, for a vocabulary


class Parts(NamedTuple):
    """A data set as it comes; image files are not opened yet."""

    train: Source
    held_out: Source


class ImageData(L.LightningDataModule, ABC):
    """A training part read in the order of one endless run, and a held-out part read by index. Leaves read lazily.

    `batch` counts the rows of a whole optimizer step, over all ranks and micro-batches; `per_image` rows in turn are
    one image. A part of at most `memory_gib` GiB is read at the start and lives in memory, on the training device where
    that has room; a larger one is read by `workers` processes while training goes on (None: as many as there are cores
    for this rank, at most 8). With `low_size`, every image comes with itself shrunk to so many pixels a side.
    """

    may_download = True  # False: where somebody else names the path
    text: TextEncoder | None = None  # that hears the captions; None: nobody does
    brings_text = False  # whether its rows come with features of their captions
    autoencoder: Autoencoder | None = None  # whose latents the images are; None: they are pixels

    def __init__(
        self,
        batch: int,
        seed: int,
        flip: bool,
        memory_gib: float = 8.0,
        workers: int | None = None,
        per_image: int = 1,
        low_size: int | None = None,
    ):
        super().__init__()
        if memory_gib < 0 or (workers is not None and workers < 0):
            raise UserError(f"data: {memory_gib=} and {workers=} must be at least 0")
        self.batch, self.seed, self.flip = batch, seed, flip
        if low_size is not None and low_size < 1:
            raise UserError(f"data.{low_size=} must be at least 1, or null for no small images")
        self.memory_gib, self.workers, self.per_image, self.low_size = memory_gib, workers, per_image, low_size

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
    def made_from(self) -> str:
        """The fingerprint of the images themselves, where a store was made of them."""
        return self.fingerprint

    @property
    @abstractmethod
    def parts(self) -> Parts: ...

    @cached_property
    def train_store(self) -> Source:
        return self._with_captions(self.parts.train)

    @cached_property
    def held_out_store(self) -> Source:
        return self._with_captions(self.parts.held_out)

    def tell(self, text: TextEncoder) -> list[str]:
        """From now on every image comes with its caption as `text` hears it; what it does not hear is said in lines.

        To be called before any image is read.
        """
        brought = self.brought(text)
        if brought is not None:
            self.text, self.brings_text = brought, True
            return []
        captions = self.parts.train.captions(torch.arange(min(CAPTIONS_LEARNED, len(self.parts.train))))
        if captions is None:
            raise UserError(
                f"text: {type(self).__name__} has no captions: choose data=captions or data=shapes, or leave text out"
            )
        self.text = text.learned(captions)
        return self.text.misfits(captions)

    def brought(self, text: TextEncoder) -> TextEncoder | None:
        """What `text` makes of the captions, as the rows bring it along; None where they do not."""
        return None

    def _with_captions(self, source: Source) -> Source:
        at_hand = self._at_hand(source)
        return at_hand if self.text is None or self.brings_text else Captioned(at_hand, source, self.text)

    def _at_hand(self, source: Source) -> Source:
        if isinstance(source, Store) or size_in_bytes(source, self.spec) > self.memory_gib * 2**30:
            return source
        return read(source, self.spec)

    @property
    def image_order(self) -> Order:
        """Of the training images; a set that never ends has its own."""
        return Stream(self.seed, len(self.train_store), self.flip)

    @property
    def order(self) -> Order:
        """Of the training rows."""
        return Repeated(self.image_order, self.per_image)

    def held_out(self, indices: Int[Tensor, " n"], device: torch.device | str) -> Batch:
        return self.batch_of(self.held_out_store.take(indices).to(device))

    def around(self, numbers: Int[Tensor, " n"], device: torch.device | str) -> Batch:
        """Held-out images; after the last one the first comes again."""
        return self.held_out(numbers % len(self.held_out_store), device)

    def told(self, numbers: Int[Tensor, " n"]) -> Condition:
        """What a network that enlarges images is told of these samples: of each, what is known of a held-out image."""
        return self.around(numbers, "cpu").condition

    def captions(self, numbers: Int[Tensor, " n"]) -> list[str] | None:
        """Of the same images; None where nobody has said."""
        return self.parts.held_out.captions(numbers % len(self.parts.held_out))

    def labels(self, numbers: Int[Tensor, " n"]) -> Labels | None:
        """Of the same images."""
        parts = [self.told(some).label for some in numbers.split(LABELS_AT_ONCE)]
        return None if parts[0] is None else torch.cat(parts)

    def training(self, indices: Int[Tensor, " n"], device: torch.device | str) -> Batch:
        """Images of the training part as they are, not mirrored."""
        return self.batch_of(self.train_store.take(indices).to(device))

    def pictured(self, x: Image) -> Float[Tensor, "b _ _ _"]:
        """Images of this set's kind as they look: latents become pixels in [-1, 1]."""
        return x if self.autoencoder is None else self.autoencoder.decode(x)

    def batch_of(self, rows: Store) -> Batch:
        """What a network sees and is told of these rows."""
        x0, condition = rows.batch
        if self.low_size is not None:
            condition = condition._replace(image=shrunk(x0, self.low_size))
        if self.text is not None:
            condition = condition._replace(text=self.text.features(condition.text))
        return Batch(x0, condition)

    def setup(self, stage: str) -> None:
        """Reads or looks at both parts, so that an image that cannot be read is refused before training starts."""
        refuse_low_size(self.spec)
        self.train_store.check()
        self.held_out_store.check()

    def train_dataloader(self) -> DataLoader:
        """Continues where the restored optimizer step left the run: no loader state is ever saved."""
        trainer = self.trainer
        windows = Windows(
            self.batch,
            first_step=trainer.global_step,
            rank=trainer.global_rank,
            ranks=trainer.world_size,
            micros=trainer.accumulate_grad_batches,
        )
        source, device = self.train_store, trainer.strategy.root_device
        if isinstance(source, Store) and has_room(device, size_in_bytes(source, self.spec)):
            source, workers = source.to(device), 0
        else:
            workers = min(processes() // trainer.world_size, 8) if self.workers is None else self.workers
        return DataLoader(
            Streamed(source, self.order),
            batch_size=None,
            sampler=windows,
            num_workers=workers,
            multiprocessing_context="fork" if workers else None,  # what is read need not be picklable
            worker_init_fn=deaf,
            pin_memory=workers > 0 and device.type == "cuda",
            generator=generator(self.seed, "loader"),  # else its worker seed comes from the global generator
        )

    def transfer_batch_to_device(self, rows: Store | UserError, device: torch.device, dataloader_idx: int) -> Batch:
        """Bytes travel; the float image is made where it is needed."""
        if isinstance(rows, UserError):
            raise rows
        return self.batch_of(rows.to(device))


def refuse_low_size(spec: ImageSpec) -> None:
    if spec.low_size and (spec.low_size >= spec.size or spec.size % spec.low_size):
        fits = [size for size in range(1, spec.size) if spec.size % size == 0]
        raise UserError(f"data.low_size={spec.low_size} does not divide {spec.size}: use one of {fits}")


def has_room(device: torch.device, needed: int) -> bool:
    """A set may take half of what is free on a GPU; on a CPU it stays where it is."""
    return device.type != "cuda" or 2 * needed <= torch.cuda.mem_get_info(device)[0]
