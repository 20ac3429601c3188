"""`smallbatch sample`: images from a run folder, in guided-diffusion's file format, with a picture beside it."""

import hashlib
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from rich.progress import track

from smallbatch import pictures
from smallbatch.cli import conditions, runs
from smallbatch.cli.building import from_config
from smallbatch.cli.conditions import Asked
from smallbatch.data.images import enlarged, to_pixels
from smallbatch.data.module import ImageData
from smallbatch.denoiser import Denoiser
from smallbatch.errors import UserError
from smallbatch.files import replacing
from smallbatch.generation import Pictured, as_it_is, generate, one, own
from smallbatch.latents.autoencoder import Autoencoder
from smallbatch.notation import ImageSpec, Pixels
from smallbatch.sampler import Sampler

FIRST, FIRST_ENLARGED, FIRST_TOLD = 100, 40, 32  # images that are pictured
NOISES = {"by_image": own, "one": one}


class Drawing(NamedTuple):
    denoiser: Denoiser
    sampler: Sampler
    asked: Asked
    autoencoder: Autoencoder | None

    @property
    def spec(self) -> ImageSpec:
        """Of the pictures."""
        return self.denoiser.spec if self.autoencoder is None else self.autoencoder.images(self.denoiser.spec)

    @property
    def pictured(self) -> Pictured:
        return as_it_is if self.autoencoder is None else self.autoencoder.decode


def run(config: DictConfig) -> None:
    check(config)
    if config.noise not in NOISES:
        raise UserError(f"noise={config.noise}: give by_image, or one for frames of a film, which then share theirs")
    if config.out is not None and Path(config.out).suffix != ".npz":
        raise UserError(f"out={config.out} must end in .npz")
    own = runs.within(Path(config.run), "samples") if config.out is None else None
    denoiser, sampler, asked, _ = drawing = drawing_of(config, "cuda" if torch.cuda.is_available() else "cpu")
    out = Path(config.out) if own is None else own / f"{describe(config, asked.n)}.npz"
    numbers, whose = torch.arange(asked.n), NOISES[config.noise]
    images = generate(denoiser, sampler, asked.told, numbers, config.seed, config.batch, whose, drawing.pictured)
    steps = math.ceil(asked.n / config.batch)
    pixels = torch.cat([to_pixels(some).cpu() for _, some in track(images, description="sample", total=steps)])
    write(out, pixels, asked)
    pictures.save(picture(drawing, pixels), out.with_suffix(".png"))
    print(f"{out}\n{out.with_suffix('.png')}")


def drawing_of(config: DictConfig, device: torch.device | str, data: ImageData | None = None) -> Drawing:
    """What draws the images of a run: its averaged weights, the sampler, and what each image is drawn from.

    `data` holds the images that a run enlarges; None: what `data_of` finds.
    """
    denoiser = runs.load(config.run, device)
    if config.ema_width is not None:
        misfit = runs.reaverage(denoiser, config.run, config.ema_width)
        print(f"average of width {config.ema_width} rebuilt from snapshots; its profile is off by {misfit:.1%}")
    asked = asked_of(config, denoiser.spec, data, device)
    if asked.labels is None and denoiser.spec.text is None and config.guidance != 1:
        raise UserError(f"guidance={config.guidance} needs labels or a text; without them use guidance=1")
    autoencoder = runs.autoencoder_of(Path(config.run))
    if autoencoder is not None:
        autoencoder.prepare()
    return Drawing(denoiser, from_config(config.sampler, "sampler"), asked, autoencoder)


def asked_of(config: DictConfig, spec: ImageSpec, data: ImageData | None, device: torch.device | str) -> Asked:
    images, prompts = config.get("images"), config.get("prompts")
    if images is not None and spec.low_size is None:
        raise UserError(f"images={images}: run={config.run} enlarges no images: leave images out")
    if prompts is not None and spec.text is None:
        raise UserError(f"prompts={prompts}: run={config.run} hears no text: leave prompts out")
    if not spec.told_by_data:
        return conditions.from_noise(config, spec)
    if prompts is not None:
        return conditions.from_prompts(config, runs.text_of(Path(config.run)), spec, device)
    if images is not None:
        return conditions.from_files(config, images, spec)
    data, autoencoder = data or data_of(config), runs.autoencoder_of(Path(config.run))
    seen = autoencoder.images(spec) if autoencoder and not data.spec.latents else spec  # the captions are the same
    runs.refuse_other_images(Path(config.run), seen, data)
    return conditions.from_held_out(config, data, spec)


def data_of(config: DictConfig) -> ImageData | None:
    """What data= names, else what a run was trained on, else None."""
    folder = config.run and Path(config.run)
    if "data" not in config:
        return folder and runs.data_of(folder)
    data = from_config(config.data, "data")
    return runs.told(data, folder) if folder else data


def check(config: DictConfig) -> None:
    for name, least in {"n": 1, "batch": 1, "seed": 0}.items():
        if name == "n" and config.n is None:
            continue
        if not isinstance(config[name], int) or config[name] < least:
            raise UserError(f"{name}={config[name]} must be a whole number, at least {least}")
    for name in ("guidance", "ema_width"):
        if not isinstance(config[name], int | float) and not (name == "ema_width" and config[name] is None):
            raise UserError(f"{name}={config[name]} must be a number")


def describe(config: DictConfig, n: int) -> str:
    """A file name that differs where the samples do."""
    solver, grid = (config.sampler[part]._target_.split(".")[-1] for part in ("solver", "grid"))
    width = "" if config.ema_width is None else f"_ema{config.ema_width}"
    known = OmegaConf.to_container(config, resolve=True)
    known["data"] = known.get("data", {}) | {"batch": None}
    rest = repr([known.get(key) for key in ("sampler", "data", "images", "prompts", "noise")])
    rest = hashlib.sha256(rest.encode()).hexdigest()[:6]
    how = f"{solver}_{grid}_{rest}_steps{config.steps}_guidance{config.guidance}{width}"
    return f"labels_{config.labels}_{how}_n{n}_seed{config.seed}"


def write(out: Path, images: Pixels, asked: Asked) -> None:
    """arr_0 (n, h, w, c) uint8, arr_1 labels; FILE.txt with the prompts, one in each line."""
    arrays = [images.permute(0, 2, 3, 1).numpy()] + ([] if asked.labels is None else [asked.labels.numpy()])
    with replacing(out) as partial:
        np.savez(partial, *arrays)
    if asked.prompts is not None:
        with replacing(out.with_suffix(".txt")) as partial:
            partial.write_text("\n".join(asked.prompts) + "\n")


def picture(drawing: Drawing, images: Pixels) -> pictures.PILImage.Image:
    """The first images, ten across; of enlarged ones the small one, the sample, and the truth where it is known."""
    spec, asked = drawing.denoiser.spec, drawing.asked
    if asked.prompts is not None:
        return pictures.told(images[:FIRST_TOLD], asked.prompts)
    if spec.low_size is None:
        return pictures.grid(images[:FIRST], columns=10)
    first = torch.arange(min(len(images), FIRST_ENLARGED))
    small = enlarged(asked.told(first).image, spec.size, "nearest")
    parts = [to_pixels(small), images[first]]
    parts += [to_pixels(asked.truth(first))] if asked.truth else []
    return pictures.stacked(parts, columns=min(10, len(first)))
