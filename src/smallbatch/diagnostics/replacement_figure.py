"""A panel of replacement: one measure, over the fixed windows or along the sliding one."""

from itertools import product

from matplotlib.axes import Axes

from smallbatch.diagnostics.diagnostic import Table, names
from smallbatch.likeness import CAP
from smallbatch.plots import COLOURS, DIRECTION

NOTHING = "nothing replaced"
TITLES = {
    "psnr": f"PSNR, dB ({CAP:g}: the truth itself)",
    "gain_per_step": "gain per replaced step, dB",
    "drift": "colour drift, grey levels",
}


def draw(axes: Axes, table: Table, kind: str, value: str) -> None:
    """Filled: the last steps are not replaced; hollow: they may be. Dashed: nothing is replaced."""
    here = [one for one in table if one["kind"] == kind]
    places = names(here, "window")
    series = list(product(names(table, "of"), sorted(set(names(here, "excluded")))))
    for turn, (of, excluded) in enumerate(series):
        rows = [one for one in here if (one["of"], one["excluded"]) == (of, excluded)]
        shift = (turn - (len(series) - 1) / 2) * 0.6 / len(series)
        x = [places.index(one["window"]) + shift if kind == "fixed" else one["logsnr"] for one in rows]
        y, error = ([one[name] for one in rows] for name in (value, f"{value}_se"))
        colour = COLOURS[names(table, "of").index(of)]
        style = {"markerfacecolor": colour if excluded else "white", "linestyle": "none" if kind == "fixed" else "-"}
        label = f"{of}, {f'last {excluded} left alone' if excluded else 'all may be replaced'}"
        axes.errorbar(x, y, error, marker="o", markersize=5, linewidth=0.8, color=colour, label=label, **style)
        (plain,) = (one[value] for one in table if one["kind"] == "none" and one["of"] == of)
        axes.axhline(plain or 0.0, color=colour, linestyle="--", linewidth=0.8, label=NOTHING if turn == 0 else None)
    if kind == "fixed":
        axes.set_xticks(range(len(places)), places)
    axes.set(title=TITLES[value], xlabel="window, t of 1000" if kind == "fixed" else DIRECTION)
    axes.grid(alpha=0.3)
