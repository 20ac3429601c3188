"""What turns pixels into the features that scores are computed from."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from smallbatch.data.module import ImageData
from smallbatch.errors import UserError
from smallbatch.notation import Pixels


class Features(NamedTuple):
    """One row per image; logits where the network has classes."""

    vectors: Float32[Tensor, "b d"]
    logits: Float32[Tensor, "b classes"] | None = None


Extract = Callable[[Pixels], Features]


class Extractor(ABC):
    """No module: a checkpoint of what holds an extractor knows nothing of its weights."""

    name: str  # as in fd_NAME@n; only inception's Frechet distance is called FID
    dimension: int
    has_classes = False  # whether it gives logits
    knows_labels = False  # whether they are of the classes of the data set
    marks: Sequence[str] = ()  # what to know of every score in its features

    @abstractmethod
    def prepare(self, data: ImageData | None) -> None:
        """Has the weights at hand: finds, downloads or trains them, or refuses. Every process may call it at once."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """Its name, the first 12 digits of its weights' SHA-256, and what a reader should know of them."""

    @abstractmethod
    def on(self, device: torch.device | str) -> AbstractContextManager[Extract]:
        """Lends it on a device, which is free of it again afterwards."""


class Network(Extractor):
    """Loaded when it is first lent, and then kept on the CPU between loans."""

    @abstractmethod
    def load(self) -> nn.Module:
        """From uint8 pixels to vectors and, if there are classes, logits."""

    def loaded(self) -> nn.Module:
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):  # layers are first filled at random
            return self.load().eval().requires_grad_(False)

    @cached_property
    def network(self) -> nn.Module:
        return self.loaded()

    @contextmanager
    def on(self, device: torch.device | str) -> Iterator[Extract]:
        device = torch.device(device)
        with lent(self.network, device) as network:
            yield lambda pixels: Features(*network(pixels.to(device)))


@contextmanager
def lent(network: nn.Module, device: torch.device) -> Iterator[Callable[..., Any]]:
    """What it answers on a device, in float32 and without gradients; it is back on the CPU afterwards."""

    @torch.inference_mode()
    def answer(*given: Tensor, **named: Tensor) -> Any:
        with torch.autocast(device.type, enabled=False):
            return network(*given, **named)

    try:
        _move(network, device)
        yield answer
    finally:
        _move(network, torch.device("cpu"))


def _move(network: nn.Module, device: torch.device) -> None:
    with torch.inference_mode(False):  # a tensor that is made under it could not leave it
        network.to(device)


class InColour(nn.Module):
    """A network of colour images, to which grey ones are shown in all three channels."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, pixels: Pixels) -> tuple[Tensor, ...]:
        if pixels.shape[1] not in (1, 3):
            raise UserError(f"images with {pixels.shape[1]} channels have no such features: give grey or colour images")
        return self.network(pixels.expand(-1, 3, -1, -1))
