"""What samples are held against: the moments of real images, stamped with how they were made."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from smallbatch.data.module import ImageData
from smallbatch.data.shapes import ENDLESS
from smallbatch.data.store import Source
from smallbatch.errors import UserError
from smallbatch.files import in_turn, replacing
from smallbatch.metrics import stamps
from smallbatch.metrics.extractors import Extractor
from smallbatch.metrics.files import IMAGES, load, members, open_images
from smallbatch.metrics.moments import Moments, MomentSums
from smallbatch.metrics.rows import batches, spread
from smallbatch.metrics.stamps import Stamp, of_images, stamp_of
from smallbatch.metrics.validity import Colours, Seen
from smallbatch.notation import ImageSpec

SETTING = "reference"
AGAIN = "make another with `smallbatch reference`"
MOST = 50_000  # images that are measured unasked
UNSTAMPED = "inception"  # the features of a file that does not say: those of EDM, guided-diffusion and pytorch-fid


@dataclass(frozen=True, eq=False)
class Reference:
    """`stamp` is None where a file does not say how it was made; its moments then have n = 0, unknown."""

    moments: Moments
    vectors: Float[Tensor, "kept d"] | None  # features of some of the images, on the CPU
    colours: Colours | None
    stamp: Stamp | None
    name: str  # of its file or folder, or of its data set
    marks: tuple[str, ...] = ()  # what a reader of the score should know

    @property
    def known_as(self) -> str:
        """Which real images, and how many, as far as it is known."""
        if self.stamp is None:
            return Path(self.name).name
        return f"{self.stamp.data} {self.stamp.split} n={self.moments.n or 'unknown'} {self.stamp.key}"


def of_source(source: Source, stamp: Stamp, extractor: Extractor, device: torch.device | str, batch: int) -> Reference:
    """Streams `stamp.n` rows of `source`, spread evenly over it, through the extractor. One process does all of it."""
    rows = spread(stamp.n, len(source))
    kept = rows[spread(stamp.kept, stamp.n)]
    sums, seen, hashed = MomentSums(extractor.dimension, device=device), Seen(stamp.channels), blake2b(digest_size=16)
    vectors = torch.empty(stamp.kept, extractor.dimension)
    with extractor.on(device) as features:
        for some, pixels in seen.look(batches(source, rows, batch, f"{extractor.name} features")):
            hashed.update(pixels.contiguous().numpy())
            found = features(pixels.to(device)).vectors
            sums.add(found, some)
            here = torch.isin(some, kept)
            vectors[torch.searchsorted(kept, some[here])] = found.cpu()[here]
    n, mean, covariance = sums.moments()
    return Reference(
        Moments(n, mean.cpu(), covariance.cpu()),
        vectors if stamp.kept else None,
        seen.colours,
        replace(stamp, pixels=hashed.hexdigest()),
        stamp.data,
    )


def at_hand(
    data: ImageData,
    extractor: Extractor,
    device: torch.device | str,
    batch: int,
    keep: int,
    cache: str | Path,
) -> Reference:
    """Of the training part, at most MOST of it: measured by one process, kept in the folder `cache`, then only read."""
    total, held_out = map(len, data.parts)
    n = min(total, MOST)
    settings = {"size": data.spec.size, "train": total, "held_out": held_out}
    stamp = stamp_of(data, settings, "train", extractor, n, keep)
    path = Path(cache).expanduser() / f"{stamp.data}_{stamp.size}_{extractor.name}_{stamp.key}.npz"
    with in_turn(path):
        if not path.exists():
            save(of_source(data.train_store, stamp, extractor, device, batch), path)
    part = [f"reference of n={n} of {total} images"] if n < total < ENDLESS else []
    return replace(read(path), marks=tuple(part))


def save(reference: Reference, path: Path) -> None:
    """mu and sigma in float64, as EDM and pytorch-fid read them, and n, stamp and vectors beside them."""
    moments = reference.moments
    arrays = {"mu": moments.mean.cpu().numpy(), "sigma": moments.covariance.cpu().numpy(), "n": np.array(moments.n)}
    if reference.stamp:
        arrays["stamp"] = np.array(json.dumps(asdict(reference.stamp)))
    if reference.colours:
        arrays |= {"colour_mean": reference.colours.mean.numpy(), "colour_spread": reference.colours.spread.numpy()}
    if reference.vectors is not None:
        arrays["vectors"] = reference.vectors.numpy()
    with replacing(path) as partial:
        np.savez(partial, **arrays)


def read(path: Path) -> Reference:
    """Statistics: ours; EDM's and pytorch-fid's, mu and sigma alone; guided-diffusion's, of which those are read."""
    found = members(path, SETTING)
    if not {"mu", "sigma"} <= set(found):
        holds = ", ".join(found) or "nothing"
        raise UserError(f"{SETTING}={path} holds {holds}, not mu and sigma: make one with `smallbatch reference`")
    mean, covariance = map(torch.from_numpy, statistics(path))
    if "stamp" not in found:
        marks = (f"reference without a stamp: {path.name}",)
        return Reference(Moments(0, mean, covariance), None, None, None, str(path), marks)
    text, n = load(path, SETTING, ["stamp", "n"])
    try:
        stamp = stamps.read(str(text))
        colours = Colours(*map(torch.from_numpy, load(path, SETTING, ["colour_mean", "colour_spread"])))
        vectors = torch.from_numpy(load(path, SETTING, ["vectors"])[0]) if "vectors" in found else None
        if vectors is not None and vectors.shape != (stamp.kept, len(mean)):
            raise ValueError(f"vectors of shape {tuple(vectors.shape)}")
        return Reference(Moments(int(n), mean, covariance), vectors, colours, stamp, str(path))
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{SETTING}={path}: its stamp cannot be read ({error}): make it again") from None


