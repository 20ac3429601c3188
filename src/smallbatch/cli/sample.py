"""`smallbatch sample`: images from a run folder, in guided-diffusion's file format, with a picture beside it."""

import hashlib
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from omegaconf import DictConfig, OmegaConf
from rich.progress import track
from torch import Tensor

from smallbatch import pictures
from smallbatch.cli import runs
from smallbatch.cli.building import from_config
from smallbatch.data.images import to_pixels
from smallbatch.denoiser import Denoiser
from smallbatch.errors import UserError
from smallbatch.files import replacing
from smallbatch.generation import Told, generate, of_class
from smallbatch.notation import Pixels
from smallbatch.randomness import generator
from smallbatch.sampler import Sampler


class Drawing(NamedTuple):
    denoiser: Denoiser
    sampler: Sampler
    told: Told
    labels: Int[Tensor, " n"] | None


def run(config: DictConfig) -> None:
    check(config)
    out = Path(config.out or runs.within(Path(config.run), "samples") / f"{describe(config)}.npz")
    if out.suffix != ".npz":
        raise UserError(f"out={out} must end in .npz")
    drawing = drawing_of(config, "cuda" if torch.cuda.is_available() else "cpu")
    images = generate(*drawing[:3], torch.arange(config.n), config.seed, config.batch)
    steps = math.ceil(config.n / config.batch)
    parts = [to_pixels(some).cpu() for _, some in track(images, description="sample", total=steps)]
    write(out, torch.cat(parts), drawing.labels)
    print(f"{out}\n{out.with_suffix('.png')}")


def drawing_of(config: DictConfig, device: torch.device | str) -> Drawing:
    """What draws the images of a run: its averaged weights, the sampler, and the class of every image."""
    denoiser = runs.load(config.run, device)
    if config.ema_width is not None:
        misfit = runs.reaverage(denoiser, config.run, config.ema_width)
        print(f"average of width {config.ema_width} rebuilt from snapshots; its profile is off by {misfit:.1%}")
    labels = choose(config.labels, config.n, denoiser.spec.classes, config.seed)
    if labels is None and config.guidance != 1:
        raise UserError(f"guidance={config.guidance} needs labels; without them use guidance=1")
    return Drawing(denoiser, from_config(config.sampler, "sampler"), of_class(labels), labels)


def check(config: DictConfig) -> None:
    for name, least in {"n": 1, "batch": 1, "seed": 0}.items():
        if not isinstance(config[name], int) or config[name] < least:
            raise UserError(f"{name}={config[name]} must be a whole number, at least {least}")
    for name in ("guidance", "ema_width"):
        if not isinstance(config[name], int | float) and not (name == "ema_width" and config[name] is None):
            raise UserError(f"{name}={config[name]} must be a number")


def describe(config: DictConfig) -> str:
    """A file name that differs where the samples do."""
    solver, grid = (config.sampler[part]._target_.split(".")[-1] for part in ("solver", "grid"))
    width = "" if config.ema_width is None else f"_ema{config.ema_width}"
    rest = hashlib.sha256(repr(OmegaConf.to_container(config.sampler, resolve=True)).encode()).hexdigest()[:6]
    how = f"{solver}_{grid}_{rest}_steps{config.steps}_guidance{config.guidance}{width}"
    return f"labels_{config.labels}_{how}_n{config.n}_seed{config.seed}"


def choose(labels: str | int, n: int, classes: int, seed: int) -> Int[Tensor, " n"] | None:
    """balanced: 0, 1, 2, ... in turn; random; or one class's number. None where the model knows no classes."""
    if labels == "none" or (classes == 0 and labels == "balanced"):
        return None
    if classes == 0:
        raise UserError(f"{labels=}: this model knows no classes; leave labels out")
    if labels == "balanced":
        return torch.arange(n) % classes
    if labels == "random":
        return torch.randint(classes, (n,), generator=generator(seed, "labels"))
    if str(labels).isdigit() and int(labels) < classes:
        return torch.full((n,), int(labels))
    raise UserError(f"{labels=}: give balanced, random, none, or a class from 0 to {classes - 1}")


def write(out: Path, images: Pixels, labels: Int[Tensor, " n"] | None) -> None:
    """arr_0 (n, h, w, c) uint8, arr_1 labels; and a grid of the first 100, ten across."""
    arrays = [images.permute(0, 2, 3, 1).numpy()] + ([] if labels is None else [labels.numpy()])
    with replacing(out) as partial:
        np.savez(partial, *arrays)
    pictures.save(pictures.grid(images[:100], columns=10), out.with_suffix(".png"))
