"""Image files decoded to square pixels of one size."""

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.progress import track

from smallbatch.data.files import Files
from smallbatch.errors import UserError
from smallbatch.notation import ImageSpec, Pixels

Fit = Callable[[Image.Image, int, str], Image.Image]  # (image, size, name) -> image of size x size

SLOW = 2000  # as many images are worth a progress bar
CHUNK = 64  # images a thread decodes between two reports


def decode(files: Files, name: str, channels: int) -> Image.Image:
    try:
        with Image.open(io.BytesIO(files.read(name))) as image:
            return plain(image, "L" if channels == 1 else "RGB")
    except Exception as error:  # a damaged file makes PIL and zipfile raise almost anything
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"{files.path}: cannot decode {name}: repair or remove it ({reason})") from None


def plain(image: Image.Image, mode: str) -> Image.Image:
    """Eight bits a channel; what is transparent shows black."""
    if image.mode.startswith("I"):  # 16 bits, also where PIL keeps them in 32
        eight = (np.asarray(image).clip(0, 65535) / 257).round()
        image = Image.fromarray(eight.astype(np.uint8))
    if image.has_transparency_data:
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", above.size, "black"), above).convert("RGB")
    return image.convert(mode)


def shrink(image: Image.Image, size: int) -> Image.Image:
    """Halve while twice too large, bicubic, the middle. Dhariwal & Nichol 2021 (2105.05233), code."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, upper = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, upper, left + size, upper + size))


def shrunk(image: Image.Image, size: int, name: str) -> Image.Image:
    if min(image.size) < size:
        raise UserError(f"{name} is {extent(image)}, smaller than data.size={size}: lower data.size")
    return image if image.size == (size, size) else shrink(image, size)


def alike(image: Image.Image, size: int, name: str) -> Image.Image:
    """For a size that was read off the first image."""
    if image.size != (size, size):
        raise UserError(f"{name} is {extent(image)}, the first image {size}x{size}: set data.size")
    return image


def extent(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"


def load(files: Files, names: list[str], spec: ImageSpec, fit: Fit) -> Pixels:
    """Threads, as PIL decodes without holding the interpreter's lock."""
    pixels = np.empty((len(names), spec.channels, spec.size, spec.size), np.uint8)

    def fill(start: int) -> None:
        for row, name in enumerate(names[start : start + CHUNK], start):
            image = fit(decode(files, name, spec.channels), spec.size, name)
            pixels[row] = np.asarray(image).reshape(spec.size, spec.size, spec.channels).transpose(2, 0, 1)

    starts = range(0, len(names), CHUNK)
    hide = len(names) <= SLOW or rank_zero_only.rank > 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(fill, starts)
        for _ in track(done, "reading images", len(starts), console=Console(stderr=True), disable=hide):
            pass
    return torch.from_numpy(pixels)
