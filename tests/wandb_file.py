"""Reads what wandb writes into a run folder: a log of records, in LevelDB's format."""

import json
import struct

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32768, struct.Struct("<IHB")  # checksum, length, kind
WHOLE, LAST = 1, 4


def records(folder):
    """Of one start: a folder wandb/offline-run-..."""
    (file,) = folder.glob("*.wandb")
    data, at, parts = file.read_bytes(), 7, b""  # the file's own header is 7 bytes
    while at + HEADER.size <= len(data):
        left = BLOCK - at % BLOCK
        _, length, kind = HEADER.unpack_from(data, at)
        if left < HEADER.size or kind == 0:  # the rest of the block is empty
            at += left
            continue
        parts += data[at + HEADER.size : at + HEADER.size + length]
        at += HEADER.size + length
        if kind in (WHOLE, LAST):
            yield Record.FromString(parts)
            parts = b""


def run(folder):
    (found,) = (record.run for record in records(folder) if record.HasField("run"))
    return found


def config(folder):
    """What is known at the start, and what is told later."""
    updates = [record.config.update for record in records(folder) if record.HasField("config")]
    return {item.key: json.loads(item.value_json) for update in updates for item in update}


def history(folder):
    """A dictionary a call of `log`; of a picture, one of the things known of it."""
    return [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in records(folder)
        if record.HasField("history")
    ]


def x_axes(folder):
    """The metric against which each one is drawn, by name or pattern."""
    metrics = [record.metric for record in records(folder) if record.HasField("metric")]
    return {metric.name or metric.glob_name: metric.step_metric for metric in metrics}
