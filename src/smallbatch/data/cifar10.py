"""CIFAR-10, from its official files: 50,000 images to train on, its test set of 10,000 held out."""

import hashlib
import io
import pickle
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torchvision.datasets import CIFAR10

from smallbatch.data.module import ImageData, Parts
from smallbatch.data.store import Store, digest
from smallbatch.errors import UserError
from smallbatch.files import in_turn
from smallbatch.notation import ImageSpec

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


# All that numpy's arrays are made of in a pickle; `_codecs.encode` makes their bytes.
HARMLESS = {
    ("_codecs", "encode"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
}


class Unpickler(pickle.Unpickler):
    """A pickle is a program: this one may make arrays, and call nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in HARMLESS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def read(path: Path, md5: str | None) -> tuple[ndarray, list[int]]:
    """Rows of 3072 bytes, red, green, blue, and their labels. ValueError for another file than that of `md5`."""
    content = path.read_bytes()
    if md5 is not None and hashlib.md5(content).hexdigest() != md5:
        raise ValueError(f"{path.name} is another file")
    batch = Unpickler(io.BytesIO(content), encoding="latin1").load()
    pixels, labels = batch["data"], batch["labels"]
    if not labels or (pixels.dtype, pixels.shape) != (np.uint8, (len(labels), 3072)):
        raise ValueError(f"{path.name} holds {pixels.dtype} {pixels.shape}, and {len(labels)} labels")
    return pixels, labels


class Cifar10(ImageData):
    """The folder `path` holds cifar-10-batches-py/, or cifar-10-python.tar.gz, or is where both are downloaded to.

    `official` holds every file against its published checksum; without it, any files of that format will do.
    """

    def __init__(
        self,
        path: str,
        batch: int,
        seed: int,
        flip: bool = True,
        official: bool = True,
        per_image: int = 1,
        low_size: int | None = None,
    ):
        super().__init__(batch, seed, flip, per_image=per_image, low_size=low_size)
        self.path, self.official = Path(path).expanduser(), official

    @property
    def spec(self) -> ImageSpec:
        return ImageSpec(channels=3, size=32, classes=10, low_size=self.low_size)

    @property
    def class_names(self) -> list[str]:
        return CLASSES

    @property
    def fingerprint(self) -> str:
        if self.official:  # known without a look at the files
            return hashlib.blake2b(repr(CIFAR10.train_list + CIFAR10.test_list).encode(), digest_size=16).hexdigest()
        return digest(self.parts.train, self.parts.held_out)

    @cached_property
    def parts(self) -> Parts:
        if self.official:
            self._fetch()
        return Parts(self._part(CIFAR10.train_list), self._part(CIFAR10.test_list))

    def _fetch(self) -> None:
        """Downloads and unpacks what is missing; one process at a time."""
        if self.folder.exists() and not (self.path / CIFAR10.filename).exists():
            return
        try:
            CIFAR10(str(self.path))  # whole: nothing to do, and nothing to write where that is forbidden
            return
        except (OSError, RuntimeError):
            pass
        if not self.may_download:
            raise UserError(
                f"data.path={self.path} does not hold CIFAR-10, and nothing is fetched to a path that a run names: "
                "give data=cifar10 data.path=..."
            )
        try:
            with in_turn(self.folder):
                CIFAR10(str(self.path), download=True)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"data.path={self.path}: cannot fetch CIFAR-10 ({error}): put {CIFAR10.filename} from "
                f"{CIFAR10.url} there by hand, or give a folder that holds {CIFAR10.base_folder}"
            ) from None

    def _part(self, files: list[list[str]]) -> Store:
        try:
            found = [read(self.folder / name, md5 if self.official else None) for name, md5 in files]
            pixels = torch.from_numpy(np.concatenate([pixels for pixels, _ in found])).view(-1, 3, 32, 32)
            labels = torch.tensor([label for _, labels in found for label in labels], dtype=torch.long)
        except Exception as error:  # a damaged pickle fails in many ways
            fix = "take it as it is with data.official=false" if self.official else "copy it again"
            raise UserError(
                f"{self.folder} is not CIFAR-10 as published ({error}): remove it to download it again, or {fix}"
            ) from None
        if labels.min() < 0 or labels.max() >= len(CLASSES):
            raise UserError(f"{self.folder} has labels from {labels.min()} to {labels.max()}: they must be 0 to 9")
        return Store(pixels, labels)

    @property
    def folder(self) -> Path:
        return self.path / CIFAR10.base_folder
