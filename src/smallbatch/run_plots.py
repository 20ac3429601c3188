"""What a run records per noise level, drawn: curves against log-SNR, heat maps over time of training."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator
from PIL import Image as PILImage

from smallbatch.plots import COLOURS, DIRECTION, LOGSNR, MARKERS, drawn, figure

BIN = 2.0  # width in log-SNR: as figures are recorded

Curve = Mapping[float, float]  # value by log-SNR
Heat = Mapping[int, Curve]  # by images seen: what was measured up to then


def curves(series: Mapping[str, Curve], title: str) -> PILImage.Image:
    """One line per name: mean squared error against log-SNR, on a log scale."""
    page, (axes,) = figure(6.4, 4.0)
    _lines(axes, series)
    axes.set(xlabel=DIRECTION, ylabel="mean squared error per value", yscale="log", title=title)
    axes.legend()
    return drawn(page)


def panels(parts: Mapping[str, Mapping[str, Curve]], logarithmic: Sequence[str], title: str) -> PILImage.Image:
    """Curves against log-SNR in panels, two beside each other, with one legend; those named on a log scale."""
    rows = math.ceil(len(parts) / 2)
    page, grid = figure(9.6, 1.4 + 2.6 * rows, rows, 2, title, sharex=True)
    for axes, (name, series) in zip(grid, parts.items(), strict=False):
        _lines(axes, series)
        axes.set_title(name, fontsize="medium")
        axes.set_yscale("log" if name in logarithmic else "linear")
    grid[0].legend()
    page.supxlabel(DIRECTION, fontsize="medium")
    return drawn(page)


def heat(columns: Heat, title: str, unit: str) -> PILImage.Image:
    """A value per log-SNR (data at the top) and time of training, on a log scale. White: nothing was measured."""
    page, (axes,) = figure(7.2, 4.0)
    seen = [value for value in _finite(columns) if value > 0]
    scale = LogNorm(min(seen, default=1.0), max(seen, default=1.0))
    cells, ticks = _cells(axes, columns, scale), LogLocator(subs=(1, 2, 5))
    page.colorbar(cells, ax=axes, label=unit, ticks=ticks, format="{x:g}").ax.minorticks_off()
    axes.set(xlabel="images seen", ylabel=LOGSNR, title=title)
    return drawn(page)


def heats(parts: Mapping[str, Heat], title: str, unit: str) -> PILImage.Image:
    """Heat maps beside each other, on one linear scale."""
    seen = [value for part in parts.values() for value in _finite(part)]
    page, grid = figure(3.2 * len(parts) + 1, 3.8, 1, len(parts), title, sharey=True)
    for axes, (name, columns) in zip(grid, parts.items(), strict=True):
        cells = _cells(axes, columns, Normalize(min([0.0, *seen]), max([0.0, *seen])))
        axes.set_title(name, fontsize="medium")
    grid[0].set_ylabel(LOGSNR)
    page.supxlabel("images seen", fontsize="medium")
    page.colorbar(cells, ax=grid, label=unit, pad=0.02, fraction=0.08)
    return drawn(page)


def density(columns: Heat, whole: Curve, title: str) -> PILImage.Image:
    """Share of rows per unit of log-SNR over time of training, and beside it of the `whole` run."""
    page, (axes, side) = figure(8.0, 4.2, 1, 2, title, sharey=True, width_ratios=(4, 1))
    cells = _cells(axes, columns, Normalize(0.0))
    axes.set(xlabel="images seen", ylabel=LOGSNR)
    side.barh(list(whole), list(whole.values()), height=BIN, color="#440154", edgecolor="white")
    side.set(xlabel="whole run", xlim=(0, None))
    side.xaxis.set_major_locator(MaxNLocator(2, prune="lower"))
    side.grid(axis="x", alpha=0.3)
    page.colorbar(cells, ax=[axes, side], label="share of rows per unit of log-SNR", pad=0.03, fraction=0.1)
    return drawn(page)


def _lines(axes: Axes, series: Mapping[str, Curve]) -> None:
    for (name, points), colour, marker in zip(series.items(), COLOURS, MARKERS, strict=False):
        axes.plot(list(points), list(points.values()), color=colour, marker=marker, markersize=4, label=name)
    axes.grid(alpha=0.3)


def _finite(columns: Heat) -> list[float]:
    return [value for curve in columns.values() for value in curve.values() if math.isfinite(value)]


def _cells(axes: Axes, columns: Heat, norm: Normalize) -> QuadMesh:
    """A column reaches back to the one before it."""
    logsnr = sorted({logsnr for curve in columns.values() for logsnr in curve})
    values = np.array([[curve.get(at, np.nan) for curve in columns.values()] for at in logsnr])
    heights = [logsnr[0] - BIN / 2, *(at + BIN / 2 for at in logsnr)]
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10)))
    return axes.pcolormesh([0, *columns], heights, np.ma.masked_invalid(values), norm=norm, cmap="viridis")
