"""A curve with its uncertainty for every run of a table."""

from itertools import cycle

import torch
from matplotlib.axes import Axes

from smallbatch.diagnostics.diagnostic import Table, column, names
from smallbatch.plots import COLOURS


def band(axes: Axes, table: Table, name: str, title: str) -> None:
    """`name` against log-SNR, and two standard errors to both sides."""
    for of, colour in zip(names(table, "of"), cycle(COLOURS), strict=False):
        logsnr, mean, error = (torch.tensor(column(table, key, of=of)) for key in ("logsnr", name, f"{name}_se"))
        axes.plot(logsnr, mean, color=colour, marker=".", markersize=4, linewidth=0.8, label=of)
        axes.fill_between(logsnr, mean - 2 * error, mean + 2 * error, color=colour, alpha=0.25, linewidth=0)
    axes.set_title(title, fontsize="medium")
    axes.grid(alpha=0.3)
