"""The vocabulary every other file speaks.

Axes: b rows of a micro-batch, c channels, h height, w width, k prediction heads, m loss terms, n tokens, d features.
Images are float in [-1, 1]; latents of an autoencoder, which may stand for them everywhere, are not bounded. Time runs
from 0 (data) to 1 (noise). x_t = alpha * x0 + sigma * eps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float16, Int, Shaped, UInt8
from torch import Tensor

Image = Float[Tensor, "b c h w"]
Pixels = UInt8[Tensor, "b c h w"]  # an image as stored: 0..255
Latents = Float16[Tensor, "b c h w"]  # an image as an autoencoder stored it
Output = Float[Tensor, "b maps h w"]  # what a network returns: `outputs` maps of c channels each
Time = Float[Tensor, " b"]
PerImage = Float[Tensor, " b"]
PerTerm = Float[Tensor, "b m"]
Coefficient = Float[Tensor, "b 1 1 1"]
Labels = Int[Tensor, " b"]
Mask = Bool[Tensor, " b"]
Seen = Float[Tensor, "b 1 h w"]  # 1 where the network saw the pixel


class Way(Enum):
    """In which of its blocks a network leaves hidden patches out."""

    NAIVE = "naive"  # in all
    DEFERRED = "deferred"  # in all after its patch mixer
    MASKDIT = "maskdit"  # in all but its last ones, the decoder, where an empty token stands for each
    ROUTED = "routed"  # in the middle ones, after which they come back as they were


class Keep(NamedTuple):
    """The patches that a network sees, by number, and what becomes of the others."""

    patches: Int[Tensor, "b kept"]
    way: Way


class TextSpec(NamedTuple):
    """Texts of `length` tokens: numbers of `words`, or frozen features of `width`; the other is 0."""

    length: int
    words: int = 0
    width: int = 0


class ImageSpec(NamedTuple):
    """What a network must know of a data set: square images, and 0 classes where they carry no label."""

    channels: int
    size: int
    classes: int
    low_size: int | None = None  # pixels per side of the small images to enlarge; None: there are none
    text: TextSpec | None = None  # of what is said of every image; None: nothing is
    latents: bool = False  # whether they are those of an autoencoder, not pixels

    @property
    def told_by_data(self) -> bool:
        """Whether a network is told what only the images of a data set bring: themselves, or what is said of them."""
        return self.low_size is not None or self.text is not None


class Text(NamedTuple):
    """Token ids (b, n) for an encoder inside the network, or frozen features (b, n, d).

    The mask is true on real tokens; a row without any says nothing.
    """

    value: Shaped[Tensor, "b n ..."]
    mask: Bool[Tensor, "b n"]

    def to(self, device: torch.device | str) -> "Text":
        return Text(*(part.to(device, non_blocking=True) for part in self))

    def at(self, rows: Int[Tensor, " m"]) -> "Text":
        return Text(*(part[rows] for part in self))


class Condition(NamedTuple):
    """All that a network may be told about an image besides its noise level. Label -1 means none."""

    label: Labels | None = None
    text: Text | None = None
    image: Image | None = None  # a small one, to be enlarged

    def to(self, device: torch.device | str) -> "Condition":
        return Condition(*(None if part is None else part.to(device) for part in self))


class Batch(NamedTuple):
    """Clean images and what is known of each."""

    x0: Image
    condition: Condition


class Denoised(NamedTuple):
    """A denoiser's two equivalent readings of x_t; where the variance is learned, its interpolation fraction."""

    x0: Image
    eps: Image
    variance: Image | None = None


class Observed(NamedTuple):
    """What one optimizer step saw, in global row order: all that anything adaptive may learn from."""

    t: Time
    u: Time  # the point of the unit interval that the density turned into t
    logsnr: PerImage
    loss: PerImage  # all that is minimised, before the importance correction
    weighted: PerImage  # the weighted error in it
    slope: PerImage  # mean square of d weighted / d output, over a constant
    pooled: PerImage  # the same of its mean over the pixels, summed over the channels
    factor: PerTerm  # what each term's error counts in `weighted`
    gram: Float[Tensor, "b k k"] | None = None  # products of the heads' errors in v, where there are several


@dataclass(frozen=True)
class NoiseLevel:
    """A point on the path x_t = alpha * x0 + sigma * eps, one per image."""

    t: Time
    alpha: Coefficient
    sigma: Coefficient

    @property
    def logsnr(self) -> Coefficient:
        return 2 * (self.alpha.log() - self.sigma.log())

    @property
    def unit(self) -> "NoiseLevel":
        """The same signal-to-noise ratio on the circle alpha^2 + sigma^2 = 1."""
        length = (self.alpha.square() + self.sigma.square()).sqrt()
        return NoiseLevel(self.t, self.alpha / length, self.sigma / length)

    def mix(self, x0: Image, eps: Image) -> Image:
        return self.alpha * x0 + self.sigma * eps

    def unmix(self, x_t: Image, x0: Image) -> Denoised:
        """An image estimate with the noise that x_t then holds."""
        return Denoised(x0, (x_t - self.alpha * x0) / self.sigma)


Denoise = Callable[[Image, NoiseLevel], Denoised]  # all that a solver or a diagnostic ever sees


def below_one(u: Time) -> Time:
    """Into [0, 1): float32 rounds what lies just below 1 to 1."""
    return u.clamp(0, 1 - 2**-24)
