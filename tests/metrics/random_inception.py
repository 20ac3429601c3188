"""Inception of random weights, in a file as torch-fidelity publishes its own."""

import io
from pathlib import Path

import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

FEATURES = ["2048", "logits_unbiased"]


class Blank(FeatureExtractorInceptionV3):
    """As its layers are made, before any file is read."""

    def __init__(self):
        torch.save({}, nothing := io.BytesIO())
        nothing.seek(0)
        super().__init__("inception-v3-compat", FEATURES, nothing)

    def load_state_dict(self, state_dict):
        assert not state_dict


def write(path: Path) -> None:
    """He et al.'s spread keeps activations alive; norms measured on noise keep images apart through all layers."""
    network, source = Blank().train(), torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=source)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.05, generator=source)
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    network(pictures(6, seed=1))
    torch.save(network.state_dict(), path)


def pictures(count: int, seed: int, size: int = 16, channels: int = 3) -> torch.Tensor:
    return torch.randint(256, (count, channels, size, size), generator=torch.Generator().manual_seed(seed)).byte()
