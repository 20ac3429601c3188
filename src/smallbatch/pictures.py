"""What people would rather see than read: image grids, and loss against noise level."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image as PILImage

from smallbatch.files import replacing
from smallbatch.notation import Pixels


def grid(images: Pixels, columns: int, gap: int = 1, at_least: int = 640) -> PILImage.Image:
    """Images row by row on a grey ground, enlarged by whole pixels to about `at_least` across."""
    images = images.cpu()
    n, c, h, w = images.shape
    rows = math.ceil(n / columns)
    canvas = images.new_full((rows * columns, c, h + gap, w + gap), 96)
    canvas[:n, :, :h, :w] = images
    pixels = rearrange(canvas, "(r k) c h w -> (r h) (k w) c", k=columns).numpy()
    picture = PILImage.fromarray(pixels[..., 0] if c == 1 else pixels)
    scale = max(1, round(at_least / picture.width))
    return picture.resize((picture.width * scale, picture.height * scale), PILImage.Resampling.NEAREST)


def save(picture: PILImage.Image, path: Path) -> None:
    with replacing(path) as partial:
        picture.save(partial)


LOGSNR = "log-SNR   (noise on the left, data on the right)"


def curves(series: Mapping[str, Mapping[float, float]], path: Path, title: str) -> None:
    """One line per name: value against log-SNR, noise on the left, data on the right, on a log scale."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    _lines(axes, series)
    axes.set(xlabel=LOGSNR, ylabel="mean squared error", title=title, yscale="log")
    axes.legend()
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120)


def panels(parts: Mapping[str, Mapping[str, Mapping[float, float]]], path: Path, logarithmic: Sequence[str]) -> None:
    """Curves against log-SNR in panels, two beside each other, with one legend; those named on a log scale."""
    rows = math.ceil(len(parts) / 2)
    figure = Figure(figsize=(9.6, 0.8 + 2.8 * rows), layout="constrained")
    grid = figure.subplots(rows, 2, sharex=True, squeeze=False).flatten()
    for axes, (title, series) in zip(grid, parts.items(), strict=False):
        _lines(axes, series)
        axes.set(title=title, yscale="log" if title in logarithmic else "linear")
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    figure.supxlabel(LOGSNR, fontsize="medium")
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120)


def _lines(axes: Axes, series: Mapping[str, Mapping[float, float]]) -> None:
    for name, points in series.items():
        axes.plot(list(points), list(points.values()), marker="o", markersize=4, label=name)
    axes.grid(alpha=0.3)
