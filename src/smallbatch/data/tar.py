"""Files in WebDataset's shards: one tar, or a folder of them, read in place by where each file begins."""

import io
import os
import tarfile
import zlib
from functools import cached_property
from io import BufferedIOBase
from pathlib import Path
from typing import NamedTuple

from smallbatch.data.files import Files, Mark, is_outside
from smallbatch.errors import UserError


class Place(NamedTuple):
    shard: Path
    start: int  # bytes from its beginning
    size: int


class Tars(Files):
    """Names are SHARD.tar/NAME. Only plain files count; a shard is read from its beginning once, to list it."""

    @cached_property
    def shards(self) -> list[Path]:
        return [self.path] if self.path.is_file() else sorted(self.path.glob("*.tar"))

    @cached_property
    def places(self) -> dict[str, Place]:
        return {f"{shard.name}/{name}": place for shard in self.shards for name, place in self.listed(shard)}

    def listed(self, shard: Path) -> list[tuple[str, Place]]:
        try:
            with tarfile.open(shard, "r:") as tar:
                found = [(one.name, Place(shard, one.offset_data, one.size)) for one in tar if one.isreg()]
        except (tarfile.TarError, OSError) as error:
            raise UserError(f"{self.setting}: {shard} is no whole, uncompressed tar: make it again ({error})") from None
        for name, place in found:
            if is_outside(name):
                raise UserError(f"{self.setting}: {shard} names {name!r}, outside of it: pack it again")
            self.refuse_if_larger(name, place.size)
        return found

    @cached_property
    def names(self) -> set[str]:
        return {*self.places}

    def open(self, name: str) -> BufferedIOBase:
        place = self.places[name]
        with open(place.shard, "rb") as file:
            content = os.pread(file.fileno(), place.size, place.start)
        if len(content) < place.size:
            raise UserError(f"{self.setting}: {place.shard} is cut short at {name}: copy it again")
        return io.BytesIO(content)

    def mark(self, name: str) -> Mark:
        content = self.read(name)
        return Mark(zlib.crc32(content), len(content))


def holds_shards(path: Path) -> bool:
    """Whether it is a tar, or a folder of tars."""
    return path.suffix == ".tar" or (path.is_dir() and any(path.glob("*.tar")))
