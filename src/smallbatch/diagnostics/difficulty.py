"""How soon each noise level is learned: images until the recorded held-out error is near its final value."""

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import cycle

from matplotlib.ticker import EngFormatter
from scipy.stats import spearmanr

from smallbatch.diagnostics.diagnostic import Case, Diagnostic, Found, Picture, Subject, Table, column, names
from smallbatch.errors import UserError
from smallbatch.plots import COLOURS, DIRECTION, MARKERS, drawn, figure
from smallbatch.report.figures import shown

ERROR = "val/v_mse"  # it varies least within a bin
Recorded = Sequence[tuple[int, float]]  # images, and the error then


class Difficulty(Diagnostic):
    """Images after which a log-SNR bin's error of v stays within `within`, a share, of the last recorded.

    Xu et al. 2024 (2404.07946) hold that high noise is learned first. Between two records log error falls in a straight
    line over log images. A bin that is there at the first record has `images` as its upper bound, and `bounded` 1.
    """

    needs_data = False

    def __init__(self, within: float = 0.05):
        if not within > 0:
            raise UserError(f"diagnostics.difficulty.{within=} must be above 0: a share of the final error")
        self.within = within

    def check(self, case: Case) -> None:
        for subject in case.subjects:
            recorded(subject)

    def measure(self, case: Case) -> Found:
        known = {subject.name: recorded(subject) for subject in case.subjects}
        return Found(
            [
                {"of": name, "logsnr": logsnr, **reached(points, self.within), "final": points[-1][1], "n": n}
                for name, bins in known.items()
                for logsnr, (points, n) in sorted(bins.items())
            ]
        )

    def figure(self, table: Table) -> Picture:
        page, (axes,) = figure(7.2, 4.4)
        for run, colour, marker in zip(names(table, "of"), cycle(COLOURS), cycle(MARKERS), strict=False):
            logsnr, images, bounded = (column(table, name, of=run) for name in ("logsnr", "images", "bounded"))
            axes.plot(logsnr, images, color=colour, marker=marker, markersize=5, label=run)
            fewer = [0.1 * most * bound for most, bound in zip(images, bounded, strict=True)]
            axes.errorbar(logsnr, images, [fewer, [0.0] * len(fewer)], uplims=bounded, color=colour, linestyle="")
        axes.set(ylim=(0, None), xlabel=DIRECTION, title="images until near the final error (arrow: or fewer)")
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.3)
        axes.legend()
        return drawn(page)

    def line(self, table: Table) -> str:
        said = []
        for run in names(table, "of"):
            logsnr, images = column(table, "logsnr", of=run), column(table, "images", of=run)
            order = spearmanr(logsnr, images).statistic if len(set(images)) > 1 and len(images) > 1 else math.nan
            said.append(
                f"{run}: within reach of the final error after {images[0]:,.0f} images at log-SNR {logsnr[0]:g}, "
                f"{images[-1]:,.0f} at {logsnr[-1]:g}; rank correlation of images with log-SNR {order:+.2f}"
            )
        return "; ".join(said)


def recorded(subject: Subject) -> dict[float, tuple[Recorded, int]]:
    """By log-SNR: the error by images, and how many held-out points it is the mean of."""
    bins, points = defaultdict(list), {}
    for row in shown(subject.folder):
        if row["name"] == ERROR and "logsnr" in row and min(row["images"], row["value"]) > 0:
            bins[row["logsnr"]].append((row["images"], row["value"]))
            points[row["logsnr"]] = row.get("n", 0)
    if not bins or min(map(len, bins.values())) < 2:
        raise UserError(
            f"run={subject.folder} has not recorded {ERROR} twice per log-SNR: train with validation.every_images=N, "
            "a twentieth of the budget or so"
        )
    return {logsnr: (values, points[logsnr]) for logsnr, values in bins.items()}


def reached(points: Recorded, within: float) -> dict[str, float | int]:
    goal = (1 + within) * points[-1][1]
    above = [place for place, (_, error) in enumerate(points) if error > goal]
    if not above:
        return {"images": float(points[0][0]), "bounded": 1}
    (before, high), (after, low) = points[above[-1]], points[above[-1] + 1]
    share = math.log(high / goal) / math.log(high / low)
    return {"images": before * (after / before) ** share, "bounded": 0}
