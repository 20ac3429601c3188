"""store.json, which says of a store how it was made and what it holds."""

from pathlib import Path
from typing import Any

from smallbatch.errors import UserError
from smallbatch.files import read_json
from smallbatch.notation import ImageSpec

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
        numbers = [*ImageSpec(**stamp["spec"])[:3], *(stamp["counts"][name] for name in COUNTS)]
        if odd or not all(type(number) is int for number in numbers):
            raise ValueError(*odd, *numbers)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / STAMP} cannot be read ({error!r}): prepare the store again") from None
    return stamp


def refuse_other_format(folder: Path, found: Any, wanted: int) -> None:
    if found == wanted:
        return
    if found in READ_BY:
        raise UserError(f"{folder} is read by {READ_BY[found]}, not {READ_BY[wanted]}")
    raise UserError(f"{folder} has format {found}, this version reads {wanted}: prepare the store again")