def statistics(path: Path) -> list[Float64[np.ndarray, "..."]]:
    """mu (d,) and sigma (d, d), finite and symmetric."""
    mean, covariance = load(path, SETTING, ["mu", "sigma"])
    shapes = f"mu of {mean.dtype} {mean.shape} and sigma of {covariance.dtype} {covariance.shape}"
    d = mean.size
    if (mean.shape, covariance.shape) != ((d,), (d, d)) or {mean.dtype.kind, covariance.dtype.kind} != {"f"} or not d:
        raise UserError(f"{SETTING}={path} holds {shapes}, not d and d,d numbers: make it again")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"{SETTING}={path}: mu or sigma is not finite: make it again")
    if np.abs(covariance - covariance.T).max() > 1e-4 * np.abs(covariance).max():
        raise UserError(f"{SETTING}={path}: sigma is not symmetric, so it is no covariance: make it again")
    return [mean.astype(np.float64), covariance.astype(np.float64)]


def open_reference(
    path: str | Path, extractor: Extractor, device: torch.device | str, batch: int, keep: int
) -> Reference:
    """What `reference=` names: statistics, or images whose features are taken now.

    guided-diffusion's files may hold both, the statistics of more images: those are used if the extractor is inception.
    """
    path = Path(path).expanduser()
    found = members(path, SETTING) if path.is_file() and path.suffix == ".npz" else [IMAGES]
    if IMAGES not in found:
        return read(path)
    source, spec, marks = open_images(path, SETTING)
    stamp = of_images(path.name, spec, extractor, len(source), keep)
    if "mu" not in found or extractor.name != UNSTAMPED:
        return replace(of_source(source, stamp, extractor, device, batch), name=str(path), marks=tuple(marks))
    given, stamp = read(path), replace(stamp, n=stamp.kept)
    some = of_source(source, stamp, extractor, device, batch) if stamp.n > 1 else given
    marks = (*given.marks, *marks)
    return replace(given, vectors=some.vectors, colours=some.colours, stamp=replace(stamp, n=0), marks=marks)


def check(reference: Reference, extractor: Extractor, spec: ImageSpec, known: Collection[str] = ()) -> list[str]:
    """What to know of a score against it; refuses one that would mean nothing.

    `spec` is that of the samples; `known` the fingerprints of the data set that they should be like, if there is one.
    """
    refuse_other_features(reference, extractor)
    marks, stamp, name = list(reference.marks), reference.stamp, Path(reference.name).name
    if stamp:
        refuse_other_images(f"{SETTING}={reference.name}", stamp, spec, known)
        if known and not stamp.images:
            marks.append(f"reference not known to be of the samples' data set: {name}")
    n, d = reference.moments.n, extractor.dimension
    if 0 < n < d:
        marks.append(f"reference of n={n} images, fewer than its {d} features")
    return marks


def refuse_other_features(reference: Reference, extractor: Extractor) -> None:
    where, d = f"{SETTING}={reference.name}", len(reference.moments.mean)
    made_with, this = UNSTAMPED, extractor.name
    if reference.stamp:
        made_with, this = reference.stamp.extractor, extractor.identity
    if not reference.stamp and this == UNSTAMPED and extractor.marks:
        raise UserError(f"{where} does not say its weights, and these are {extractor.identity}: {AGAIN}")
    if made_with != this:
        name = made_with.split()[0]
        give = "the same weights" if name == extractor.name else f"extractor={name}"
        raise UserError(f"{where} was made with {made_with}, this is {extractor.identity}: give {give}, or {AGAIN}")
    if d != extractor.dimension:
        raise UserError(f"{where} has {d} features, {extractor.identity} has {extractor.dimension}: {AGAIN}")


def refuse_other_images(where: str, stamp: Stamp, spec: ImageSpec, known: Collection[str]) -> None:
    if (stamp.size, stamp.channels) != (spec.size, spec.channels):
        theirs, ours = (f"{of.size}x{of.size} with {of.channels} channels" for of in (stamp, spec))
        raise UserError(f"{where} is of images {theirs}, the samples are {ours}: {AGAIN}")
    if known and stamp.images and not set(stamp.images) & set(known):
        theirs, ours = stamp.images[0], next(iter(known))
        raise UserError(f"{where} is of other images ({stamp.data} {theirs}) than this data set ({ours}): {AGAIN}")
