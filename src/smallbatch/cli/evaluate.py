"""`smallbatch evaluate`: scores of a run's samples, or of anyone's, with what one must know to read them."""

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from smallbatch.cli import runs, sample
from smallbatch.cli.building import from_config
from smallbatch.cli.conditions import prompts_of
from smallbatch.data.module import ImageData
from smallbatch.data.store import Store
from smallbatch.errors import UserError, printable
from smallbatch.generation import generate
from smallbatch.metrics import ranks
from smallbatch.metrics.evaluation import Evaluation
from smallbatch.metrics.files import open_images
from smallbatch.metrics.judged import Score, write
from smallbatch.metrics.looking import Samples
from smallbatch.metrics.rows import spread
from smallbatch.metrics.shares import real, share
from smallbatch.metrics.stamps import fingerprints
from smallbatch.metrics.validity import Seen
from smallbatch.notation import ImageSpec


def run(config: DictConfig) -> None:
    check(config)
    evaluation: Evaluation = from_config(config.evaluation)
    data = sample.data_of(config)
    refuse_latents(config, data)
    fabric = launched(config.devices)
    samples, spec = drawn(config, data, fabric.device) if config.samples is None else given(config, fabric.device)
    evaluation.prepare(data, spec, samples.n, fabric.device)
    judged = evaluation(samples)
    if ranks.rank() == 0:
        show(judged.scores)
        if out := path_of(config, evaluation.held_against):
            print(*write(judged, out, asked(config)), sep="\n")


def launched(devices: int) -> Fabric:
    try:
        fabric = Fabric(accelerator="auto", devices=devices, strategy="auto" if devices == 1 else "ddp")
        fabric.launch()
    except MisconfigurationException as error:
        raise UserError(f"devices={devices}: {' '.join(str(error).split())}") from None
    return fabric


def check(config: DictConfig) -> None:
    if config.run is None and config.samples is None:
        raise UserError("give what to judge: run=FOLDER that `smallbatch train` made, or samples=FILE.npz or a folder")
    for name, least in {"devices": 1, "batch": 1, "seed": 0}.items():
        if not isinstance(config[name], int) or config[name] < least:
            raise UserError(f"{name}={config[name]} must be a whole number, at least {least}")
    if config.out is not None and not str(config.out).endswith(".json"):
        raise UserError(f"out={config.out} must end in .json")
    if config.samples is None:
        sample.check(config)
        if config.n is None:
            raise UserError("n=null takes all of samples=; of run= say how many images to draw")


def drawn(config: DictConfig, data: ImageData | None, device: torch.device) -> tuple[Samples, ImageSpec]:
    """This rank's share of a run's samples, not yet drawn."""
    denoiser, sampler, asked, _ = drawing = sample.drawing_of(config, device, data)
    marks = [] if data is None else compared(runs.about(Path(config.run))["data_fingerprint"], data)
    if asked.truth and denoiser.spec.low_size:
        marks.append(f"enlarged from {min(asked.n, len(data.held_out_store))} held-out images")
    spec, mine, seen = drawing.spec, share(asked.n), Seen(drawing.spec.channels)
    drawn = generate(denoiser, sampler, asked.told, mine, config.seed, config.batch, pictured=drawing.pictured)
    images = seen.quantise(drawn)
    shown = progress(images, math.ceil(len(mine) / config.batch))
    return Samples(asked.n, shown, seen, asked.labels, marks, asked.prompts, device), spec


def refuse_latents(config: DictConfig, data: ImageData | None) -> None:
    if data is not None and data.spec.latents:
        whose = "data=" if "data" in config else f"run={config.run}: its data"
        raise UserError(
            f"{whose} holds latents, which are no images to compare with: give data= and the images that they were "
            "made from"
        )


def compared(trained_on: str, data: ImageData) -> list[str]:
    """What to know where a model is not held against the images that it was trained on; of imported ones none tells."""
    if not trained_on:
        return ["which images the model was trained on is not known"]
    return [] if trained_on in fingerprints(data) else ["held against other images than the run was trained on"]


def given(config: DictConfig, device: torch.device) -> tuple[Samples, ImageSpec]:
    source, spec, marks = open_images(config.samples, "samples")
    n = config.n or len(source)
    if n > len(source):
        raise UserError(f"n={n}, but samples={config.samples} holds {len(source)} images: n=null takes them all")
    marks = [*marks, *([f"{n} of {len(source)} images"] if n < len(source) else [])]
    labels = source.labels if isinstance(source, Store) else None
    labels = None if labels is None else labels[spread(n, len(source))]
    prompts = None if config.prompts is None else prompts_of(config.prompts)
    if prompts is not None and len(prompts) != len(source):
        raise UserError(f"prompts={config.prompts} holds {len(prompts)}, samples={config.samples} {len(source)} images")
    prompts = prompts and [prompts[row] for row in spread(n, len(source)).tolist()]
    return Samples(n, real(source, n, config.batch), Seen(spec.channels), labels, marks, prompts, device), spec


def progress(images: Iterator[Any], steps: int) -> Iterator[Any]:
    return track(images, "samples", steps, console=Console(stderr=True), disable=ranks.rank() > 0)


def asked(config: DictConfig) -> dict[str, Any]:
    """With the images that the run's model had been trained on."""
    own = {} if config.samples is not None else {"images": runs.about(Path(config.run))["images"]}
    return OmegaConf.to_container(config, resolve=True) | own


def path_of(config: DictConfig, reference: str) -> Path | None:
    """Where the scores go: a run keeps those of its own samples, apart by all that was asked and held against."""
    if config.out is not None or config.samples is not None:
        return config.out and Path(config.out)
    asked = json.dumps([OmegaConf.to_container(config.evaluation, resolve=True), reference], sort_keys=True)
    asked = hashlib.sha256(asked.encode()).hexdigest()[:6]
    return runs.within(Path(config.run), "metrics") / f"{sample.describe(config, config.n)}_{asked}.json"


def show(scores: list[Score]) -> None:
    table = Table("score", "value", "", "what to know")
    for column in table.columns[:3]:
        column.no_wrap = True
    for score in scores:
        spread = f"± {score.error:.2g}" if score.error is not None else ""
        spread = f"{score.low:.4g} .. {score.high:.4g}" if score.low is not None else spread
        cells = (score.name, f"{score.value:.4g}", spread, "; ".join(score.marks))
        table.add_row(*(Text(printable(cell)) for cell in cells))  # a file's name may read like rich's markup
    Console(soft_wrap=True).print(table)
