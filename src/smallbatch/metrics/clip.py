"""Features of CLIP's image encoder, as torch-fidelity takes them."""

import warnings
from functools import cached_property

from torch import nn
from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS, FeatureExtractorCLIP

from smallbatch.data.module import ImageData
from smallbatch.errors import UserError
from smallbatch.metrics.extractors import InColour, Network
from smallbatch.metrics.weights import SHOWN, Found, Published

DIMENSIONS = {
    "vit-b-32": 512,
    "vit-b-16": 512,
    "vit-l-14": 768,
    "vit-l-14-336px": 768,
    "rn50": 1024,
    "rn101": 512,
    "rn50x4": 640,
    "rn50x16": 768,
    "rn50x64": 1024,
}


class Clip(Network):
    """The image embedding of Radford et al. 2021 (2103.00020), not normalised.

    `weights`: OpenAI's file, if it is not to be downloaded. It is a program as well as weights, so no other will do.
    """

    name = "clip"

    def __init__(self, model: str = "vit-b-32", weights: str | None = None):
        if model not in DIMENSIONS:
            raise UserError(f"extractor.model={model} is not known: use {', '.join(DIMENSIONS)}")
        self.model, self.weights, self.dimension = model, weights, DIMENSIONS[model]

    def prepare(self, data: ImageData | None) -> None:
        if not self.published.is_it(self.found):
            raise UserError(f"extractor.weights={self.weights} is not OpenAI's {self.published.url}: download that")

    @property
    def identity(self) -> str:
        return f"{self.name} {self.model} {self.found.sha256[:SHOWN]}"

    @property
    def published(self) -> Published:
        model = f"clip-{self.model}"
        sha256 = MODEL_METADATA[model]["hash"]
        return Published(MODEL_URLS[model], file=f"{model}-{sha256}.pt", sha256=sha256)

    @cached_property
    def found(self) -> Found:
        return self.published.find(self.weights)

    def load(self) -> nn.Module:
        self.prepare(None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # OpenAI's files are TorchScript, whatever torch advises
            return InColour(FeatureExtractorCLIP(f"clip-{self.model}", ["clip"], str(self.found.path)))
