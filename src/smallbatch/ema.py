"""Moving averages of the weights: how each profile forgets; power-function widths rebuilt after training."""

import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from smallbatch.errors import UserError

Weights = dict[str, Tensor]
Curve = Float64[np.ndarray, " _"]  # one number per profile


class Profile(ABC):
    """How an average forgets, counted in images."""

    @abstractmethod
    def keep(self, images: int, batch: int) -> float:
        """Share of the average that survives a step on `batch` images, the last of `images` seen."""


@dataclass(frozen=True)
class Power(Profile):
    """Weight t^gamma on the weights of time t: relative_std is its width as a share of the run so far.

    Karras et al. 2023 (2312.02696), sec. 3.1. Whatever the batches, a step weighs in with the integral of the
    profile over its images, and the first step replaces the initial weights.
    """

    relative_std: float

    def __post_init__(self) -> None:
        if not 0 < self.relative_std <= 12**-0.5:
            raise UserError(f"relative_std={self.relative_std}: give more than 0, at most 0.288 (a flat average)")

    @cached_property
    def gamma(self) -> float:
        """The one root >= 0 of relative_std^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3))."""
        precision = self.relative_std**-2
        return float(np.roots([1, 7, 16 - precision, 12 - precision]).real.max())

    def keep(self, images: int, batch: int) -> float:
        return (1 - batch / images) ** (self.gamma + 1)


@dataclass(frozen=True)
class Halflife(Profile):
    """The classic average, its half-life capped at a share of the images seen. Karras et al. 2022 (2206.00364).

    Without the cap (`rampup` infinite) a run shorter than the half-life stays near its first weights.
    """

    images: int
    rampup: float = 0.05

    def __post_init__(self) -> None:
        if min(self.images, self.rampup) <= 0:
            raise UserError(f"{self}: give a half-life and a ramp-up above 0, or use ema=none")

    def keep(self, images: int, batch: int) -> float:
        return 0.5 ** (batch / min(self.images, self.rampup * images))


@dataclass(frozen=True)
class Latest(Profile):
    """No average: the weights of the last step."""

    def keep(self, images: int, batch: int) -> float:
        return 0.0


class Average:
    """A float32 average of named parameters; until the first update empty, and so equal to the current weights."""

    def __init__(self, profile: Profile):
        self.profile = profile
        self.weights: Weights = {}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, Tensor], images: int, batch: int) -> None:
        if not self.weights:
            self.weights = {name: value.detach().to(torch.float32, copy=True) for name, value in parameters.items()}
            return
        changed = self.weights.keys() ^ parameters.keys()
        assert not changed, f"the averaged parameters changed: {sorted(changed)}"
        self.weights = {name: value.to(parameters[name].device) for name, value in self.weights.items()}
        current = [parameters[name].detach().float() for name in self.weights]
        torch._foreach_lerp_(list(self.weights.values()), current, 1 - self.profile.keep(images, batch))

    @contextmanager
    def swapped(self, module: nn.Module) -> Iterator[None]:
        """The average, written into the module's own storage; afterwards the module's weights again, bit for bit."""
        parameters = dict(module.named_parameters())
        own = {name: parameters[name].detach().clone() for name in self.weights}
        try:
            overwrite(parameters, self.weights)
            yield
        finally:
            overwrite(parameters, own)


@torch.no_grad()
def overwrite(parameters: Mapping[str, Tensor], values: Weights) -> None:
    for name, value in values.items():
        parameters[name].copy_(value)


def trainable(network: nn.Module) -> dict[str, nn.Parameter]:
    """What is averaged: never a buffer, never a frozen parameter."""
    chosen = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert chosen, f"{type(network).__name__} has no trainable parameter to average"
    return chosen


@dataclass(frozen=True)
class Snapshot:
    """A power-function average as it stood after `images`; `load` reads its weights."""

    profile: Power
    images: int
    load: Callable[[], Weights]


class Blend(NamedTuple):
    """Snapshots, their shares, of sum 1, and how much of the target profile they miss: |blend - target| / |target|."""

    snapshots: list[Snapshot]
    shares: Float64[np.ndarray, " n"]
    misfit: float


