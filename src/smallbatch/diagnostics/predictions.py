"""Which prediction is best at which noise level: of several runs, or of a mixed one's heads, on the same points."""

from collections.abc import Mapping, Sequence
from itertools import cycle, groupby, pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from torch import Tensor

from smallbatch.diagnostics.diagnostic import Case, Diagnostic, Found, Picture, Row, Subject, Table, column, names
from smallbatch.diagnostics.held_out import Points, over_points, relative, several, standard_error
from smallbatch.errors import UserError, refuse_unless_positive
from smallbatch.notation import Batch, PerImage
from smallbatch.plots import COLOURS, DIRECTION, MARKERS, drawn, figure
from smallbatch.randomness import SampleNoise
from smallbatch.validation import errors

MEASURED = ("x0_mse", "v_mse", "raw_mse")
Entrants = Mapping[tuple[str, str], Points]  # MEASURED, by run and head


class Predictions(Diagnostic):
    """Per log-SNR bin of `width`: the errors of each run and head, and who errs least.

    In x0, eps and v the same one errs least, for at one level the three differ by a factor: `wins` is its share of the
    points, `behind` what its mean error of v is above the best's. `raw` is in the heads' own spaces, as Xie & Agam 2025
    (2502.01990) compare them. Where all err alike in x0, raw errors of x0, eps and v stand as 1 : SNR : 1 + SNR: x0 has
    the least where SNR > 1, eps where SNR < 1, v nowhere. `images` points lie evenly in each bin of what all schedules
    reach; tables take their nearest level.
    """

    def __init__(self, images: int = 512, width: float = 2.0):
        refuse_unless_positive("diagnostics.predictions", width=width)
        self.images, self.width = several("predictions", images), width

    def check(self, case: Case) -> None:
        bins(case.subjects, self.width)
        if sum(len(subject.denoiser.prediction.heads) for subject in case.subjects) < 2:
            raise UserError(
                "diagnostic=predictions compares predictions: give several runs, or one of a mixed prediction"
            )

    def measure(self, case: Case) -> Found:
        self.check(case)
        edges = bins(case.subjects, self.width)
        low, high = edges[:-1, None], edges[1:, None]
        logsnr = low + (high - low) * (torch.arange(self.images) + 0.5) / self.images
        entrants = {}
        for subject in case.subjects:
            entrants |= points_of(case, subject, logsnr.flatten(), self.images)
        return Found(judged(entrants, edges.tolist()))

    def figure(self, table: Table) -> Picture:
        page, (error, common, raw) = figure(14.0, 4.8, 1, 3)
        page.subplots_adjust(wspace=0.18, top=1 - 0.8 / 4.8)
        lines(error, table, "v_mse")
        lines(common, table, "wins")
        lines(raw, table, "raw_wins")
        error.set_yscale("log")
        error.set_title("squared error of v, with two standard errors", fontsize="medium")
        common.set_title("share of points with the least error of x0, eps or v", fontsize="medium")
        raw.set_title("share of points with the least error in its own space", fontsize="medium")
        page.legend(*error.get_legend_handles_labels(), loc="upper center", ncols=len(COLOURS))
        return drawn(page)

    def line(self, table: Table) -> str:
        bins = [[row for row in table if row["logsnr"] == at] for at in names(table, "logsnr")]
        best = [min(rows, key=lambda row: row["v_mse"]) for rows in bins]
        raw = [min(rows, key=lambda row: row["raw_mse"]) for rows in bins]
        next_best = [1 + sorted(row["behind"] for row in rows)[1] for rows in bins]
        return (
            f"least error: {stretches(best)}; the next has {min(next_best):.3g} to {max(next_best):.3g} times as much; "
            f"least error in its own space: {stretches(raw)}"
        )


