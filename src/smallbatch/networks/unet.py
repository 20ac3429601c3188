"""The U-Net of guided-diffusion. Dhariwal & Nichol 2021 (2105.05233), section 3."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from smallbatch.errors import UserError
from smallbatch.networks.convolutions import (
    Block,
    Modulation,
    ScaleShift,
    Shift,
    SpatialAttention,
    Told,
    Untold,
    conv,
    group_norm,
)
from smallbatch.networks.layers import ClockAndLabel, zero_
from smallbatch.networks.network import Network
from smallbatch.notation import Condition, Image, ImageSpec, Keep, Output, Time

Small = Float[Tensor, "b c y x"]  # the image that an upsampler enlarges
Input = Float[Tensor, "b inputs h w"]  # the noised image, and beside it the enlarged one


class Stage(NamedTuple):
    """All blocks at one resolution."""

    size: int  # pixels per side
    width: int  # channels
    attends: bool


def plan(size: int, width: int, multipliers: Sequence[int | float], attention_at: Sequence[int]) -> list[Stage]:
    """One stage per multiplier, each with half the pixels per side of the one before."""
    halvings = len(multipliers) - 1
    low = size - size % 2**halvings
    if low != size:
        fits = " or ".join(str(s) for s in (low, low + 2**halvings) if s)
        raise UserError(f"image size {size} cannot be halved {halvings} times: use {fits}, or fewer multipliers")
    sizes = [size >> i for i in range(halvings + 1)]
    for pixels in attention_at:
        nearest = sorted(sizes, key=lambda s: abs(s - pixels))[:2]
        if pixels not in sizes:
            raise UserError(f"attention_at={pixels}: no stage has this size; the nearest have {nearest}")
    return [Stage(s, int(m * width), s in attention_at) for s, m in zip(sizes, multipliers, strict=True)]


@dataclass(frozen=True)
class Parts:
    """How the blocks of one U-Net are made, wherever they stand."""

    embedding: int
    modulation: type[Modulation]
    dropout: float
    heads: int
    head_width: int | None
    head_order: str
    resample_in_block: bool

    def block(self, old: int, new: int, resample: nn.Module | None = None) -> nn.Module:
        return Block(old, new, self.embedding, self.modulation, self.dropout, resample or nn.Identity())

    def attention(self, width: int) -> nn.Module:
        name, part = ("heads", self.heads) if self.head_width is None else ("head_width", self.head_width)
        if part < 1 or width % part:
            fits = min((d for d in range(1, width + 1) if width % d == 0), key=lambda d: abs(d - part))
            raise UserError(f"{name}={part} does not divide the {width} channels that attend: use {fits}")
        heads = self.heads if self.head_width is None else width // self.head_width
        return SpatialAttention(width, heads, self.head_order)

    def layer(self, old: int, stage: Stage) -> Told:
        attention = [self.attention(stage.width)] if stage.attends else []
        return Told([self.block(old, stage.width), *attention])

    def shrink(self, width: int) -> nn.Module:
        if self.resample_in_block:
            return self.block(width, width, nn.AvgPool2d(2))
        return Untold(conv(width, width, stride=2))

    def grow(self, width: int) -> nn.Module:
        double = nn.Upsample(scale_factor=2)
        if self.resample_in_block:
            return self.block(width, width, double)
        return Untold(double, conv(width, width))


class UNet(Network):
    """Down to the coarsest stage and up again; each layer up also sees what its mirror image on the way down gave."""

    block_types = (Block, SpatialAttention)

    def __init__(
        self,
        spec: ImageSpec,
        outputs: int,
        *,
        width: int = 128,
        multipliers: Sequence[int | float] = (1, 2, 2, 2),  # a stage's channels / `width`
        blocks: int = 2,  # per stage; one more on the way up
        attention_at: Sequence[int] = (16, 8),  # pixels per side; the middle always attends
        heads: int = 4,
        head_width: int | None = None,  # wins over `heads`
        head_order: str = "heads_first",
        dropout: float = 0.0,
        scale_shift: bool = True,
        resample_in_block: bool = False,
        class_conditional: bool = True,
    ):
        super().__init__()
        if width < 1 or not 0 <= dropout < 1:
            raise UserError(f"network: {width=} must be at least 1, and {dropout=} lie in [0, 1)")
        stages = plan(spec.size, width, multipliers, attention_at)
        modulation = ScaleShift if scale_shift else Shift
        parts = Parts(4 * width, modulation, dropout, heads, head_width, head_order, resample_in_block)
        self.classes = spec.classes if class_conditional else 0
        self.embed = ClockAndLabel(width, 4 * width, self.classes)
        self.low_size = spec.low_size
        self.stem = conv(spec.channels * (1 if spec.low_size is None else 2), stages[0].width)

        self.down, skips = nn.ModuleList(), [stages[0].width]
        for stage in stages:
            if stage is not stages[0]:
                self.down.append(parts.shrink(skips[-1]))
                skips.append(skips[-1])
            for _ in range(blocks):
                self.down.append(parts.layer(skips[-1], stage))
                skips.append(stage.width)

        now = skips[-1]
        self.middle = Told([parts.block(now, now), parts.attention(now), parts.block(now, now)])

        self.up = nn.ModuleList()
        for stage in reversed(stages):
            for _ in range(blocks + 1):
                self.up.append(parts.layer(now + skips.pop(), stage))
                now = stage.width
            if stage is not stages[0]:
                self.up[-1].append(parts.grow(now))

        self.head = nn.Sequential(group_norm(now), nn.SiLU(), zero_(conv(now, outputs * spec.channels)))

    def forward(self, x: Image, clock: Time, condition: Condition, keep: Keep | None = None) -> Output:
        assert keep is None, "a U-Net sees every pixel: masking needs a network of patches"
        told = self.embed(clock, condition.label)
        skips = [h := self.stem(self.beside_enlarged(x, condition.image))]
        for layer in self.down:
            skips.append(h := layer(h, told))
        h = self.middle(h, told)
        for layer in self.up:
            h = layer(torch.cat([h, skips.pop()], dim=1), told)
        return self.head(h)

    def beside_enlarged(self, x: Image, image: Small | None) -> Input:
        """An upsampler sees x and, bilinearly, the small image. Dhariwal & Nichol 2021 (2105.05233), section 5.2."""
        if self.low_size is None:
            return x
        small = (self.low_size, self.low_size)
        assert image is not None, f"an upsampler needs Condition.image, {small} pixels"
        assert image.shape[2:] == small, f"{self.low_size=}, but Condition.image is {tuple(image.shape)}"
        return torch.cat([x, F.interpolate(image, size=x.shape[2:], mode="bilinear")], dim=1)
