"""CIFAR-10, from its official files: 50,000 images to train on, its test set of 10,000 held out."""

import fcntl
import hashlib
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import CIFAR10

from smallbatch.data.module import ImageData, Parts
from smallbatch.data.store import Store, digest
from smallbatch.errors import UserError
from smallbatch.notation import ImageSpec

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class Unchecked(CIFAR10):
    """The same format with other content: names without checksums."""

    train_list = [[name, None] for name, _ in CIFAR10.train_list]  # noqa: RUF012
    test_list = [[name, None] for name, _ in CIFAR10.test_list]  # noqa: RUF012
    meta = {**CIFAR10.meta, "md5": None}  # noqa: RUF012


class Cifar10(ImageData):
    """The folder `path` holds cifar-10-batches-py/, or cifar-10-python.tar.gz, or is where both are downloaded to.

    `official` holds every file against its published checksum; without it, any files of that format will do.
    """

    def __init__(self, path: str, batch: int, seed: int, flip: bool = True, official: bool = True, per_image: int = 1):
        super().__init__(batch, seed, flip, per_image=per_image)
        self.path, self.official = Path(path).expanduser(), official

    @property
    def spec(self) -> ImageSpec:
        return ImageSpec(channels=3, size=32, classes=10)

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
        return Parts(self._part(train=True), self._part(train=False))

    def _fetch(self) -> None:
        """Downloads and unpacks what is missing; one process at a time."""
        if self.folder.exists() and not (self.path / CIFAR10.filename).exists():
            return
        try:
            CIFAR10(str(self.path))  # whole: nothing to do, and nothing to write where that is forbidden
            return
        except (OSError, RuntimeError):
            pass
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with open(self.path / ".lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                CIFAR10(str(self.path), download=True)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"data.path={self.path}: cannot fetch CIFAR-10 ({error}): put {CIFAR10.filename} from "
                f"{CIFAR10.url} there by hand, or give a folder that holds {CIFAR10.base_folder}"
            ) from None

    def _part(self, train: bool) -> Store:
        try:
            found = (CIFAR10 if self.official else Unchecked)(str(self.path), train=train)
            images, labels = np.asarray(found.data), torch.as_tensor(found.targets)
        except Exception as error:  # a damaged pickle fails in many ways
            fix = "take it as it is with data.official=false" if self.official else "copy it again"
            raise UserError(
                f"{self.folder} is not CIFAR-10 as published ({error}): remove it to download it again, or {fix}"
            ) from None
        if labels.min() < 0 or labels.max() >= len(CLASSES):
            raise UserError(f"{self.folder} has labels from {labels.min()} to {labels.max()}: they must be 0 to 9")
        return Store(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels)

    @property
    def folder(self) -> Path:
        return self.path / CIFAR10.base_folder
