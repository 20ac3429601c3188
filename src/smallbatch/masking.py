"""Which patches of an image a network sees during training."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import nn

from smallbatch.notation import Image, Keep, NoiseLevel, Output, PerImage, Seen
from smallbatch.randomness import Step


class Hidden(NamedTuple):
    """The kept patches, and the pixels on which the loss is taken (None: all)."""

    keep: Keep | None
    seen: Seen | None


class Masking(nn.Module, ABC):
    @abstractmethod
    def forward(self, step: Step, x0: Image, network: nn.Module) -> Hidden: ...

    def auxiliary(self, out: Output, x0: Image, level: NoiseLevel, hidden: Hidden) -> PerImage:
        """A further loss per image; none unless a method brings one."""
        return torch.zeros_like(level.t)


class Unmasked(Masking):
    """The network sees all of every image."""

    def forward(self, step: Step, x0: Image, network: nn.Module) -> Hidden:
        return Hidden(None, None)
