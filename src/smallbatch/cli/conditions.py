"""What a network is told of every sample: its class, a prompt, a small image, or what is known of a held-out one."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from omegaconf import DictConfig, ListConfig
from torch import Tensor

from smallbatch.data.images import to_float
from smallbatch.data.module import ImageData
from smallbatch.data.small import small_images
from smallbatch.errors import UserError, printable
from smallbatch.files import read_text
from smallbatch.generation import Numbers, Told, of_class
from smallbatch.notation import Condition, Image, ImageSpec
from smallbatch.randomness import generator
from smallbatch.text.encoder import TextEncoder

FEW = 100  # samples, where nobody says how many


class Asked(NamedTuple):
    """Samples by number: what the network is told of each, its class, and how it truly looks, where that is known."""

    n: int
    told: Told
    labels: Int[Tensor, " n"] | None
    truth: Callable[[Numbers], Image] | None = None
    prompts: list[str] | None = None


def from_noise(config: DictConfig, spec: ImageSpec) -> Asked:
    n = config.n or FEW
    labels = choose(config.labels, n, spec.classes, config.seed)
    return Asked(n, of_class(labels), labels)


def from_files(config: DictConfig, path: str, spec: ImageSpec) -> Asked:
    """Image after image; after the last one the first comes again. They are of no class, unless one is named."""
    found = small_images(path, spec.low_size, spec.channels, "images")
    small = found.pixels
    if found.larger:
        size = f"{spec.low_size}x{spec.low_size}"
        print(f"{found.larger} of {len(small)} images had their middle shrunk by area to {size}")
    n = config.n or len(small)
    labels = None if config.labels == "auto" else choose(config.labels, n, spec.classes, config.seed)

    def told(numbers: Numbers) -> Condition:
        return of_class(labels)(numbers)._replace(image=to_float(small[numbers % len(small)]))

    return Asked(n, told, labels)


def from_prompts(config: DictConfig, encoder: TextEncoder, spec: ImageSpec, device: torch.device | str) -> Asked:
    """Prompt after prompt; after the last one the first comes again. They are of no class, unless one is named."""
    prompts = prompts_of(config.prompts)
    for line in encoder.misfits(prompts):
        print(printable(line))
    n = config.n or len(prompts)
    labels = None if config.labels == "auto" else choose(config.labels, n, spec.classes, config.seed)
    heard = encoder.features(encoder.tokens(prompts).to(device))

    def told(numbers: Numbers) -> Condition:
        return of_class(labels)(numbers)._replace(text=heard.at(numbers % len(prompts)))

    return Asked(n, told, labels, prompts=[prompts[i % len(prompts)] for i in range(n)])


def prompts_of(given: Any) -> list[str]:
    """One, a list, or the lines of a file."""
    if isinstance(given, ListConfig):
        prompts = [str(one).strip() for one in given]
    elif os.path.isfile(path := os.path.expanduser(str(given))):  # a long prompt is no name: pathlib would raise
        prompts = [line.strip() for line in read_text(Path(path)).splitlines()]
    else:
        prompts = [str(given).strip()]
    prompts = [one for one in prompts if one]
    if not prompts:
        raise UserError(f"prompts={given} holds no prompt: give a text, or a file with one in each line")
    return prompts


def from_held_out(config: DictConfig, data: ImageData, spec: ImageSpec) -> Asked:
    """What is known of held-out images, with their own classes where the network knows these, unless one is named."""
    n = config.n or FEW
    if config.labels == "auto":
        labels = data.labels(torch.arange(n)) if spec.classes in (0, data.spec.classes) else None
    else:
        labels = choose(config.labels, n, spec.classes, config.seed)

    def told(numbers: Numbers) -> Condition:
        return data.told(numbers)._replace(label=of_class(labels)(numbers).label)

    prompts = data.captions(torch.arange(n)) if spec.text else None
    return Asked(n, told, labels, lambda numbers: data.around(numbers, "cpu").x0, prompts)


def choose(labels: str | int, n: int, classes: int, seed: int) -> Int[Tensor, " n"] | None:
    """auto, balanced: 0, 1, 2, ... in turn; random; or one class's number. None where the model knows no classes."""
    if labels == "none" or (classes == 0 and labels in ("auto", "balanced")):
        return None
    if classes == 0:
        raise UserError(f"{labels=}: this model knows no classes; leave labels out")
    if labels in ("auto", "balanced"):
        return torch.arange(n) % classes
    if labels == "random":
        return torch.randint(classes, (n,), generator=generator(seed, "labels"))
    if str(labels).isdigit() and int(labels) < classes:
        return torch.full((n,), int(labels))
    raise UserError(f"{labels=}: give balanced, random, none, or a class from 0 to {classes - 1}")
