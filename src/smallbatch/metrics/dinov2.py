"""Features of DINOv2, as torch-fidelity takes them."""

from contextlib import nullcontext
from functools import cached_property
from pathlib import Path

import torch
from torch import nn
from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

from smallbatch.data.module import ImageData
from smallbatch.errors import UserError
from smallbatch.files import in_turn
from smallbatch.metrics.extractors import InColour, Network
from smallbatch.metrics.weights import EMBEDDED, SHOWN, one_line, sha256_of

DIMENSIONS = {"vit-s-14": 384, "vit-b-14": 768, "vit-l-14": 1024, "vit-g-14": 1536}
REPOSITORY = "facebookresearch_dinov2_main"


class DinoV2(Network):
    """The class token of Oquab et al. 2023 (2304.07193), for distances as of Stein et al. 2023 (2306.04675).

    Its code and weights come from torch.hub, which downloads both once.
    """

    name = "dinov2"

    def __init__(self, model: str = "vit-b-14"):
        if model not in DIMENSIONS:
            raise UserError(f"extractor.model={model} is not known: use {', '.join(DIMENSIONS)}")
        self.model, self.dimension = model, DIMENSIONS[model]

    def prepare(self, data: ImageData | None) -> None:
        """Loads it: only so can be found out whether torch.hub has all of it."""
        _ = self.network

    @cached_property
    def identity(self) -> str:
        return f"{self.name} {self.model} {sha256_of(self.network.state_dict())[:SHOWN]}"

    def load(self) -> nn.Module:
        hub = Path(torch.hub.get_dir())
        try:
            with nullcontext() if (hub / REPOSITORY).is_dir() else in_turn(hub / REPOSITORY):
                return InColour(FeatureExtractorDinoV2(f"dinov2-{self.model}", ["dinov2"]))
        except (OSError, RuntimeError, ImportError) as error:
            weights = f"checkpoints/dinov2_{self.model.replace('-', '')}_pretrain.pth"
            raise UserError(
                f"{hub} lacks DINOv2 and cannot download it ({one_line(error)}): put the code there as {REPOSITORY}, "
                f"from https://github.com/facebookresearch/dinov2, with its {weights}; {EMBEDDED}"
            ) from None
