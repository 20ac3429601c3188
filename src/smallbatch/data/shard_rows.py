"""A row of a sharded store, as LitData keeps it, and a part's list of its shards."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from smallbatch.data.store import Store
from smallbatch.errors import UserError
from smallbatch.files import read_json
from smallbatch.notation import ImageSpec, Text
from smallbatch.text.storage import Storage

Row = dict[str, Any]  # image, label, caption; features of the caption as the storage has them
INDEX = "index.json"
SHARD = re.compile(r"chunk-\d+-\d+\.bin")
PLAIN = re.compile(r"numpy|int|str|no_header_numpy:\d+")  # LitData also knows formats that run what they read
KEYS = {"image", "label", "caption", "features", "mask", "step"}


class Shard(NamedTuple):
    """A file of LitData's."""

    name: str
    bytes: int
    rows: int


def unpacked(rows: Sequence[Row], spec: ImageSpec, storage: Storage | None, where: Path) -> Store:
    """Refuses rows of another shape than store.json says: they come from elsewhere."""
    shape, dtype = (spec.channels, spec.size, spec.size), np.dtype(np.float16 if spec.latents else np.uint8)
    for row in rows:
        image, label = row.get("image"), row.get("label")
        if not isinstance(image, np.ndarray) or (image.shape, image.dtype) != (shape, dtype):
            raise UserError(
                f"{where} holds an image that is not {dtype} of {shape}, as store.json says: prepare it again"
            )
        if type(label) is not int or not -1 <= label < spec.classes or (label < 0 < spec.classes):
            raise UserError(f"{where} has the label {label}, store.json names {spec.classes} classes: prepare it again")
    images = torch.from_numpy(np.stack([row["image"] for row in rows]))
    labels = torch.tensor([row["label"] for row in rows]) if spec.classes else None
    return Store(images, labels, None if storage is None else features(rows, storage, where))


def features(rows: Sequence[Row], storage: Storage, where: Path) -> Text:
    try:
        return storage.unpack({name: np.stack([row[name] for row in rows]) for name in storage.arrays})
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"{where} holds other text features than store.json says ({error!r}): prepare it again"
        ) from None


def check_list(folder: Path, count: int) -> list[Shard]:
    """The shards of a part, if LitData may read them: rows of plain values, in files beside their list."""
    try:
        index = read_json(folder / INDEX)
        config, shards = (
            index["config"],
            [Shard(one["filename"], one["chunk_bytes"], one["chunk_size"]) for one in index["chunks"]],
        )
        odd = [one for one in config["data_format"] if not PLAIN.fullmatch(one)]
        odd += [f"{key}={config[key]}" for key in ("compression", "encryption") if config[key] is not None]
        odd += [one.name for one in shards if not SHARD.fullmatch(one.name)]
        odd += [] if is_row(config["data_spec"]) else [config["data_spec"]]
        if odd or config["item_loader"] != "PyTreeLoader":
            raise ValueError(f"{odd or config['item_loader']} is nothing that `smallbatch prepare` writes")
        if sum(one.rows for one in shards) != count:
            raise ValueError(f"its shards do not hold {count} rows")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / INDEX} cannot be read ({error}): copy or prepare the store again") from None
    return shards


def is_row(spec: str) -> bool:
    """Whether it describes one dictionary of plain values, not what some class of a module makes of them."""
    _, tree = json.loads(spec)
    leaves = all(part["type"] is None and not part["children_spec"] for part in tree["children_spec"])
    return tree["type"] == "builtins.dict" and leaves and {*json.loads(tree["context"])} <= KEYS


def check_files(folder: Path, shards: Sequence[Shard]) -> None:
    for shard in shards:
        path = folder / shard.name
        if not path.is_file() or path.stat().st_size != shard.bytes:
            raise UserError(f"{path} is missing or cut short: copy or prepare the store again")
