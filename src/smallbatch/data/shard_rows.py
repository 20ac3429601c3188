"""A row of a sharded store, as LitData keeps it, and rows as a batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smallbatch.data.store import Store
from smallbatch.errors import UserError
from smallbatch.notation import ImageSpec, Text
from smallbatch.text.storage import STORAGES
from smallbatch.text.stored import Stored

Row = dict[str, Any]  # image, label, caption; features of the caption as the storage has them


def unpacked(rows: Sequence[Row], spec: ImageSpec, text: Stored | None, where: Path) -> Store:
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
    return Store(images, labels, None if text is None else features(rows, text, where))


def features(rows: Sequence[Row], text: Stored, where: Path) -> Text:
    storage, tokens = STORAGES[text.storage], (len(rows), text.spec.length)
    try:
        value, mask = storage.unpack({name: np.stack([row[name] for row in rows]) for name in storage.arrays})
        if (value.shape, mask.shape, mask.dtype) != ((*tokens, text.spec.width), tokens, torch.bool):
            raise ValueError(f"{mask.dtype} masks and features of {tuple(value.shape[1:])}")
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            f"{where} holds other text features than store.json says ({error!r}): prepare it again"
        ) from None
    return Text(value, mask)


def caption(row: Row, where: Path) -> str:
    if not isinstance(said := row.get("caption"), str):
        raise UserError(f"{where} holds a row without a caption, as store.json promises: prepare it again")
    return said
