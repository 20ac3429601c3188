"""Images beside each other: on a grid, in rows with names."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from smallbatch.files import replacing
from smallbatch.notation import Pixels

GROUND = 96  # grey


def grid(images: Pixels, columns: int, gap: int = 1, at_least: int = 640) -> PILImage.Image:
    """Images row by row on a grey ground, enlarged by whole pixels to about `at_least` across."""
    images = images.cpu()
    n, c, h, w = images.shape
    rows = math.ceil(n / columns)
    canvas = images.new_full((rows * columns, c, h + gap, w + gap), GROUND)
    canvas[:n, :, :h, :w] = images
    pixels = rearrange(canvas, "(r k) c h w -> (r h) (k w) c", k=columns).numpy()
    picture = PILImage.fromarray(pixels[..., 0] if c == 1 else pixels)
    scale = max(1, round(at_least / picture.width))
    return picture.resize((picture.width * scale, picture.height * scale), PILImage.Resampling.NEAREST)


def stacked(parts: Sequence[Pixels], columns: int) -> PILImage.Image:
    """Of `columns` images the rows that the parts show of them, one below the other; then of the next."""
    beyond = -len(parts[0]) % columns
    whole = torch.stack([F.pad(part.cpu(), (0, 0, 0, 0, 0, 0, 0, beyond), value=GROUND) for part in parts])
    return grid(rearrange(whole, "p (r k) c h w -> (r p k) c h w", k=columns), columns)


def labelled(rows: Sequence[tuple[str, Pixels]], at_least: int = 640) -> PILImage.Image:
    """A row of images for each name, which stands to its left; all rows have as many."""
    images = grid(torch.cat([pixels.cpu() for _, pixels in rows]), len(rows[0][1]), at_least=at_least)
    height, font = images.height / len(rows), ImageFont.load_default(14)
    margin = 16 + round(max(font.getlength(name) for name, _ in rows))
    page = PILImage.new("RGB", (margin + images.width, images.height), "white")
    page.paste(images, (margin, 0))
    for row, (name, _) in enumerate(rows):
        ImageDraw.Draw(page).text((8, height * (row + 0.5)), name, "black", font, anchor="lm")
    return page


def told(images: Pixels, texts: Sequence[str], columns: int = 8, width: int = 144) -> PILImage.Image:
    """Every image above what it was asked to show; each `width` pixels wide, by whole factors."""
    font, scale = ImageFont.load_default(11), max(1, width // images.shape[-1])
    side = scale * images.shape[-1]
    wrapped = [textwrap.wrap(text, max(8, side // 6)) for text in texts[: len(images)]]
    height = side + 14 * max(map(len, wrapped)) + 8
    columns = min(columns, len(images))
    page = PILImage.new("RGB", (columns * (side + 8), math.ceil(len(images) / columns) * height), "white")
    for number, (image, lines) in enumerate(zip(images.cpu(), wrapped, strict=True)):
        left, top = number % columns * (side + 8) + 4, number // columns * height
        page.paste(grid(image[None], 1, gap=0, at_least=side), (left, top))
        ImageDraw.Draw(page).multiline_text((left, top + side + 2), "\n".join(lines), "black", font, spacing=2)
    return page


def save(picture: PILImage.Image, path: Path) -> None:
    with replacing(path) as partial:
        picture.save(partial)
