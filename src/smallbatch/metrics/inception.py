"""The features of FID: TensorFlow's Inception of 2015, in torch-fidelity's port."""

import io
import pickle
from functools import cached_property
from pathlib import Path

import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from smallbatch.data.module import ImageData
from smallbatch.errors import UserError
from smallbatch.metrics.extractors import InColour, Network
from smallbatch.metrics.weights import SHOWN, Found, Published, one_line

PUBLISHED = Published(URL_INCEPTION_V3, file=Path(URL_INCEPTION_V3).name, sha256="6726825d")
BROKEN = (RuntimeError, OSError, ValueError, TypeError, AttributeError, KeyError, EOFError, pickle.UnpicklingError)


class Inception(Network):
    """2,048 features of the last pooling, Heusel et al. 2017 (1706.08500); logits without bias, for Inception Scores.

    `weights`: a file in torch-fidelity's format; None: the published one, downloaded. Images are enlarged to 299 x 299
    as by TensorFlow 1.
    """

    name, dimension, has_classes = "inception", 2048, True

    def __init__(self, weights: str | None = None):
        self.weights = weights

    def prepare(self, data: ImageData | None) -> None:
        if not PUBLISHED.is_it(self.found):
            self.loaded()  # refuses a file that is none, before it is needed

    @property
    def marks(self) -> list[str]:
        return [] if PUBLISHED.is_it(self.found) else ["not the published weights"]

    @property
    def identity(self) -> str:
        foreign = "" if PUBLISHED.is_it(self.found) else " (not the published weights)"
        return f"{self.name} {self.found.sha256[:SHOWN]}{foreign}"

    @cached_property
    def found(self) -> Found:
        return PUBLISHED.find(self.weights)

    def load(self) -> nn.Module:
        """torch-fidelity unpickles whatever its file holds: it is given one that we wrote, of nothing but tensors."""
        try:
            tensors = torch.load(self.found.path, map_location="cpu", weights_only=True)
            torch.save(tensors, copy := io.BytesIO())
            copy.seek(0)
            return InColour(FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], copy))
        except BROKEN as error:
            raise UserError(
                f"extractor.weights={self.found.path} does not hold torch-fidelity's Inception "
                f"({one_line(error)[:100]}): the file is {PUBLISHED.url}"
            ) from None
