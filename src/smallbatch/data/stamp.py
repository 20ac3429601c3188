"""store.json, which says of a store how it was made and what it holds."""

from pathlib import Path
from typing import Any

from smallbatch.believed import believed
from smallbatch.errors import UserError
from smallbatch.files import read_json
from smallbatch.notation import ImageSpec
from smallbatch.text.storage import STORAGES

STAMP = "store.json"
ARRAYS, SHARDS = 1, 2  # formats
READ_BY = {ARRAYS: "data=store", SHARDS: "data=shards"}
COUNTS = ("train", "held_out")
HOLDS = {"spec": dict, "class_names": list, "counts": dict, "made_with": dict, "made_from": str}
MORE = {
    ARRAYS: {"digest": str},
    SHARDS: {"latents": dict | None, "text": dict | None, "storage": str | None, "captions": bool, "rows": int},
}


def read_stamp(folder: Path, format: int) -> dict[str, Any]:
    """Of a store of this format; any other is refused."""
    if not (folder / STAMP).is_file():
        raise UserError(f"{folder} is no store: make one with `smallbatch prepare data=... out={folder}`")
    try:
        stamp = read_json(folder / STAMP)
        refuse_other_format(folder, stamp["format"], format)
        kinds = HOLDS | MORE[format]
        odd = [f"{name}={stamp[name]}" for name, kind in kinds.items() if not isinstance(stamp[name], kind)]
        odd += [] if believed(ImageSpec(**stamp["spec"])).text is None else ["spec.text"]
        odd += [f"counts.{name}" for name in COUNTS if not is_count(stamp["counts"][name])]
        odd += odd_shards(stamp) if format == SHARDS and not odd else []
        if odd:
            raise ValueError(*odd)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / STAMP} cannot be read ({error!r}): prepare the store again") from None
    return stamp


def is_count(number: Any) -> bool:
    return type(number) is int and number > 0


def odd_shards(stamp: dict[str, Any]) -> list[str]:
    """What does not go together."""
    latents, heard = stamp["latents"] is not None, stamp["text"] is not None
    odd = [] if is_count(stamp["rows"]) else [f"rows={stamp['rows']}"]
    odd += [] if latents == stamp["spec"].get("latents", False) else [f"latents={stamp['latents']}"]
    fits = heard == (stamp["storage"] in STORAGES) and stamp["captions"] >= heard
    return odd if fits else [*odd, f"storage={stamp['storage']}"]


def refuse_other_format(folder: Path, found: Any, wanted: int) -> None:
    if found == wanted:
        return
    if found in READ_BY:
        raise UserError(f"{folder} is read by {READ_BY[found]}, not {READ_BY[wanted]}")
    raise UserError(f"{folder} has format {found}, this version reads {wanted}: prepare the store again")
