"""What a score does not say: images not finite or clipped, colours that drift, copies of training images."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from smallbatch.data.images import to_pixels
from smallbatch.data.module import ImageData
from smallbatch.data.store import Source
from smallbatch.errors import UserError
from smallbatch.generation import Numbers
from smallbatch.metrics.judged import Score
from smallbatch.metrics.rows import spread
from smallbatch.notation import Image, Pixels

CLIPPED = 1 + 1 / 127.5  # further out than one grey level


class NotFinite(UserError):
    """Samples hold NaN or infinity. Raised on every rank alike."""


class Colours(NamedTuple):
    """Of each channel over images and pixels, in grey levels 0..255."""

    mean: Float64[Tensor, " c"]
    spread: Float64[Tensor, " c"]  # standard deviation


class Seen:
    """Counts while images pass: how many there are, how many are not finite, what share of values is clipped; colours.

    `sums` holds all of it, to be added up over ranks.
    """

    def __init__(self, channels: int):
        self.sums = torch.zeros(4 + 2 * channels, dtype=torch.float64)  # images, broken, clipped, values, x, x^2

    def quantise(self, images: Iterable[tuple[Numbers, Image]]) -> Iterator[tuple[Numbers, Pixels]]:
        for numbers, x in images:
            broken = (~x.isfinite()).flatten(1).any(dim=1).sum()
            clipped = (x.nan_to_num(posinf=2, neginf=-2).abs() > CLIPPED).sum()
            self.sums[1:4] += torch.stack([broken, clipped, torch.tensor(x.numel(), device=x.device)]).cpu()
            yield numbers, to_pixels(x.nan_to_num())

    def look(self, images: Iterable[tuple[Numbers, Pixels]]) -> Iterator[tuple[Numbers, Pixels]]:
        for numbers, pixels in images:
            values = pixels.cpu().double().transpose(0, 1).flatten(1)
            self.sums[0] += len(pixels)
            self.sums[4:] += torch.cat([values.mean(dim=1), values.square().mean(dim=1)]) * len(pixels)
            yield numbers, pixels

    @property
    def broken(self) -> int:
        return int(self.sums[1])

    @property
    def clipped(self) -> float | None:
        """Share of values; None of images that came as pixels."""
        return (self.sums[2] / self.sums[3]).item() if self.sums[3] else None

    @property
    def colours(self) -> Colours:
        mean, square = (self.sums[4:] / self.sums[0]).chunk(2)
        return Colours(mean, (square - mean.square()).clamp(min=0).sqrt())


class Nearest(NamedTuple):
    """Of each image: the nearest of a source, and how far it is, root mean square in grey levels."""

    pixels: Pixels
    distance: Float[Tensor, " b"]


def nearest(images: Pixels, source: Source, mirrored: bool, among: int = 50_000, values: int = 2**24) -> Nearest:
    """Of a larger source, `among` images spread evenly over it are looked at, `mirrored` ones too; `values` at once."""
    wanted = images.flatten(1).float()
    best = torch.full((len(images),), torch.inf)
    found = torch.zeros_like(images)
    for rows in spread(min(among, len(source)), len(source)).split(max(1, values // wanted.shape[1])):
        some = source.take(rows).pixels.cpu()
        some = torch.cat([some, some.flip(3)]) if mirrored else some
        distance, at = torch.cdist(wanted, some.flatten(1).float()).min(dim=1)
        closer = distance < best
        best = torch.where(closer, distance, best)
        found[closer] = some[at[closer]]
    return Nearest(found, best / wanted.shape[1] ** 0.5)


def refuse_broken(seen: Seen, n: int) -> None:
    if seen.broken:
        raise NotFinite(f"{seen.broken} of {n} samples are not finite: nothing can be said of them")


def clipped(seen: Seen, n: int) -> list[Score]:
    if seen.clipped is None:
        return []
    mark = "share of values beyond -1..1, after what the sampler clips"
    return [Score(f"clipped@{n}", seen.clipped, n, marks=[mark])]


def drifted(ours: Colours, theirs: Colours, n: int) -> list[Score]:
    """Of each, the channel that is furthest off."""
    shift, ratio = ours.mean - theirs.mean, ours.spread / theirs.spread.clamp(min=1e-9)
    shifts, ratios = (", ".join(f"{x:{form}}" for x in of.tolist()) for of, form in ((shift, "+.1f"), (ratio, ".3f")))
    worst, widest = shift[shift.abs().argmax()].item(), ratio[ratio.log().abs().argmax()].item()
    return [
        Score(f"colour_shift@{n}", worst, n, marks=["grey levels 0..255", f"by channel {shifts}"]),
        Score(f"colour_spread@{n}", widest, n, marks=["of the data's", f"by channel {ratios}"]),
    ]


class Copies(NamedTuple):
    """How near samples are to the training images; and both, as many nearest ones after the samples."""

    score: Score
    pairs: Pixels


def copies(samples: Pixels, data: ImageData) -> Copies:
    near = nearest(samples, data.train_store, data.flip)
    held_out = data.held_out_store
    fresh = held_out.take(spread(min(len(samples), len(held_out)), len(held_out))).pixels.cpu()
    usual = nearest(fresh, data.train_store, data.flip).distance.mean()
    ratios, n = near.distance / usual.clamp(min=1e-3), len(samples)
    mark = "distance to the nearest training image over that of held-out ones: 0 is a copy"
    score = Score(f"nearest@{n}", ratios.mean().item(), n, marks=[f"least {ratios.min():.2g}", mark])
    return Copies(score, torch.cat([samples, near.pixels]))