def overlap(g: Curve, t: Curve, h: Curve, s: Curve) -> Float64[np.ndarray, "p q"]:
    """Integrals of p_i q_j: p_i = (g + 1) x^g / t^(g + 1) on [0, t], with g = g_i, t = t_i; q_j likewise with h, s."""
    g, t = g[:, None], t[:, None]
    earlier_over_later = (t / s) ** np.where(t < s, h, -g)
    return (g + 1) * (h + 1) / (g + h + 1) * earlier_over_later / np.maximum(t, s)


def blend(snapshots: Sequence[Snapshot], relative_std: float, images: int) -> Blend:
    """The least-squares combination of the snapshots up to `images`. Karras et al. 2023 (2312.02696), sec. 3.2.

    Unlike there, profiles are scaled to unit length before solving, and repeated ones are allowed.
    """
    used = [snapshot for snapshot in snapshots if snapshot.images <= images]
    if not used:
        raise UserError(f"no EMA snapshot at or before images={images}; set ema.snapshot_every_images in training")
    stored = np.array([(s.profile.gamma, s.images) for s in used], dtype=np.float64).T
    target = np.array([[Power(relative_std).gamma], [images]], dtype=np.float64)
    gram, projection = overlap(*stored, *stored), overlap(*stored, *target)[:, 0]
    length = np.sqrt(np.diag(gram))
    solution = np.linalg.lstsq(gram / np.outer(length, length), projection / length, rcond=None)[0] / length
    x = solution / solution.sum()
    missed = 1 + (x @ gram @ x - 2 * x @ projection) / overlap(*target, *target).item()
    return Blend(used, x, math.sqrt(max(missed, 0)))


def reconstruct(snapshots: Sequence[Snapshot], relative_std: float, images: int) -> Weights:
    """The power-function average of any width as it stood after `images`, one snapshot in memory at a time.

    Measured on 1000 AdamW steps of an 11,000-parameter denoiser, widths 0.05 and 0.10 stored every 5 % of the run: the
    snapshots' float16 costs 2e-4 of the weights' norm, at any width; the blend 1e-5 at width 0.075, 5e-4 at 0.20.
    Beside the distance from the average to the last weights float16 costs 0.2 to 0.5 %, but 1 to 7 % if the learning
    rate fell to 0, where the two all but coincide.
    """
    chosen, total = blend(snapshots, relative_std, images), {}
    for snapshot, share in zip(chosen.snapshots, chosen.shares.tolist(), strict=True):
        accumulate(total, share, snapshot.load())
    return total


def accumulate(total: Weights, share: float, weights: Weights) -> None:
    assert not total or total.keys() == weights.keys(), f"parameters differ: {total.keys() ^ weights.keys()}"
    for name, value in weights.items():
        total[name] = total.get(name, 0) + share * value.float()


def write_snapshot(path: Path, averages: Mapping[str, Average], images: int) -> None:
    """The power-function averages as float16 in one file, which exists whole or not at all."""
    power = {name: average for name, average in averages.items() if isinstance(average.profile, Power)}
    widths = {name: average.profile.relative_std for name, average in power.items()}
    tensors = {
        f"{name}/{key}": value.half().contiguous() for name, a in power.items() for key, value in a.weights.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".writing")
    save_file(tensors, beside, {"images": str(images), "relative_std": json.dumps(widths)})
    with open(beside, "rb") as written:
        os.fsync(written.fileno())
    os.replace(beside, path)


def load_snapshots(folder: Path) -> list[Snapshot]:
    """Every average in the folder's snapshot files, oldest first; no weights are read yet."""
    return [snapshot for path in sorted(Path(folder).glob("*.safetensors")) for snapshot in inside(path)]


def inside(path: Path) -> list[Snapshot]:
    with safe_open(path, "pt") as file:
        about = file.metadata()
    widths = json.loads(about["relative_std"])
    return [
        Snapshot(Power(width), int(about["images"]), partial(read, path, f"{name}/")) for name, width in widths.items()
    ]


def read(path: Path, prefix: str) -> Weights:
    with safe_open(path, "pt") as file:
        keys = file.keys()
        return {key.removeprefix(prefix): file.get_tensor(key) for key in keys if key.startswith(prefix)}
