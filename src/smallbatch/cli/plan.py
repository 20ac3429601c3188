"""What a run would cost, found on the meta device: nothing is allocated, nothing is trained."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from smallbatch.cli import devices, disk, initial, naming
from smallbatch.data.module import ImageData, refuse_low_size
from smallbatch.data.stream import micro_batch
from smallbatch.denoiser import Denoiser
from smallbatch.errors import UserError
from smallbatch.files import replacing
from smallbatch.masking import Masking
from smallbatch.notation import Condition, ImageSpec, Keep, Output, Text, TextSpec


def measure(denoiser: Denoiser, masking: Masking) -> tuple[int, int]:
    """What one image costs forward and backward: FLOPs, the mean over training, and the most bytes of activations kept.

    FLOPs are 2 per multiply-add of convolutions and matrix products; activations are float32. `denoiser` lives on the
    meta device.
    """
    with torch.device("meta"):
        keeps = masking.keeps(denoiser.network)
    flops, kept = zip(*(passes(denoiser, keep) for keep in keeps), strict=True)
    return round(mean(flops)), max(kept)


def passes(denoiser: Denoiser, keep: Keep | None) -> tuple[int, int]:
    """FLOPs, and bytes kept, of one image of which the network sees the patches to keep."""
    parameters = {p.untyped_storage()._cdata for p in denoiser.network.parameters()}
    kept: dict[int, int] = {}

    def saved(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(saved, lambda tensor: tensor)
    with FlopCounterMode(display=False) as counter, hooks:
        answer(denoiser, keep).sum().backward()
    return counter.get_total_flops(), sum(kept.values())


def answer(denoiser: Denoiser, keep: Keep | None = None) -> Output:
    """What the network makes of one image, all on the meta device."""
    spec, side = denoiser.spec, denoiser.spec.low_size
    x = torch.empty(1, spec.channels, spec.size, spec.size, device="meta")
    label = torch.empty(1, dtype=torch.long, device="meta") if spec.classes else None
    image = torch.empty(1, spec.channels, side, side, device="meta") if side else None
    text = spec.text and text_like(spec.text)
    return denoiser.network(x, torch.empty(1, device="meta"), Condition(label, text, image), keep)


def text_like(spec: TextSpec) -> Text:
    """One text on the meta device."""
    shape, kind = ((1, spec.length), torch.long) if spec.words else ((1, spec.length, spec.width), torch.float32)
    mask = torch.empty(1, spec.length, dtype=torch.bool, device="meta")
    return Text(torch.empty(shape, dtype=kind, device="meta"), mask)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def on_meta(denoiser: Callable[..., Denoiser], spec: ImageSpec) -> Denoiser:
    with torch.device("meta"):
        return denoiser(spec=spec)


def plan(config: DictConfig, objects: dict[str, Any]) -> dict[str, Any]:
    data = objects["data"]
    text = initial.vocabulary(objects["text"], config.init_from)
    if text is not None:
        data.tell(text)
    spec, problem = look(config, data)
    refuse_low_size(spec)
    denoiser = on_meta(objects["denoiser"], spec)
    masking = objects["module"].keywords["objective"].masking
    masking.check(denoiser.network)
    if config.init_from is not None:
        initial.check(denoiser, config.init_from, objects["data"].autoencoder)
    parameters, (flops, activations) = count(denoiser.network), measure(denoiser, masking)
    processes = config.devices * config.nodes
    rows = micro_batch(config.batch, processes, config.accumulation)
    averages = len(config.ema.profiles)
    images = config.budget.images
    kept = activations * rows // (2 if config.precision == "bf16" else 1)
    held = parameters * 4 * (4 + averages)
    if devices.shares_weights(config):
        held = held // processes + parameters * 4  # all weights, where they are measured
    return {
        "data": problem or f"{spec.channels}x{spec.size}x{spec.size}, {spec.classes or 'no'} classes",
        "parameters": parameters,
        "flops_per_image": flops,
        "steps": math.ceil(images / config.batch) if images else None,
        "images": images,
        "minutes": config.budget.minutes,
        "money": config.budget.money,
        "flops": flops * images if images else None,
        "disk_bytes": disk.needed(parameters, config),
        "memory_bytes": held + kept,
        "run_folder": folder(config, data),
    }


def folder(config: DictConfig, data: ImageData) -> str | None:
    """Unknown where the data cannot be read: its fingerprint is part of the name."""
    try:
        return str(naming.run_folder(config, data.fingerprint))
    except UserError:
        return None


def look(config: DictConfig, data: ImageData) -> tuple[ImageSpec, str | None]:
    """The data set's shape; where it cannot be read, what the configuration says of it, and the reason."""
    try:
        return data.spec, None
    except UserError as error:
        guess = ImageSpec(config.data.get("channels", 3), config.data.get("size") or 32, 0, data.low_size)
        return guess, f"{error} (planned with {guess.channels}x{guess.size}x{guess.size}, no classes)"


def show(planned: dict[str, Any], out: str | None) -> None:
    for name, value in planned.items():
        if value is not None:
            print(f"{name:16} {value if isinstance(value, str) else f'{value:,}'}")
    if out:
        with replacing(Path(out)) as partial:
            partial.write_text(json.dumps(planned, indent=1) + "\n")
