"""Image files by name, in a folder or in a zip that is never unpacked."""

import os
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from functools import cached_property
from io import BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from rich.filesize import decimal

from smallbatch.errors import UserError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
LARGEST = 2**30  # bytes of one file, unpacked: a zip of a megabyte can hold a file of a gigabyte


class Mark(NamedTuple):
    """What tells two files apart; a zip lists it, so a folder and a zip of that folder agree."""

    crc: int
    size: int


class Files(ABC):
    """Names are relative to the root, with forward slashes; `setting` is the name under which the user gave it."""

    def __init__(self, path: Path, setting: str = "data.path"):
        self.path, self.setting = path, setting

    @cached_property
    @abstractmethod
    def names(self) -> set[str]: ...

    @abstractmethod
    def open(self, name: str) -> BufferedIOBase: ...

    def read(self, name: str) -> bytes:
        with self.open(name) as file:
            return file.read()

    def refuse_if_larger(self, name: str, size: int) -> None:
        if size > LARGEST:
            raise UserError(f"{self.path}: {name} holds {decimal(size)}, more than {decimal(LARGEST)}: remove it")

    @abstractmethod
    def mark(self, name: str) -> Mark: ...

    @cached_property
    def images(self) -> list[str]:
        """Sorted, hence the same wherever the files lie."""
        found = sorted(name for name in self.names if is_image(name))
        if not found:
            raise UserError(f"{self.setting}={self.path} holds no images; looked for {' '.join(SUFFIXES)}")
        return found


class Folder(Files):
    """Links are followed, wherever they lead: it is the user who names the folder, and many link to their images."""

    @cached_property
    def names(self) -> set[str]:
        found, visited = set(), set()
        for top, folders, files in os.walk(self.path, followlinks=True):
            real = os.path.realpath(top)
            if real in visited:  # a link that leads back would list every image again
                folders.clear()
                continue
            visited.add(real)
            found |= {Path(top, file).relative_to(self.path).as_posix() for file in files}
        return found

    def open(self, name: str) -> BufferedIOBase:
        path = self.path / name
        if not path.is_file():  # to open a pipe would wait for ever
            raise UserError(f"{self.path}: {name} is no file, or a link that leads nowhere: remove it")
        self.refuse_if_larger(name, path.stat().st_size)
        return path.open("rb")

    def mark(self, name: str) -> Mark:
        """Costs a read: size and date alone would miss an edit or notice a copy."""
        content = self.read(name)
        return Mark(zlib.crc32(content), len(content))


class Handle(threading.local):
    """Opens the zip once in every thread of every process that reads it: a fork would share the place in the file."""

    def __init__(self, path: Path):
        self.path, self.process = path, 0

    def open(self) -> zipfile.ZipFile:
        if self.process != os.getpid():
            self.zip, self.process = zipfile.ZipFile(self.path), os.getpid()
        return self.zip


class Zip(Files):
    def __init__(self, path: Path, setting: str = "data.path"):
        super().__init__(path, setting)
        self.handle = Handle(path)
        try:
            self.handle.open()
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"{setting}={path} is not a whole zip: copy it again ({error})") from None

    @cached_property
    def names(self) -> set[str]:
        names = Counter(entry.filename for entry in self.handle.open().infolist() if not entry.is_dir())
        for name, times in sorted(names.items()):
            if is_outside(name):
                raise UserError(f"{self.setting}={self.path} names {name!r}, outside the zip: pack it again")
            if times > 1:
                raise UserError(f"{self.setting}={self.path} holds {name!r} {times} times: pack it again")
        return set(names)

    def open(self, name: str) -> BufferedIOBase:
        self.refuse_if_larger(name, self.handle.open().getinfo(name).file_size)
        return self.handle.open().open(name)

    def mark(self, name: str) -> Mark:
        entry = self.handle.open().getinfo(name)
        return Mark(entry.CRC, entry.file_size)


def open_files(path: str, setting: str = "data.path") -> Files:
    root = Path(path).expanduser()
    if not root.exists():
        raise UserError(f"{setting}={path} does not exist: give a folder or a zip of images")
    return Folder(root, setting) if root.is_dir() else Zip(root, setting)


def is_image(name: str) -> bool:
    """By suffix; what the system hides (.thumbnails/, __MACOSX/) is left out."""
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
    return name.lower().endswith(SUFFIXES) and not hidden


def is_outside(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or not path.parts or path.parts[0].endswith(":")
