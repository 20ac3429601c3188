"""What the rest of the package asks of a network: images and a clock in, `outputs` maps per channel out."""

from abc import ABC, abstractmethod

from torch import nn

from smallbatch.notation import Condition, Image, Keep, Mask, Output, Time


class Network(nn.Module, ABC):
    """A map from a noised image, what the clock says and what else is known, to `outputs` images side by side."""

    classes: int  # whose labels it hears; 0: none
    block_types: tuple[type[nn.Module], ...] = ()  # what most of its weights lie in, part after part, none in another
    low_size: int | None = None  # pixels per side of the `Condition.image` that it enlarges; None: it takes none

    @abstractmethod
    def forward(self, x: Image, clock: Time, condition: Condition, keep: Keep | None = None) -> Output: ...

    def forget(self, condition: Condition, mask: Mask) -> Condition:
        """The same condition, without its label where the mask is true."""
        if condition.label is None:
            return condition
        return condition._replace(label=condition.label.masked_fill(mask, -1))
