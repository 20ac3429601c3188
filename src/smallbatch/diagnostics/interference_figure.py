"""The matrix of interference drawn, and said in a sentence."""

import math

import numpy as np
from matplotlib.axes import Axes

from smallbatch.diagnostics.diagnostic import Picture, Table, names
from smallbatch.plots import drawn, figure

ALL = "all"  # times: training goes on as before


def interference_figure(table: Table) -> Picture:
    runs, trained = names(table, "of"), names(table, "trained")
    page, panels = figure(14.0, 1.2 + len(runs) * (1.4 + 0.5 * len(trained)), len(runs), 2)
    page.subplots_adjust(wspace=0.12, hspace=0.5)
    for run, change, cosine in zip(runs, panels[::2], panels[1::2], strict=True):
        changes, angles = (matrix(table, run, what) for what in ("change", "cosine"))
        heat(change, 100 * changes, 100 * np.nanmax(np.abs(changes)), "{:+.1f}")
        heat(cosine, angles, 1.0, "{:+.2f}")
        change.set_title(f"change of the held-out loss in %, {run}")
        cosine.set_title("cosine of the slots' gradients before training, where it is more than noise")
        for axes in (change, cosine):
            axes.set_xticks(range(changes.shape[1]), range(1, changes.shape[1] + 1))
            axes.set_yticks(range(len(trained)), trained)
            axes.set(xlabel="measured slot   (data on the left, noise on the right)", ylabel="trained slot")
    return drawn(page)


def matrix(table: Table, run: str, what: str) -> np.ndarray:
    """A row for each trained slot, a column for each measured one; NaN where nothing is known."""
    values = [row[what] for row in table if row["of"] == run]
    trained = len(names([row for row in table if row["of"] == run], "trained"))
    return np.array([math.nan if value is None else value for value in values]).reshape(trained, -1)


def heat(axes: Axes, values: np.ndarray, most: float, form: str) -> None:
    """White is 0; each cell says its value."""
    axes.imshow(values, "RdBu_r", vmin=-most, vmax=most, aspect="auto")
    for (y, x), value in np.ndenumerate(values):
        if not math.isnan(value):
            colour = "white" if abs(value) > 0.6 * most else "black"
            axes.text(x, y, form.format(value), ha="center", va="center", color=colour, fontsize=8)


def said(table: Table, run: str) -> str:
    """How many slots that were not trained changed, beyond two standard errors."""
    others = [row for row in table if row["of"] == run and row["trained"] not in (ALL, row["measured"])]
    own = [row for row in table if row["of"] == run and row["trained"] == row["measured"]]
    changes = ", ".join(f"{row['trained']}: {100 * row['change']:+.1f} %" for row in own)
    return (
        f"{run}: training on one slot changes its own loss ({changes}); of {len(others)} others, "
        f"{counted(others, 'change')}; against training on all times, {counted(others, 'against_all')}"
    )


def counted(rows: Table, what: str) -> str:
    worse, better = (sum(sign * row[what] > 2 * row[f"{what}_se"] for row in rows) for sign in (1, -1))
    mean = sum(row[what] for row in rows) / len(rows)
    return f"{worse} get worse and {better} better by over 2 standard errors (mean {100 * mean:+.1f} %)"
