"""A store is a folder that appears whole or not at all: until then, what is done of it lies in a folder beside it."""

import json
import shutil
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from smallbatch.data.reading import refuse
from smallbatch.data.stamp import STAMP, read_stamp
from smallbatch.errors import UserError
from smallbatch.files import free_bytes, replacing, sync

BEGUN = "begun.json"  # what an unfinished store will be


def there(out: Path, wanted: dict[str, Any]) -> bool:
    """Whether this very store is there already; refuses anything else under its name."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not (out / STAMP).exists():
        raise UserError(f"out={out} is there already, and no store: remove it, or choose another out")
    old, new = (settings(stamp) for stamp in (read_stamp(out, wanted["format"]), wanted))
    odd = [f"{key}={old.get(key)}, not {new.get(key)}" for key in {**old, **new} if old.get(key) != new.get(key)]
    if odd:
        raise UserError(f"out={out} was made with {'; '.join(odd)}: remove it, or choose another out")
    return True


def settings(stamp: dict[str, Any]) -> dict[str, Any]:
    """By the names that users give them: of what a store was made, and how."""
    made = {f"data.{key}": value for key, value in stamp["made_with"].items()} | {"data.images": stamp["made_from"]}
    for part in ("latents", "text"):
        made |= {f"{part}.{key}": value for key, value in (stamp.get(part) or {}).items()}
    return made | {"storage": stamp.get("storage")}


def begin(out: Path, wanted: dict[str, Any], needed: int) -> Path:
    """The folder where this very store was begun, or an empty one; `needed`: its bytes, at most."""
    folder = out.with_name(f".partial.{out.name}")
    begun = folder / BEGUN
    if not begun.exists() or json.loads(begun.read_text()) != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        refuse_too_large(out, needed)
        with replacing(begun) as partial:
            partial.write_text(json.dumps(wanted))
    return folder


def refuse_too_large(out: Path, needed: int) -> None:
    if needed > (free := free_bytes(out)):
        raise UserError(
            f"out={out} needs {decimal(needed)}, {decimal(free)} are free there: lower data.size, or give another disk"
        )


def refuse_problems(out: Path, problems: list[str], count: int) -> None:
    """One line for all; what else there is to mend stands in a file beside the store."""
    listed = out.with_name(f"{out.name}.problems.txt")
    if len(problems) > 1:
        listed.write_text("\n".join(problems) + "\n")
        problems = [f"{problems[0]} [{listed} lists all]", *problems[1:]]
    refuse(problems, count)
    listed.unlink(missing_ok=True)


def finish(folder: Path, out: Path, stamp: dict[str, Any]) -> None:
    """Stamps the store and gives it its name."""
    with replacing(folder / STAMP) as partial:
        partial.write_text(json.dumps(stamp, indent=1) + "\n")
    sync(folder)
    folder.rename(out)
    for note in (out / BEGUN, *out.glob("*.done"), *out.glob("problems.*.json")):
        note.unlink()
    sync(out.parent)
