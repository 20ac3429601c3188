"""The sharded store: rows of images or latents, captions and text features, streamed through LitData.

STORE/store.json says how it was made; STORE/train and STORE/held_out are data sets of LitData, whose chunks are the
shards. A row is found by its number, so that the order of a run is its own, on however many processes, and no loader
has a state to save.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_type_hints

import torch
from jaxtyping import Int
from torch import Tensor

from smallbatch.data.module import ImageData, Parts
from smallbatch.data.shard_list import check_files
from smallbatch.data.shard_part import opened
from smallbatch.data.shard_rows import Row, caption, unpacked
from smallbatch.data.stamp import SHARDS, STAMP, read_stamp
from smallbatch.data.store import Source, Store
from smallbatch.data.stream import ByShards, Order
from smallbatch.errors import UserError
from smallbatch.latents.autoencoder import Autoencoder
from smallbatch.latents.vae import Vae
from smallbatch.notation import ImageSpec
from smallbatch.text.encoder import TextEncoder, words_for
from smallbatch.text.stored import Stored
from smallbatch.text.words import Words


@dataclass(frozen=True)
class ShardRows(Source):
    """One part. `text`: what its rows bring of their captions; None: nobody hears it."""

    folder: Path
    url: str | None
    count: int
    spec: ImageSpec
    captioned: bool
    text: Stored | None = None

    def __len__(self) -> int:
        return self.count

    def rows(self, indices: Int[Tensor, " n"]) -> Iterator[Row]:
        return opened(self.folder, self.url, self.count, os.getpid()).rows(indices.tolist())

    def take(self, indices: Int[Tensor, " n"]) -> Store:
        return unpacked([*self.rows(indices)], self.spec, self.text, self.folder)

    def captions(self, indices: Int[Tensor, " n"]) -> list[str] | None:
        return [caption(row, self.folder) for row in self.rows(indices)] if self.captioned else None

    def check(self) -> None:
        """By the sizes of the shards and the first row; of what lies elsewhere, by the list of shards alone."""
        part = opened(self.folder, self.url, self.count, os.getpid())
        if self.url is None:
            check_files(self.folder, part.shards)
            self.take(torch.arange(1))


class Shards(ImageData):
    """What `smallbatch prepare` made of images and captions, with an autoencoder's latents or an encoder's features.

    `shards`: where STORE/train and STORE/held_out lie, if not in `path`, as s3://BUCKET/STORE or local:/DIR: what is
    needed of them is copied into `path` as training goes on. Rows are drawn from `window` shards at a time.
    """

    def __init__(
        self,
        path: str,
        batch: int,
        seed: int,
        shards: str | None = None,
        window: int = 32,
        workers: int | None = None,
        per_image: int = 1,
    ):
        super().__init__(batch, seed, flip=False, workers=workers, per_image=per_image)
        if window < 1:
            raise UserError(f"data.{window=} must be at least 1")
        self.path, self.window = Path(path).expanduser(), window
        self.url = shards

    @cached_property
    def stamp(self) -> dict[str, Any]:
        if self.url and not (self.path / STAMP).exists():
            raise UserError(f"data.path={self.path} holds no {STAMP}: copy it there from {self.url}")
        return read_stamp(self.path, SHARDS)

    @property
    def spec(self) -> ImageSpec:
        return ImageSpec(**self.stamp["spec"])._replace(text=self.text and self.text.spec)

    @property
    def class_names(self) -> list[str]:
        return self.stamp["class_names"]

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.stamp)

    @property
    def made_from(self) -> str:
        return self.stamp["made_from"]

    @cached_property
    def autoencoder(self) -> Autoencoder | None:
        """Somebody's stamp may name no more than the model of the one class there is."""
        described = self.stamp["latents"]
        if described is None:
            return None
        try:
            return stated(described)
        except (TypeError, ValueError, UserError) as error:
            raise UserError(f"{self.path}: its autoencoder cannot be read ({error}): prepare the store again") from None

    def brought(self, text: TextEncoder) -> TextEncoder | None:
        """`text` as it comes back from the rows, if they bring features; a vocabulary is heard from the captions."""
        known, storage = self.stamp["text"], self.stamp["storage"]
        asked = text.encoder if isinstance(text, Stored) else text
        if known is None or isinstance(asked, Words):
            return None
        if asked.described() != known:
            raise UserError(f"data.path={self.path} holds features of another text encoder: give {words_for(known)}")
        return Stored(asked, storage)

    @cached_property
    def parts(self) -> Parts:
        return Parts(*(self._part(name, count) for name, count in zip(Parts._fields, self._counts, strict=True)))

    @property
    def _counts(self) -> Sequence[int]:
        return [self.stamp["counts"][name] for name in Parts._fields]

    def _part(self, name: str, count: int) -> ShardRows:
        url = self.url and f"{self.url.rstrip('/')}/{name}"
        return ShardRows(self.path / name, url, count, ImageSpec(**self.stamp["spec"]), self.stamp["captions"])

    def _at_hand(self, source: Source) -> Source:
        """Never read as a whole: what was read lately, the system keeps in memory."""
        return replace(source, text=self.text) if self.brings_text else source

    @property
    def image_order(self) -> Order:
        rows, count = self.stamp["rows"], len(self.train_store)
        return ByShards(self.seed, [min(rows, count - first) for first in range(0, count, rows)], self.window)


def stated(described: dict[str, Any]) -> Vae:
    """TypeError or ValueError where it is none."""
    target, given = described.get("_target_"), {key: one for key, one in described.items() if key != "_target_"}
    if target != f"{Vae.__module__}.{Vae.__name__}":
        raise ValueError(f"_target_={target}")
    hints = get_type_hints(Vae.__init__)
    if odd := [f"{key}={one}" for key, one in given.items() if not isinstance(one, hints.get(key, ()))]:
        raise TypeError(", ".join(odd))
    return Vae(**given)


def fingerprint_of(stamp: dict[str, Any]) -> str:
    """Of what the rows were made from, and how: the same words make the same rows."""
    said = {
        key: stamp[key] for key in ("made_from", "spec", "counts", "latents", "text", "storage", "captions", "rows")
    }
    return hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=16).hexdigest()
