"""`smallbatch sample`: images from a run folder, in guided-diffusion's file format, with a picture beside it."""

from pathlib import Path

import numpy as np
import torch
from hydra.utils import instantiate
from jaxtyping import Int
from omegaconf import DictConfig
from rich.progress import track
from torch import Tensor

from smallbatch import pictures
from smallbatch.cli import runs
from smallbatch.data.images import to_pixels
from smallbatch.denoiser import Denoiser
from smallbatch.errors import UserError
from smallbatch.files import replacing
from smallbatch.notation import Condition, Pixels
from smallbatch.randomness import SampleNoise, generator
from smallbatch.sampler import Sampler


def run(config: DictConfig) -> None:
    if config.n < 1:
        raise UserError(f"n={config.n} must be at least 1")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    denoiser = runs.load(config.run, device)
    if config.ema_width is not None:
        misfit = runs.reaverage(denoiser, config.run, config.ema_width)
        print(f"average of width {config.ema_width} rebuilt from snapshots; its profile is off by {misfit:.1%}")
    labels = choose(config.labels, config.n, denoiser.spec.classes, config.seed)
    sampler = instantiate(config.sampler, _convert_="all")
    images = draw(denoiser, sampler, labels, config.n, config.seed, config.batch)
    out = Path(config.out or Path(config.run) / "samples" / f"n{config.n}_seed{config.seed}.npz")
    write(out, images, labels)
    print(f"{out}\n{out.with_suffix('.png')}")


def choose(labels: str | int, n: int, classes: int, seed: int) -> Int[Tensor, " n"] | None:
    """balanced: 0, 1, 2, ... in turn; random; or one class's number. None where the model knows no classes."""
    if classes == 0 or labels == "none":
        return None
    if labels == "balanced":
        return torch.arange(n) % classes
    if labels == "random":
        return torch.randint(classes, (n,), generator=generator(seed, "labels"))
    if str(labels).isdigit() and int(labels) < classes:
        return torch.full((n,), int(labels))
    raise UserError(f"{labels=}: give balanced, random, none, or a class from 0 to {classes - 1}")


def draw(
    denoiser: Denoiser, sampler: Sampler, labels: Int[Tensor, " n"] | None, n: int, seed: int, batch: int
) -> Pixels:
    """Images 0..n-1 of this seed; each depends on its own number alone."""
    spec = denoiser.spec
    device = next(denoiser.parameters()).device
    parts = []
    for rows in track(torch.arange(n).split(batch), description="sample"):
        noise = SampleNoise(seed, rows.tolist(), (spec.channels, spec.size, spec.size), device)
        condition = Condition(None if labels is None else labels[rows].to(device))
        parts.append(to_pixels(sampler(denoiser, noise, condition)).cpu())
    return torch.cat(parts)


def write(out: Path, images: Pixels, labels: Int[Tensor, " n"] | None) -> None:
    """arr_0 (n, h, w, c) uint8, arr_1 labels; and a grid of the first 100, ten across."""
    if out.suffix != ".npz":
        raise UserError(f"out={out} must end in .npz")
    arrays = [images.permute(0, 2, 3, 1).numpy()] + ([] if labels is None else [labels.numpy()])
    with replacing(out) as partial:
        np.savez(partial, *arrays)
    pictures.save(pictures.grid(images[:100], columns=10), out.with_suffix(".png"))
