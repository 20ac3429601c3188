"""How the heads of a mixed prediction are taught: which errors are terms of the loss, and what each counts."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F

from smallbatch.errors import UserError, refuse_unless_positive
from smallbatch.notation import PerTerm
from smallbatch.predictions import Terms


class Teach(ABC):
    """`native` has each head's error in its own space, three columns; `fused()` the fused velocity's, one column."""

    @abstractmethod
    def columns(self, native: Terms, fused: Callable[[], Terms]) -> Terms: ...

    @abstractmethod
    def shares(self, weighted: PerTerm) -> PerTerm:
        """What each weighted term counts in an image's loss."""


class OnBlend(Teach):
    """The error of the fused velocity."""

    def columns(self, native: Terms, fused: Callable[[], Terms]) -> Terms:
        return fused()

    def shares(self, weighted: PerTerm) -> PerTerm:
        return torch.ones_like(weighted)


class OnHeads(Teach):
    """Half the sum of the heads' own errors, which is never below the error of the closed form's blend.

    By Jensen: half that sum is the mean of the three errors in v, with the closed form's weights. So every weighting
    acts on it as on one error in v, and leaves the heads' own errors comparable.
    """

    def columns(self, native: Terms, fused: Callable[[], Terms]) -> Terms:
        return as_of_v(native)

    def shares(self, weighted: PerTerm) -> PerTerm:
        return torch.full_like(weighted, 0.5)


class Both(Teach):
    """The error of the fused velocity, and `native` times half the sum of the heads' own."""

    def __init__(self, native: float = 0.1):
        refuse_unless_positive("prediction: teach", native=native)
        self.native = native

    def columns(self, native: Terms, fused: Callable[[], Terms]) -> Terms:
        return beside(fused(), as_of_v(native))

    def shares(self, weighted: PerTerm) -> PerTerm:
        of_fused, of_heads = weighted[:, :1], weighted[:, 1:]
        return torch.cat([torch.ones_like(of_fused), torch.full_like(of_heads, self.native / 2)], dim=1)


class Smallest(Teach):
    """The smallest weighted term alone: of each image, or of each micro-batch.

    Within a micro-batch the winner depends on the number of processes and on `accumulation`.
    """

    def __init__(self, per: str = "image"):
        if per not in ("image", "batch"):
            raise UserError(f"prediction: teach.per={per} is not known: use image or batch")
        self.per = per

    def shares(self, weighted: PerTerm) -> PerTerm:
        competing = {"image": weighted, "batch": weighted.mean(dim=0, keepdim=True)}[self.per]
        return F.one_hot(competing.argmin(dim=1), weighted.shape[1]).to(weighted).expand_as(weighted)


class SmallestRaw(Smallest):
    """Of the heads' own errors. Xie & Agam 2025 (2502.01990), whose rule is this with weighting=plain.

    At equal errors of x0 the raw errors of x0, eps and v stand as 1 : SNR : 1 + SNR. So x0 wins near the data, eps near
    the noise, where each carries least, and v never: on one shared output, a weight min(alpha^2, sigma^2) in v.
    """

    def columns(self, native: Terms, fused: Callable[[], Terms]) -> Terms:
        return native


class SmallestCommon(Smallest):
    """Of the heads' errors in v, where they can be compared."""

    def columns(self, native: Terms, fused: Callable[[], Terms]) -> Terms:
        into_v = (native.gain / _of_v(native)).square()
        slope, pooled = native.slope * into_v.square(), native.pooled * into_v.square()
        return Terms(native.error * into_v, as_of_v(native).gain, slope, pooled)


def as_of_v(native: Terms) -> Terms:
    """The heads' own errors, to be weighted as errors in v."""
    return native._replace(gain=_of_v(native).expand_as(native.gain))


def beside(*parts: Terms) -> Terms:
    """The columns of all parts."""
    columns = zip(*((part.error, part.gain, part.slope, part.pooled) for part in parts), strict=True)
    return Terms(*(torch.cat(column, dim=1) for column in columns))


def _of_v(native: Terms) -> PerTerm:
    """The gain of the last head."""
    return native.gain[:, 2:]
