"""One part of a sharded store: rows by number, from shards that are at hand or are copied when first needed.

LitData knows where shards may lie, and what a row is. Which shard is copied when is said here: its own reader gets each
row of a bucket anew, and reads a whole shard for every row of a random order.
"""

import hashlib
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory

from smallbatch.data.shard_list import INDEX, check_files, check_list, need_litdata
from smallbatch.data.shard_rows import Row
from smallbatch.errors import UserError
from smallbatch.files import in_turn, replacing

AT_ONCE = 16  # shards that are copied, by all processes


class Part:
    """`url`: whence shards are copied into `folder`; None: they lie there."""

    def __init__(self, folder: Path, url: str | None, count: int):
        need_litdata()
        from litdata.streaming.config import ChunksConfig
        from litdata.streaming.item_loader import PyTreeLoader
        from litdata.streaming.serializers import _get_serializers

        self.url, self.folder = url, folder if url is None else copies(folder, url)
        self.shards = check_list(self.folder, count)
        self.ends = [*accumulate(shard.rows for shard in self.shards)]
        self.loader = PyTreeLoader()
        self.config = ChunksConfig(str(self.folder), _get_serializers(None), url, self.loader)

    def rows(self, numbers: Sequence[int]) -> Iterator[Row]:
        """One at a time: text features of thousands take gigabytes."""
        for number in numbers:
            yield self._row(number, bisect_right(self.ends, number))

    def _row(self, number: int, shard: int) -> Row:
        at = number - (self.ends[shard] - self.shards[shard].rows)
        path = self._at_hand(shard)
        try:
            with open(path, "rb") as file:  # how many rows; where each begins, and where the last ends; rows
                file.seek(4 * (1 + at))
                first, end = struct.unpack("<II", file.read(8))
                file.seek(first)
                return self.loader.load_item_from_bytes(file.read(max(end - first, 0)), shard)
        except Exception as error:  # whatever LitData makes of a shard that is not as it was written
            raise UserError(f"{path} cannot be read ({said(error)}): copy or prepare the store again") from None

    def _at_hand(self, shard: int) -> Path:
        path = self.folder / self.shards[shard].name
        if self.url is not None and not path.exists():
            self._copy(path, shard)
        return path

    def _copy(self, path: Path, shard: int) -> None:
        """Whole or not at all; of several processes one does, and the others wait."""
        try:
            with in_turn(self.folder / str(shard % AT_ONCE)):
                self.config.download_chunk_from_index(shard, skip_lock=True)
        except Exception as error:
            raise UserError(f"{self.url}/{path.name} cannot be copied ({said(error)})") from None
        check_files(self.folder, [self.shards[shard]])


def copies(folder: Path, url: str) -> Path:
    """Where copies lie, apart for every list that was ever at `url`; with that list."""
    from litdata.streaming.downloader import get_downloader

    try:
        with TemporaryDirectory() as fresh:
            found = Path(fresh) / INDEX
            get_downloader(url, fresh, []).download_file(f"{url}/{INDEX}", str(found))
            content = found.read_bytes()
    except Exception as error:  # of the many storages that LitData knows, each has its own
        raise UserError(f"{url} cannot be opened ({said(error)}): does it hold {INDEX}?") from None
    own = folder / hashlib.blake2b(content, digest_size=8).hexdigest()
    with in_turn(own / INDEX):
        if not (own / INDEX).exists():
            with replacing(own / INDEX) as partial:
                partial.write_bytes(content)
    return own


@lru_cache(maxsize=16)
def opened(folder: Path, url: str | None, count: int, process: int) -> Part:
    """Each process opens its own: a fork inherits no connection."""
    return Part(folder, url, count)


def said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
