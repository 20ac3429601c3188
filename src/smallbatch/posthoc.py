"""Averages of any power-function width, rebuilt after training from a few stored ones."""

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from safetensors import safe_open
from safetensors.torch import save_file

from smallbatch.ema import Average, Power, Weights
from smallbatch.errors import UserError
from smallbatch.files import replacing

Curve = Float64[np.ndarray, " _"]  # one number per profile


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
    with replacing(path) as partial:
        save_file(tensors, partial, {"images": str(images), "relative_std": json.dumps(widths)})


def load_snapshots(folder: Path) -> list[Snapshot]:
    """Every average in the folder's snapshot files, oldest first; no weights are read yet."""
    return [snapshot for path in sorted(Path(folder).glob("[!.]*.safetensors")) for snapshot in inside(path)]


def inside(path: Path) -> list[Snapshot]:
    with safe_open(path, "pt") as file:
        about = file.metadata()
    widths = json.loads(about["relative_std"])
    readers = {name: functools.partial(read, path, f"{name}/") for name in widths}
    return [Snapshot(Power(width), int(about["images"]), readers[name]) for name, width in widths.items()]


def read(path: Path, prefix: str) -> Weights:
    with safe_open(path, "pt") as file:
        keys = file.keys()
        return {key.removeprefix(prefix): file.get_tensor(key) for key in keys if key.startswith(prefix)}