def bins(subjects: Sequence[Subject], width: float) -> Float[Tensor, " edges"]:
    """Multiples of `width`, and the ends of what all schedules reach; a bin at an end is a quarter wide at least."""
    ends = []
    for subject in subjects:
        device = next(subject.denoiser.parameters()).device
        ends.append(subject.denoiser.schedule.logsnr(torch.tensor([1.0, 0.0], device=device)).tolist())
    low, high = max(end[0] for end in ends), min(end[1] for end in ends)
    if low >= high:
        raise UserError("diagnostic=predictions: no log-SNR is reached by all of these runs' schedules: compare others")
    inner = np.arange(np.floor(low / width), np.ceil(high / width) + 1) * width
    inner = inner[(inner > low + width / 4) & (inner < high - width / 4)]
    return torch.tensor([low, *inner.tolist(), high])


@torch.no_grad()
def points_of(case: Case, subject: Subject, logsnr: PerImage, images: int) -> Entrants:
    """MEASURED of every head of a run, at each log-SNR with a held-out image and noise of its own."""
    denoiser, seed = subject.denoiser, case.seed
    prediction, schedule = denoiser.prediction, denoiser.schedule

    def measure(mine: Int[Tensor, " b"], batch: Batch) -> Float[Tensor, "b columns"]:
        level = schedule(schedule.time(logsnr[mine].to(batch.x0)))
        eps = SampleNoise(seed, mine.tolist(), tuple(batch.x0.shape[1:]), batch.x0.device)(0)
        x_t = level.mix(batch.x0, eps)
        said = prediction.each(denoiser(x_t, level, batch.condition), x_t, level)
        measured = []
        for head, denoised in zip(prediction.heads.values(), said, strict=True):
            x0, _, v = errors(denoised.x0, batch.x0, level).unbind(dim=1)
            measured += [x0, v, x0 / head.gain(level).flatten().square()]
        return torch.stack(measured, dim=1)

    points = over_points(case, f"predictions of {subject.name}", len(logsnr) // images, images, measure)
    heads = points.split(len(MEASURED), dim=2)
    return {(subject.name, head): part for head, part in zip(prediction.heads, heads, strict=True)}


def judged(entrants: Entrants, edges: Sequence[float]) -> Table:
    """A row for each bin and entrant."""
    _, v, raw = torch.stack([*entrants.values()]).unbind(dim=3)  # (entrants, bins, images)
    best = v[v.mean(dim=2).argmin(dim=0), torch.arange(v.shape[1])]
    won, won_raw = v.argmin(dim=0), raw.argmin(dim=0)
    table = []
    for place, ((run, head), points) in enumerate(entrants.items()):
        columns = {}
        for name, mean, error in zip(MEASURED, points.mean(dim=1).T, standard_error(points).T, strict=True):
            columns |= {name: mean, f"{name}_se": error}
        columns["behind"], columns["behind_se"] = relative(v[place], best)
        columns |= {"wins": (won == place).double().mean(dim=1), "raw_wins": (won_raw == place).double().mean(dim=1)}
        values = zip(*(column.tolist() for column in columns.values()), strict=True)
        for (low, high), row in zip(pairwise(edges), values, strict=True):
            where = {"of": run, "head": head, "logsnr": (low + high) / 2, "low": low, "high": high}
            table.append({**where, "n": points.shape[1], **dict(zip(columns, row, strict=True))})
    return table


def stretches(winners: Sequence[Row]) -> str:
    """Who wins from where to where, of a row per bin."""
    said = []
    for name, group in groupby(winners, key=label):
        rows = [*group]
        said.append(f"{name} at log-SNR {rows[0]['low']:.2g} to {rows[-1]['high']:.2g}")
    return ", ".join(said)


def label(row: Row) -> str:
    return row["of"] if row["head"] == row["of"] else f"{row['head']} of {row['of']}"


def lines(axes: Axes, table: Table, name: str) -> None:
    for entrant, colour, marker in zip(dict.fromkeys(map(label, table)), cycle(COLOURS), cycle(MARKERS), strict=False):
        rows = [row for row in table if label(row) == entrant]
        spread = [2 * row.get(f"{name}_se", 0.0) for row in rows]
        axes.errorbar(
            column(rows, "logsnr"), column(rows, name), spread, color=colour, marker=marker, markersize=4, label=entrant
        )
    axes.axvline(0, color="black", linewidth=0.8, linestyle=":")
    axes.set_xlabel(DIRECTION)
    axes.grid(alpha=0.3)
