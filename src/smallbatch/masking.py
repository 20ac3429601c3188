"""Which patches of an image a network sees during training, and where in it the others are left out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from einops import repeat

from smallbatch.errors import UserError
from smallbatch.networks.network import Network
from smallbatch.networks.patches import cut
from smallbatch.notation import Image, Keep, PerImage, Seen, Way
from smallbatch.randomness import Step

STEPS = 4  # of a mask ratio that falls: each is another length of the sequences, and compiled for itself


class Hidden(NamedTuple):
    """The kept patches, and the pixels on which the loss is taken; None: all."""

    keep: Keep | None
    seen: Seen | None


class Masking(ABC):
    @abstractmethod
    def __call__(self, step: Step, x0: Image, network: Network) -> Hidden: ...

    @abstractmethod
    def check(self, network: Network) -> None:
        """Refuses a network that cannot be spared what is hidden."""

    @abstractmethod
    def keeps(self, network: Network) -> list[Keep | None]:
        """As many patches of one image as the network sees, in each of as many equally long parts of training."""

    def auxiliary(self, denoised: Image, x_t: Image, keep: Keep, network: Network) -> PerImage:
        """A further loss where patches are hidden; 0 unless a method brings one."""
        return denoised.new_zeros(len(denoised))


class Unmasked(Masking):
    """The network sees all of every image."""

    def check(self, network: Network) -> None:
        """Any network will do."""

    def keeps(self, network: Network) -> list[Keep | None]:
        return [None]

    def __call__(self, step: Step, x0: Image, network: Network) -> Hidden:
        return Hidden(None, None)


class Masked(Masking):
    """A share `ratio` of the patches of each image, drawn at random, is hidden; the loss is that of the others' pixels.

    Several ratios, at most 4 and falling, each last as long a part of training. A ratio of 0 is plain training.
    """

    way: Way

    def __init__(self, ratio: float | Sequence[float]):
        self.ratios = [ratio] if isinstance(ratio, int | float) else [*ratio]
        falling = all(one > other for one, other in pairwise(self.ratios))
        if not 1 <= len(self.ratios) <= STEPS or not falling or not all(0 <= one < 1 for one in self.ratios):
            raise UserError(f"masking.ratio={ratio} must be a share from 0 to below 1, or up to {STEPS} that fall")

    def check(self, network: Network) -> None:
        name = type(network).__name__
        if network.patch == 0:
            raise UserError(f"masking={self.way.value}: {name} sees every pixel: network=dit_s, or masking=none")
        if self.way not in network.spans:
            raise UserError(
                f"masking={self.way.value}: no block of {name} is left between network.mixer and network.decoder: "
                "lower them, or raise network.depth"
            )
        ratio, patches = self.ratios[0], network.side**2
        count = kept_of(patches, ratio)
        if count < network.fewest:
            raise UserError(
                f"masking.ratio={ratio} keeps {count or 'none'} of {patches} patches, and {name} must see"
                f" {network.fewest}: give a smaller one"
            )

    def keeps(self, network: Network) -> list[Keep | None]:
        patches = network.side**2
        counts = [kept_of(patches, ratio) for ratio in self.ratios]
        return [None if count == patches else Keep(torch.arange(count)[None], self.way) for count in counts]

    def __call__(self, step: Step, x0: Image, network: Network) -> Hidden:
        patches = network.side**2
        count = kept_of(patches, self.ratio(step.progress))
        if count == patches:
            return Hidden(None, None)
        lots = step.draw("hidden patches", torch.rand, (len(x0), patches), x0.device)
        keep = Keep(lots.argsort(dim=1)[:, :count], self.way)
        return Hidden(keep, seen(keep, network.side, network.patch))

    def ratio(self, progress: float) -> float:
        return self.ratios[min(int(progress * len(self.ratios)), len(self.ratios) - 1)]


class Naive(Masked):
    """From the first block on. He et al. 2021 (2111.06377) for autoencoders; the baseline here."""

    way = Way.NAIVE


class Deferred(Masked):
    """After a patch mixer has seen all patches. Sehwag et al. 2024 (2407.15811), section 3.1."""

    way = Way.DEFERRED


class MaskDiT(Masked):
    """A decoder of a few blocks sees all places, and restores the hidden patches. Zheng et al. 2023 (2306.09305).

    Their loss, equation 5, is the squared difference of the denoised patch from that of x_t, this brought to mean 0 and
    variance 1, times `restore`.
    """

    way = Way.MASKDIT

    def __init__(self, ratio: float | Sequence[float], restore: float = 0.1):
        super().__init__(ratio)
        if restore < 0:
            raise UserError(f"masking.{restore=} must be at least 0")
        self.restore = restore

    def auxiliary(self, denoised: Image, x_t: Image, keep: Keep, network: Network) -> PerImage:
        said, there = cut(denoised, network.patch), cut(x_t, network.patch)
        target = (there - there.mean(dim=2, keepdim=True)) / (there.var(dim=2, keepdim=True) + 1e-6).sqrt()
        error = (said - target).square().mean(dim=2)
        unseen = torch.ones_like(error).scatter(1, keep.patches, 0.0)
        return self.restore * (unseen * error).sum(dim=1) / unseen.sum(dim=1)


class Routed(Masked):
    """Past the middle blocks and back: the loss is that of all pixels. Krause et al. 2025 (2501.04765), TREAD."""

    way = Way.ROUTED

    def __call__(self, step: Step, x0: Image, network: Network) -> Hidden:
        return super().__call__(step, x0, network)._replace(seen=None)


def kept_of(patches: int, ratio: float) -> int:
    return int(patches * (1 - ratio) + 1e-6)


def seen(keep: Keep, side: int, patch: int) -> Seen:
    """1 on the pixels of the kept patches, 0 elsewhere."""
    lit = torch.zeros(len(keep.patches), side**2, device=keep.patches.device).scatter(1, keep.patches, 1.0)
    return repeat(lit, "b (y x) -> b 1 (y p) (x q)", y=side, p=patch, q=patch)
