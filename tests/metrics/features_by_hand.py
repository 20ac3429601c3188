"""Features that need no weights: mean and spread of each channel."""

from contextlib import contextmanager

import torch

from smallbatch.metrics.extractors import Extractor, Features


class ByHand(Extractor):
    name, identity, dimension = "by_hand", "by_hand 1", 6

    def prepare(self, data): ...

    @contextmanager
    def on(self, device):
        yield lambda pixels: Features(by_hand(pixels))


def by_hand(pixels):
    flat = pixels.float().expand(-1, 3, -1, -1).flatten(2)
    return torch.cat([flat.mean(dim=2), flat.std(dim=2)], dim=1)
