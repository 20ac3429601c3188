"""Shards as LitData writes them, each of which is there as a whole or not at all, and their list."""

import os
import shutil
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from smallbatch.data.shard_list import INDEX
from smallbatch.data.shard_rows import Row
from smallbatch.data.store import Source
from smallbatch.files import refuse_if_full, sync


def units(source: Source, rows: int) -> list[range]:
    """The rows of every shard."""
    return [range(first, min(first + rows, len(source))) for first in range(0, len(source), rows)]


def done(folder: Path, number: int) -> Path:
    """LitData's list of one writer's shards; here of one shard."""
    return folder / f"{number}.{INDEX}"


def write(folder: Path, number: int, found: Iterator[Row], count: int, rows: int) -> None:
    """A shard of `count` rows, then its list: with that it is done. Nothing, where fewer are found.

    `rows`: of most shards.
    """
    from litdata.streaming.writer import BinaryWriter  # takes seconds
    from litdata.types import Text  # of a plain string, LitData would read the file that has this name

    partial = folder / f".partial.{number}"
    shutil.rmtree(partial, ignore_errors=True)
    os.environ["DATA_OPTIMIZER_GLOBAL_RANK"] = str(number)  # how LitData tells its writers apart
    try:
        with redirect_stdout(StringIO()):  # it says which formats it found
            writer, written = BinaryWriter(str(partial), chunk_size=rows), 0
            for row in found:
                writer.add_item(written, row | {"caption": Text(text=row["caption"])})
                written += 1
            if written == count:
                writer.done()
    except OSError as error:
        refuse_if_full(partial / f"chunk-{number}-0.bin", 0, error)
        raise
    finally:
        del os.environ["DATA_OPTIMIZER_GLOBAL_RANK"]
    for name in sorted((path.name for path in partial.iterdir()), key=lambda name: name.endswith(INDEX)):
        sync(partial / name)
        (partial / name).replace(folder / name)
        sync(folder)
    partial.rmdir()


def merge(folder: Path) -> None:
    """One list of all shards, in the order of the rows. LitData removes those that it reads: it is given copies."""
    from litdata.streaming.writer import BinaryWriter

    partial, lists = folder / ".partial.merged", [*folder.glob(f"*.{INDEX}")]
    shutil.rmtree(partial, ignore_errors=True)
    if not (folder / INDEX).exists():
        partial.mkdir()
        for one in lists:
            shutil.copy(one, partial)
        BinaryWriter(str(partial), chunk_size=1)._merge_no_wait()  # `merge` waits for as many lists as processes train
        sync(partial / INDEX)
        (partial / INDEX).replace(folder / INDEX)
        sync(folder)
        partial.rmdir()
    for one in lists:
        one.unlink()
