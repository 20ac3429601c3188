"""What is said of each image: in a text file beside it, or in a table."""

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from smallbatch.data.files import Files
from smallbatch.errors import UserError
from smallbatch.files import read_text

BESIDE = (".txt", ".json")
COLUMNS = ("path", "caption")


class Said(ABC):
    """Captions by the image's name."""

    @abstractmethod
    def images(self) -> list[str]:
        """The images of which something is said, sorted."""

    @abstractmethod
    def __call__(self, name: str) -> str:
        """One line; an empty one is refused."""


class Beside(Said):
    """NAME.jpg beside NAME.txt, or beside NAME.json with a `caption`, as WebDataset has it."""

    def __init__(self, files: Files):
        self.files = files

    def images(self) -> list[str]:
        names = self.files.images
        if silent := [name for name in names if self.file_of(name) is None]:
            others = f" (and {len(silent) - 1} more of {len(names)} images)" if len(silent) > 1 else ""
            raise UserError(f"{self.files.path}: {silent[0]} has no .txt or .json beside it{others}: add its caption")
        return names

    def file_of(self, name: str) -> str | None:
        beside = (str(PurePosixPath(name).with_suffix(suffix)) for suffix in BESIDE)
        return next((file for file in beside if file in self.files.names), None)

    def __call__(self, name: str) -> str:
        file = self.file_of(name)
        where = f"{self.files.path}: {file}"
        try:
            text = self.files.read(file).decode()
            said = json.loads(text)["caption"] if file.endswith(".json") else text
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{where} holds no caption ({type(error).__name__}: {error}): repair it") from None
        return one_line(said, where)


class Table(Said):
    """FILE.csv, FILE.tsv or FILE.jsonl with the columns `path`, of images in the folder or zip, and `caption`."""

    def __init__(self, files: Files, path: Path):
        self.files, self.path = files, path
        self.rows = table(path)

    def images(self) -> list[str]:
        if missing := sorted(self.rows.keys() - self.files.names):
            others = f" (and {len(missing) - 1} more of {len(self.rows)})" if len(missing) > 1 else ""
            raise UserError(f"data.table={self.path} names {missing[0]}, which {self.files.path} has not{others}")
        return sorted(self.rows)

    def __call__(self, name: str) -> str:
        return one_line(self.rows[name], f"data.table={self.path}: {name}")


def table(path: Path) -> Mapping[str, str]:
    try:
        lines = read_text(path).splitlines()
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in lines if line.strip()]
        else:
            rows = [*csv.DictReader(lines, delimiter="\t" if path.suffix == ".tsv" else ",")]
        found = {str(row["path"]): row["caption"] for row in rows}
    except OSError as error:
        raise UserError(f"data.table={path} cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"data.table={path} needs the columns {' and '.join(COLUMNS)} ({reason})") from None
    if not found:
        raise UserError(f"data.table={path} holds no row: give the columns {' and '.join(COLUMNS)}")
    return found


def one_line(said: object, where: str) -> str:
    line = " ".join(said.split()) if isinstance(said, str) else ""
    if not line:
        raise UserError(f"{where} holds an empty caption: say what the image shows, or remove the image")
    return line
