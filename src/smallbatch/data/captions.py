"""Your own images, each with a sentence that says what it shows."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jaxtyping import Int
from torch import Tensor

from smallbatch.data.classes import Classes
from smallbatch.data.decoded import Decoded
from smallbatch.data.files import Files, open_files
from smallbatch.data.folder import Images
from smallbatch.data.reading import chunks, refuse
from smallbatch.data.said import Beside, Said, Table
from smallbatch.data.tar import Tars, holds_shards
from smallbatch.notation import ImageSpec


@dataclass(frozen=True)
class DecodedAndSaid(Decoded):
    said: Said

    def captions(self, indices: Int[Tensor, " n"]) -> list[str]:
        return [self.said(self.names[row]) for row in indices.tolist()]

    def check_captions(self) -> None:
        look = chunks(lambda rows: [self.said(self.names[row]) for row in rows], 0, len(self), "looking at captions")
        refuse([problem for chunk in look for problem in chunk.problems], len(self))


class Captions(Images):
    """A folder, a zip, or WebDataset's tars, of images with .txt or .json files beside them; or with a `table`.

    Folders are no classes. Mirror images only where no caption says what is left and what is right.
    """

    def __init__(
        self,
        path: str,
        batch: int,
        seed: int,
        size: int | None,
        table: str | None = None,
        channels: int = 3,
        flip: bool = False,
        held_out: float = 0.01,
        smallest: int | None = None,
        memory_gib: float = 8.0,
        workers: int | None = None,
        per_image: int = 1,
        low_size: int | None = None,
    ):
        super().__init__(
            path, batch, seed, size, channels, flip, held_out, smallest, memory_gib, workers, per_image, low_size
        )
        self.table = table

    @cached_property
    def files(self) -> Files:
        root = Path(self.path).expanduser()
        return Tars(root, "data.path") if holds_shards(root) else open_files(self.path)

    @cached_property
    def said(self) -> Said:
        return Beside(self.files) if self.table is None else Table(self.files, Path(self.table).expanduser())

    @cached_property
    def names(self) -> list[str]:
        return self.said.images()

    @cached_property
    def classes(self) -> Classes:
        return Classes([], [])

    @property
    def spec(self) -> ImageSpec:
        return super().spec._replace(text=self.text and self.text.spec)

    @cached_property
    def fingerprint(self) -> str:
        """Of the images, and of what is said of them."""
        digest = hashlib.blake2b(super().fingerprint.encode(), digest_size=16)
        look = chunks(lambda rows: [self.said(self.names[row]) for row in rows], 0, len(self.names), "reading captions")
        for rows, captions, _ in look:
            digest.update(repr((rows.start, captions)).encode())
        return digest.hexdigest()

    def _decoded(self, rows: list[int]) -> Decoded:
        plain = super()._decoded(rows)
        return DecodedAndSaid(plain.files, plain.names, plain.labels, plain.spec, plain.fit, self.said)
