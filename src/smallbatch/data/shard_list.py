"""A part's list of its shards, as LitData writes it, and whether they are there."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from smallbatch.errors import UserError
from smallbatch.files import read_json

INDEX = "index.json"
SHARD = re.compile(r"chunk-\d+-\d+\.bin", re.ASCII)
PLAIN = re.compile(r"numpy|int|str|text|no_header_numpy:\d+", re.ASCII)  # other formats may run what they read
KEYS = {"image", "label", "caption", "features", "mask", "step"}
NOT_USED = ("compression", "compression_level", "encryption", "format")


class Shard(NamedTuple):
    """A file of LitData's."""

    name: str
    bytes: int
    rows: int


def need_litdata() -> None:
    try:
        import litdata  # noqa: F401  takes seconds
    except ImportError as error:
        raise UserError(f"shards need their package ({error}): pip install 'smallbatch[latents]'") from None


def check_list(folder: Path, count: int) -> list[Shard]:
    """The shards of a part, if LitData may read them: rows of plain values, in files beside their list."""
    try:
        index = read_json(folder / INDEX)
        config = index["config"]
        shards = [Shard(one["filename"], one["chunk_bytes"], one["chunk_size"]) for one in index["chunks"]]
        odd = [one for one in config["data_format"] if not PLAIN.fullmatch(one)]
        odd += [f"{key}={config[key]}" for key in NOT_USED if config.get(key) is not None]
        odd += [one for one in shards if not is_shard(one)]
        odd += [] if is_row(config["data_spec"], len(config["data_format"])) else [config["data_spec"]]
        odd += [] if config["item_loader"] == "PyTreeLoader" else [config["item_loader"]]
        if odd:
            raise ValueError(f"{odd[0]} is nothing that `smallbatch prepare` writes")
        if sum(one.rows for one in shards) != count:
            raise ValueError(f"its shards do not hold {count} rows")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{folder / INDEX} cannot be read ({error}): copy or prepare the store again") from None
    return shards


def is_shard(one: Shard) -> bool:
    """Every row takes some bytes."""
    named = isinstance(one.name, str) and SHARD.fullmatch(one.name)
    return bool(named) and type(one.bytes) is type(one.rows) is int and 0 < 4 * one.rows < one.bytes


def is_row(spec: str, leaves: int) -> bool:
    """Whether it describes one dictionary of plain values, not what some class of a module makes of them."""
    _, tree = json.loads(spec)
    keys: list[Any] = json.loads(tree["context"])
    plain = all(part["type"] is None and not part["children_spec"] for part in tree["children_spec"])
    fits = len(keys) == len(tree["children_spec"]) == leaves
    return tree["type"] == "builtins.dict" and plain and fits and {*keys} <= KEYS


def check_files(folder: Path, shards: Sequence[Shard]) -> None:
    for shard in shards:
        path = folder / shard.name
        if not path.is_file() or path.stat().st_size != shard.bytes:
            raise UserError(f"{path} is missing or cut short: copy or prepare the store again")
