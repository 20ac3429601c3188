"""Figures with room around their axes, and the one set of colours and names that all of them share."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation
from PIL import Image as PILImage

LOGSNR = "log-SNR"
DIRECTION = f"{LOGSNR}   (noise on the left, data on the right)"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")  # told apart by all eyes: Okabe & Ito 2008
MARKERS = ("o", "s", "^", "D", "v", "P")


def figure(
    width: float, height: float, rows: int = 1, columns: int = 1, title: str = "", **how: Any
) -> tuple[Figure, list[Axes]]:
    """In inches, with room around the axes: to let matplotlib find that room takes longer than to draw.

    `title` stands above all panels; each panel may have one of its own.
    """
    page = Figure((width, height), dpi=120)
    axes = page.subplots(rows, columns, squeeze=False, **how).flatten().tolist()
    above = 0.4
    if title:
        page.suptitle(title)
        above = 0.75
    left, bottom, right, top = 0.75 / width, 0.6 / height, 1 - 0.15 / width, 1 - above / height
    page.subplots_adjust(left, bottom, right, top, wspace=0.16 if "sharex" in how else 0.08, hspace=0.2)
    return page, axes


class Short(LogFormatterSciNotation):
    """Labels where a logarithmic axis has them, but 60 for 6 x 10^1."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def drawn(page: Figure) -> PILImage.Image:
    for axis in (one.yaxis for one in page.axes):
        low, high = axis.get_view_interval()
        if isinstance(axis.get_major_formatter(), LogFormatterSciNotation) and high < 1000 * low:
            axis.set_major_formatter(Short())
            axis.set_minor_formatter(Short())
    canvas = FigureCanvasAgg(page)
    canvas.draw()
    return PILImage.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
