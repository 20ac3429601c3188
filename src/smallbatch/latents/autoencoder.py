"""What makes latents of images, for a network to learn, and images of latents."""

from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Float
from torch import Tensor

from smallbatch.errors import UserError
from smallbatch.notation import Image, ImageSpec

Z = Float[Tensor, "b maps rows columns"]  # latents, beside images with axes of their own


class Autoencoder(ABC):
    """Images in [-1, 1] become latents of `maps` channels and 1 / `factor` the size, with a variance near 1."""

    channels: int  # of the images
    maps: int
    factor: int

    def latents(self, images: ImageSpec) -> ImageSpec:
        """Of what such images become."""
        if images.channels != self.channels:
            raise UserError(
                f"the autoencoder takes images of {self.channels} channels, and these have {images.channels}"
            )
        size, rest = divmod(images.size, self.factor)
        if rest:
            near = [str(n * self.factor) for n in (size, size + 1) if n > 0]
            raise UserError(
                f"data.size={images.size}: {self.factor} does not divide it, as the autoencoder needs: "
                f"use {' or '.join(near)}"
            )
        return images._replace(channels=self.maps, size=size, latents=True)

    def images(self, latents: ImageSpec) -> ImageSpec:
        """Of what such latents become."""
        return latents._replace(channels=self.channels, size=latents.size * self.factor, latents=False)

    @abstractmethod
    def prepare(self) -> None:
        """Refuses, before long work, what is not there."""

    @abstractmethod
    def encode(self, x: Image, eps: Z) -> Z:
        """In float32. `eps`: standard normal noise in the latents' shape, for where one of many is drawn."""

    @abstractmethod
    def decode(self, z: Z) -> Image:
        """In float32, within [-1, 1]."""

    @abstractmethod
    def described(self) -> dict[str, Any]:
        """What makes the same autoencoder again: `_target_` and its arguments, as plain values."""
