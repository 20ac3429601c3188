"""The landscape drawn: the loss along every line, a colour for each noise level, and the curvatures beside it."""

from matplotlib import colormaps
from matplotlib.axes import Axes

from smallbatch.diagnostics.diagnostic import Picture, Table, column, names
from smallbatch.plots import COLOURS, DIRECTION, MARKERS, drawn, figure

TITLES = {"line": "from one run straight to the other", "direction": "random directions from"}


def landscape_figure(table: Table) -> Picture:
    walks = list(dict.fromkeys((row["what"], row["of"]) for row in table if row["what"] in TITLES))
    curved = any(row["what"] == "eigenvalue" for row in table)
    page, axes = figure(1.5 + 4.6 * (len(walks) + curved), 4.8, 1, len(walks) + curved)
    page.subplots_adjust(left=1.0 / page.get_figwidth(), wspace=0.2)
    for panel, (what, run) in zip(axes, walks, strict=False):
        draw_walks(panel, [row for row in table if (row["what"], row["of"]) == (what, run)])
        panel.set_title(TITLES[what] if what == "line" else f"{TITLES[what]} {run}")
        panel.set_xlabel("position" if what == "line" else "length, in that of every filter")
    if walks:
        axes[0].set_ylabel("held-out loss")
    if curved:
        draw_curvatures(axes[-1], table)
    axes[0].legend(fontsize="small")
    return drawn(page)


def draw_walks(axes: Axes, table: Table) -> None:
    """With two standard errors to both sides; a further direction is dashed."""
    bins = names(table, "bin")
    for place, bin in enumerate(bins):
        colour = colormaps["viridis_r"]((place - 1) / max(len(bins) - 2, 1)) if place else "black"
        (logsnr,) = names([row for row in table if row["bin"] == bin], "logsnr")
        for number in names(table, "number"):
            position, value, error = (column(table, key, bin=bin, number=number) for key in ("position", "value", "se"))
            label = None if number > 1 else "all times" if logsnr is None else f"log-SNR {logsnr:.1f}"
            how = {"color": colour, "linewidth": 1.2 if place else 2.2, "linestyle": "-" if number == 1 else "--"}
            axes.errorbar(position, value, [2 * x for x in error], elinewidth=0.8, label=label, **how)
    axes.set_yscale("log")
    axes.grid(alpha=0.3)


def draw_curvatures(axes: Axes, table: Table) -> None:
    """The largest eigenvalue, on its own rows and on others; over all times as a level line."""
    for run, colour, marker in zip(names(table, "of"), COLOURS, MARKERS, strict=False):
        for what, line in (("eigenvalue", "-"), ("elsewhere", ":")):
            rows = [row for row in table if (row["of"], row["what"], row["position"]) == (run, what, 1)]
            level, *bins = rows
            label = run if what == "eigenvalue" else f"{run}, on other rows"
            how = {"color": colour, "linestyle": line}
            axes.plot(column(bins, "logsnr"), column(bins, "value"), marker=marker, label=label, **how)
            axes.axhline(level["value"], linewidth=0.8, **how)
    axes.set(yscale="log", xlabel=DIRECTION, title="largest eigenvalue of the Hessian; level: all times")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def said(table: Table, run: str) -> str:
    """In one sentence, over all times and at the noise levels with the most."""
    mine = [row for row in table if row["of"] == run]
    found = []
    for what, where in (("line", "on the line to the other run"), ("direction", "along random directions")):
        rises = [row for row in mine if row["what"] == what and row["bin"] == "all"]
        if rises:
            top = max(rises, key=lambda row: row["rise"])
            found.append(
                f"{where} the loss rises by up to {top['rise']:.3g} (standard error {top['rise_se']:.2g}), "
                f"at {top['position']:.2g}, to {top['value']:.3g}"
            )
    curved = [row for row in mine if row["what"] == "eigenvalue" and row["position"] == 1]
    if curved:
        level, *bins = curved
        top, least = (pick(bins, key=lambda row: row["value"]) for pick in (max, min))
        found.append(
            f"the Hessian's largest eigenvalue is {level['value']:.3g} over all times, from {least['value']:.3g} at "
            f"log-SNR {least['logsnr']:.1f} to {top['value']:.3g} at {top['logsnr']:.1f}"
        )
    return f"{run}: {'; '.join(found)}"
