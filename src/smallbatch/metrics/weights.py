"""Weights files: where they lie, how they come there, and the checksums that tell them apart."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from smallbatch.errors import UserError
from smallbatch.files import in_turn

SHOWN = 12  # digits of a checksum
EMBEDDED = "extractor=classifier needs no download"


class Found(NamedTuple):
    path: Path
    sha256: str


class Published(NamedTuple):
    """A file that others offer; `sha256` is what its checksum begins with, `file` its name in torch.hub's cache."""

    url: str
    file: str
    sha256: str

    def find(self, given: str | None) -> Found:
        """The file `given`, whatever it holds, or the published one, downloaded once and held against its checksum."""
        path = self._fetched() if given is None else Path(given).expanduser()
        try:
            found = Found(path, sha256(path))
        except OSError as error:
            raise UserError(f"extractor.weights={path}: {error.strerror}; the file is {self.url}; {EMBEDDED}") from None
        if given is None and not self.is_it(found):
            raise UserError(f"{path} is damaged, its SHA-256 is not {self.sha256}...: remove it to download it again")
        return found

    def is_it(self, found: Found) -> bool:
        return found.sha256.startswith(self.sha256)

    def _fetched(self) -> Path:
        path = Path(torch.hub.get_dir()) / "checkpoints" / self.file
        if path.exists():
            return path
        try:
            with in_turn(path):
                if not path.exists():  # another process may have been faster
                    torch.hub.download_url_to_file(self.url, str(path), self.sha256)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"{path} is not there and cannot be downloaded ({one_line(error)}): put {self.url} there, or give it "
                f"as extractor.weights=FILE; {EMBEDDED}"
            ) from None
        return path


def sha256(path: Path) -> str:
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            total.update(piece)
    return total.hexdigest()


def sha256_of(state: Mapping[str, Tensor]) -> str:
    """The same for the same names, shapes, types and values, however they were stored."""
    total = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())
