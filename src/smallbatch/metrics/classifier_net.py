"""A small net that learns to tell a data set's classes apart, for what it sees on the way."""

import torch
import torch.nn.functional as F
from jaxtyping import Float32
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from smallbatch.data.images import to_float
from smallbatch.data.store import Source
from smallbatch.errors import UserError
from smallbatch.notation import ImageSpec, Pixels
from smallbatch.randomness import generator, seed_layers

VERSION = 1  # of the net and its training: a new one trains anew
FEATURES = 64
BATCH = 32
LR = 2e-2
TESTED = 2000  # held-out images, at most


class Net(nn.Module):
    """Convolutions that halve an image down to 4 pixels, and a mean over those; up to 32 pixels the first sees all."""

    def __init__(self, spec: ImageSpec):
        super().__init__()
        self.spec = spec
        layers, channels, size = [], spec.channels, spec.size
        while size > 4:
            stride = 2 if size > 32 or layers else 1
            width = 32 if size > 32 or not layers else FEATURES
            layers.append(convolution(channels, width, stride))
            channels, size = width, -(-size // stride)
        layers.append(convolution(channels, FEATURES, stride=1))
        self.body, self.head = nn.Sequential(*layers), nn.Linear(FEATURES, spec.classes)

    def forward(self, pixels: Pixels) -> tuple[Float32[Tensor, "b d"], Float32[Tensor, "b classes"]]:
        refuse_other(self.spec, *pixels.shape[1:])
        vectors = self.body(to_float(pixels)).mean(dim=(2, 3))
        return vectors, self.head(vectors)


def refuse_other(spec: ImageSpec, *shape: int) -> None:
    """Of channels, height and width."""
    own = (spec.channels, spec.size, spec.size)
    if shape != own:
        sizes = ["x".join(map(str, sides)) for sides in (own, shape)]
        raise UserError(
            f"extractor=classifier was trained on images of {sizes[0]}, these are {sizes[1]}: give such images, "
            "or use extractor=inception"
        )


def convolution(channels: int, width: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, kernel_size=3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())


def trained(source: Source, spec: ImageSpec, images: int, seed: int) -> Net:
    """On rows drawn evenly from `source`. It leaves the global generator as it was."""
    with (
        torch.random.fork_rng(devices=[]),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast("cpu", enabled=False),
    ):
        seed_layers(seed, "classifier", device=torch.device("cpu"))
        network, steps = Net(spec), -(-images // BATCH)
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
        rows = generator(seed, "classifier", "rows")
        for _ in track(range(steps), "training a classifier for the metrics", console=Console(stderr=True)):
            batch = source.take(torch.randint(len(source), (BATCH,), generator=rows))
            optimizer.zero_grad()
            F.cross_entropy(network(batch.pixels)[1], batch.labels).backward()
            optimizer.step()
            rate.step()
        return network.eval()


@torch.no_grad()
def accuracy(network: Net, source: Source) -> float:
    """Of rows evenly spread over the source, which may be sorted by class."""
    count = min(len(source), TESTED)
    rows = torch.arange(count) * len(source) // count
    right = [(network(part.pixels)[1].argmax(dim=1) == part.labels) for part in map(source.take, rows.split(250))]
    return torch.cat(right).double().mean().item()
