"""What the rest of the package asks of a network: images and a clock in, `outputs` maps per channel out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import nn

from smallbatch.networks.patches import Span
from smallbatch.notation import Condition, Image, Keep, Mask, Output, TextSpec, Time, Way


class Network(nn.Module, ABC):
    """A map from a noised image, what the clock says and what else is known, to `outputs` images side by side."""

    classes: int  # whose labels it hears; 0: none
    block_types: tuple[type[nn.Module], ...] = ()  # what most of its weights lie in, part after part, none in another
    patch: int = 0  # pixels per side of the patches that it may be spared; 0: it sees every pixel
    side: int  # patches per side of an image
    spans: Mapping[Way, Span]  # the ways in which it may be spared patches, and in which of its blocks
    fewest: int = 1  # patches that it must see
    text: TextSpec | None = None  # what it hears besides; None: no text
    low_size: int | None = None  # pixels per side of the `Condition.image` that it enlarges; None: it takes none

    @abstractmethod
    def forward(self, x: Image, clock: Time, condition: Condition, keep: Keep | None = None) -> Output: ...

    def forget(self, condition: Condition, mask: Mask) -> Condition:
        """The same condition, without its label and its text where the mask is true."""
        label, text = condition.label, condition.text
        if label is not None:
            label = label.masked_fill(mask, -1)
        if text is not None:
            text = text._replace(mask=text.mask & ~mask[:, None])
        return condition._replace(label=label, text=text)
