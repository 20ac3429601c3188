"""What a reference says of how it was made, so that what does not match is refused."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from hashlib import blake2b
from importlib.metadata import version
from typing import Any, NamedTuple, get_origin, get_type_hints

from smallbatch.data.module import ImageData
from smallbatch.data.packed import Packed
from smallbatch.data.shards import Shards
from smallbatch.metrics.extractors import Extractor
from smallbatch.notation import ImageSpec


@dataclass(frozen=True)
class Stamp:
    """How a reference was made; the defaults say what is known of images whose making nobody knows."""

    data: str  # the data set's name, or that of the images' file or folder
    size: int
    channels: int
    extractor: str  # with its checksum
    n: int
    kept: int  # images whose features are kept
    split: str = "all"  # or train, or held_out
    filter: str = "unknown"
    crop: str = "unknown"
    settings: dict[str, Any] = field(default_factory=dict)  # the data set's, but for where and how it is read
    images: list[str] = field(default_factory=list)  # fingerprints by which a data set may be known
    pixels: str = field(default="", compare=False)  # hash of the very images, known once they were read
    smallbatch: str = field(default_factory=lambda: version("smallbatch"), compare=False)

    def other(self, wanted: "Stamp") -> list[str]:
        """What differs, as `name=here, not there`."""
        pairs = [(one.name, getattr(self, one.name), getattr(wanted, one.name)) for one in fields(self) if one.compare]
        return [f"{name}={mine}, not {theirs}" for name, mine, theirs in pairs if mine != theirs]

    @property
    def key(self) -> str:
        """The same for stamps that agree."""
        agreed = [getattr(self, one.name) for one in fields(self) if one.compare]
        return blake2b(json.dumps(agreed, sort_keys=True).encode(), digest_size=6).hexdigest()


def stamp_of(
    data: ImageData, settings: Mapping[str, Any], split: str, extractor: Extractor, n: int, keep: int
) -> Stamp:
    """Of `n` images of a part of `data`, which was built with `settings`. A store says what it was made from."""
    made = data.stamp["made_with"] if isinstance(data, Packed | Shards) else settings
    name = str(made.get("_target_", "")).rpartition(".")[2]
    name = name if name.isidentifier() else type(data).__name__  # it will be part of a file's name
    own = {key: value for key, value in made.items() if key not in ("_target_", "per_image", "low_size")}
    stamp = of_images(name, data.spec, extractor, n, keep)
    how = resizing(name, own)
    return replace(stamp, split=split, filter=how.filter, crop=how.crop, settings=own, images=fingerprints(data))


def of_images(name: str, spec: ImageSpec, extractor: Extractor, n: int, keep: int) -> Stamp:
    """Of the images of a file or folder."""
    return Stamp(name, spec.size, spec.channels, extractor.identity, n, min(keep, n))


def fingerprints(data: ImageData) -> list[str]:
    """Its own, and for a store that of what it was made from."""
    return [*dict.fromkeys((data.fingerprint, data.made_from))]


def read(text: str) -> Stamp:
    """ValueError, TypeError or RecursionError where it is none."""
    stamp = Stamp(**json.loads(text))
    for name, hint in get_type_hints(Stamp).items():
        if not isinstance(getattr(stamp, name), get_origin(hint) or hint):
            raise ValueError(f"{name}={getattr(stamp, name)}")
    if not all(isinstance(name, str) for name in stamp.images):
        raise ValueError(f"images={stamp.images}")
    return stamp


class Resizing(NamedTuple):
    filter: str
    crop: str


UNCHANGED = Resizing("none", "none")
BY_ADM = Resizing("box by halves, then bicubic", "centre")
RESIZING = {"Cifar10": UNCHANGED, "Digits": Resizing("bicubic", "none"), "Shapes": UNCHANGED}
RESIZING |= {"ImageNet": BY_ADM, "Images": BY_ADM}


def resizing(name: str, settings: Mapping[str, Any]) -> Resizing:
    """How our own data sets bring images to their size."""
    if (name, settings.get("size")) in (("Images", None), ("Digits", 8)):  # as they come
        return UNCHANGED
    return RESIZING.get(name, Resizing("unknown", "unknown"))
