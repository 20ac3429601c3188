"""Features that need no download: those of a small net trained on the data set's own labels, and kept."""

import json
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from smallbatch.data.module import ImageData
from smallbatch.errors import UserError, refuse_unless_positive
from smallbatch.files import in_turn, replacing
from smallbatch.metrics.classifier_net import FEATURES, VERSION, Net, accuracy, refuse_other, trained
from smallbatch.metrics.extractors import Network
from smallbatch.metrics.weights import SHOWN, one_line, sha256_of
from smallbatch.notation import ImageSpec
from smallbatch.randomness import key


class About(NamedTuple):
    """What a classifier's file says of it: `data` is a fingerprint, `accuracy` a share of held-out labels."""

    spec: ImageSpec
    data: str
    accuracy: float
    images: int
    seed: int


def save(network: Net, about: About, path: Path) -> None:
    with replacing(path) as partial:
        save_file(network.state_dict(), partial, {"classifier": json.dumps(about._asdict())})


def read(path: Path) -> tuple[Net, About]:
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["classifier"])
            about = About(**about | {"spec": ImageSpec(*about["spec"])})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        with torch.device("meta"):
            network = Net(about.spec)
        network.load_state_dict(tensors, assign=True)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(
            f"extractor.weights={path} is no classifier of this version ({one_line(error)[:100]}): remove it and leave "
            "extractor.weights out to train one"
        ) from None
    return network, about


class Classifier(Network):
    """`weights`: a file of an earlier training; None: the one in `folder` for the data set at hand, trained if need be.

    Its distances compare only under the same weights, which the identity tells.
    """

    name, dimension, has_classes = "classifier", FEATURES, True

    def __init__(self, folder: str, weights: str | None = None, images: int = 20_000, seed: int = 0):
        refuse_unless_positive("extractor", images=images)
        self.folder, self.images, self.seed = Path(folder).expanduser(), images, seed
        self.path = None if weights is None else Path(weights).expanduser()

    def prepare(self, data: ImageData | None) -> None:
        if self.path is None:
            self.path = self._of(data)
        if data is not None:
            refuse_other(self.about.spec, data.spec.channels, data.spec.size, data.spec.size)
            self.knows_labels = self.about.data == data.fingerprint

    @cached_property
    def identity(self) -> str:
        share = f"{100 * self.about.accuracy:.1f} % of held-out labels"
        return f"{self.name} {sha256_of(self.network.state_dict())[:SHOWN]} ({share})"

    @cached_property
    def about(self) -> About:
        return read(self._known())[1]

    def load(self) -> nn.Module:
        return read(self._known())[0]

    def _known(self) -> Path:
        assert self.path is not None, "prepare comes first"
        return self.path

    def _of(self, data: ImageData | None) -> Path:
        """The file for a data set, made where it is not there."""
        if data is None:
            raise UserError("extractor=classifier learns from a data set: give data=..., or extractor.weights=FILE")
        if data.spec.classes < 2:
            raise UserError(
                f"extractor=classifier needs 2 classes or more, the data has {data.spec.classes}: "
                "use extractor=inception, or give one trained on similar images as extractor.weights=FILE"
            )
        settings = (VERSION, data.fingerprint, *data.spec[:3], *map(len, data.parts), self.images, self.seed)
        path = self.folder / f"classifier-{key(*settings):016x}.safetensors"
        try:
            if not path.exists():
                with in_turn(path):
                    self._train(data, path)
        except OSError as error:
            raise UserError(f"extractor.folder={self.folder} cannot be written ({error}): choose another") from None
        return path

    def _train(self, data: ImageData, path: Path) -> None:
        if path.exists():  # another process was faster
            return
        network = trained(data.train_store, data.spec, self.images, self.seed)
        share = accuracy(network, data.held_out_store)
        save(network, About(data.spec, data.fingerprint, share, self.images, self.seed), path)
