"""ImageNet as ILSVRC 2012 lays it out: train/<synset>/*.JPEG and val/<synset>/*.JPEG."""

import hashlib
from collections.abc import Iterable
from functools import cache, cached_property
from pathlib import Path, PurePosixPath

from smallbatch.data.decoded import Cropped, Decoded
from smallbatch.data.files import Folder
from smallbatch.data.folder import split
from smallbatch.data.module import ImageData, Parts
from smallbatch.errors import UserError
from smallbatch.notation import ImageSpec


@cache
def classes() -> dict[str, str]:
    """Synset to name, in the published order of the 1,000 classes."""
    lines = Path(__file__).with_name("imagenet_classes.txt").read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines)


class ImageNet(ImageData):
    """Always 1,000 classes, numbered as published, also where some have no folder.

    Without val/, 1 % of train/ is held out. ADM's resize and centre crop: an image smaller than `size` is enlarged, one
    with a side below `smallest` refused.
    """

    def __init__(
        self,
        path: str,
        batch: int,
        seed: int,
        size: int,
        flip: bool = True,
        smallest: int = 1,
        memory_gib: float = 8.0,
        workers: int | None = None,
        per_image: int = 1,
        low_size: int | None = None,
    ):
        super().__init__(batch, seed, flip, memory_gib, workers, per_image, low_size)
        if not isinstance(size, int) or size < 1:
            raise UserError(f"data.size={size} must be a whole number, e.g. 64, 128 or 256")
        self.path, self.size, self.smallest = Path(path).expanduser(), size, smallest

    @property
    def spec(self) -> ImageSpec:
        return ImageSpec(channels=3, size=self.size, classes=len(classes()), low_size=self.low_size)

    @property
    def class_names(self) -> list[str]:
        return list(classes().values())

    @cached_property
    def fingerprint(self) -> str:
        """Of all names and lengths: to read a million files at every start would take too long."""
        digest = hashlib.blake2b(digest_size=16)
        for part in self.parts:
            digest.update(repr([(name, (part.files.path / name).stat().st_size) for name in part.names]).encode())
        return digest.hexdigest()

    @cached_property
    def parts(self) -> Parts:
        if not (self.path / "train").is_dir():
            raise UserError(f"data.path={self.path} must hold train/<synset>/*.JPEG and val/<synset>/*.JPEG")
        train = Folder(self.path / "train")
        if (self.path / "val").is_dir():
            held_out = Folder(self.path / "val")
            return Parts(self._part(train, train.images), self._part(held_out, held_out.images))
        rows = split(train.images, share=0.01)
        return Parts(*(self._part(train, [train.images[row] for row in part]) for part in rows))

    def _part(self, folder: Folder, names: list[str]) -> Decoded:
        return Decoded(folder, names, labels(folder, names), self.spec, Cropped(self.size, self.smallest))


def labels(folder: Folder, names: Iterable[str]) -> list[int]:
    number = {synset: label for label, synset in enumerate(classes())}
    found = []
    for name in names:
        synset = PurePosixPath(name).parts[0]
        if synset not in number:
            raise UserError(
                f"{folder.path}/{name}: {synset} is not one of ImageNet's 1,000 synsets: sort the images into folders "
                "named after theirs (n01440764, ...), or use data=images"
            )
        found.append(number[synset])
    return found
