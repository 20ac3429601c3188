"""The held-out loss at every time of a schedule, with standard errors; of several runs on the same images and noise."""

import math
from itertools import groupby
from statistics import fmean

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from smallbatch import curves
from smallbatch.diagnostics.bands import band
from smallbatch.diagnostics.diagnostic import Case, Diagnostic, Found, Picture, Subject, Table, column, names
from smallbatch.diagnostics.held_out import PerRow, Points, over_points, relative, several, standard_error
from smallbatch.notation import Batch, PerImage
from smallbatch.plots import DIRECTION, drawn, figure
from smallbatch.schedules import NoiseSchedule

POOLED = 0.2  # log-SNR over which the picture takes rows together
PANELS = {"x0_mse": "squared error of x0", "eps_mse": "squared error of eps", "v_mse": "squared error of v"}


class LossCurve(Diagnostic):
    """Xie & Agam 2025 (2502.01990), figures 1a, c, e and f. The file of one run feeds timesteps=slots.

    A row for every timestep of the first run's table, or for each of 1000 even intervals of its continuous time, read
    at the middle; `time` and `logsnr` are those of the row's end. A run with another schedule is measured at the same
    log-SNR (a table at its nearest), and has no rows beyond its ends. `loss` is as each run weighs it. `v_change` is
    what v's error is above the first run's, relative to it; errors of x0 and eps change alike.
    """

    def __init__(self, images: int = 16):
        self.images = several("loss_curve", images)

    def measure(self, case: Case) -> Found:
        schedule, found = case.subjects[0].denoiser.schedule, []
        for subject in case.subjects:
            found.append(curve_points(case, subject, schedule, self.images))
        return Found(
            [
                row
                for subject, points in zip(case.subjects, found, strict=True)
                for row in rows(subject, schedule, points, found[0])
            ]
        )

    def figure(self, table: Table) -> Picture:
        first, *others = names(table, "of")
        page, panels = figure(11.0, 7.6, 2, 2, "held-out error, with two standard errors to both sides", sharex=True)
        page.subplots_adjust(wspace=0.2)
        for axes, (name, title) in zip(panels, PANELS.items(), strict=False):
            band(axes, pooled(table, name), name, title)
            axes.set_yscale("log")
        if others:
            band(panels[3], pooled(table, "v_change"), "v_change", f"change from {first}")
            panels[3].yaxis.set_major_formatter("{x:+.0%}")
        else:
            band(panels[3], pooled(table, "loss"), "loss", "loss, as the run weighs it")
            panels[3].set_yscale("log")
        panels[0].legend()
        page.supxlabel(DIRECTION, fontsize="medium")
        return drawn(page)

    def line(self, table: Table) -> str:
        first, *others = names(table, "of")
        loss, logsnr = (torch.tensor(column(table, key, of=first)) for key in ("loss", "logsnr"))
        half = int((loss.cumsum(dim=0) < loss.sum() / 2).sum())
        said = [
            f"{first}: mean loss {loss.mean():.4g} over all times, half of it in the first {half + 1} of {len(loss)} "
            f"steps, where log-SNR is above {logsnr[half]:.2g}"
        ]
        base = {row["logsnr"]: row for row in table if row["of"] == first}
        for other in others:
            mine = [row for row in table if row["of"] == other]
            above, below = ([row for row in mine if (row["logsnr"] > 0) == side] for side in (True, False))
            changes = []
            for where, rows in (("above", above), ("below", below)):
                if rows:
                    total, error = change(rows, [base[row["logsnr"]] for row in rows])
                    changes.append(f"{total:+.1%} (standard error {error:.1%}) where SNR is {where} 1")
            said.append(f"{other} against it: error of v {', '.join(changes)}")
        return "; ".join(said)


def curve_points(case: Case, subject: Subject, schedule: NoiseSchedule, images: int) -> Points:
    """`curves.MEASURED` of `images` points a row, at the log-SNR that `schedule` has in the middle of the row."""
    own, rows = subject.denoiser.schedule, schedule.steps or curves.INTERVALS
    t = own.time(schedule.logsnr(curves.middle(torch.arange(rows), rows).to(case.device)))

    def measure(mine: Int[Tensor, " b"], batch: Batch) -> Float[Tensor, "b 4"]:
        at = t[(mine // images).to(t.device)]
        return curves.measure_all(subject.denoiser, subject.weighting, batch, mine.tolist(), at, case.seed)

    return over_points(case, f"loss curve of {subject.name}", rows, images, measure)


def rows(subject: Subject, schedule: NoiseSchedule, points: Points, first: Points) -> Table:
    mean, error, (time, logsnr) = points.mean(dim=1), standard_error(points), curves.ends(schedule, len(points))
    columns = {"time": time, "logsnr": logsnr}
    for name, its_mean, its_error in zip(curves.MEASURED, mean.T, error.T, strict=True):
        columns |= {name: its_mean, f"{name}_se": its_error}
    columns["v_change"], columns["v_change_se"] = relative(points[..., 3], first[..., 3])
    inside = within_ends(subject.denoiser.schedule, logsnr)
    made = {"of": subject.name, "schedule": type(schedule).__name__, "steps": schedule.steps}
    values = zip(*(column[inside].tolist() for column in columns.values()), strict=True)
    return [{**made, **dict(zip(columns, row, strict=True)), "n": points.shape[1]} for row in values]


def within_ends(schedule: NoiseSchedule, logsnr: PerImage) -> Bool[Tensor, " rows"]:
    """Which log-SNR the schedule reaches."""
    device = next(schedule.buffers(), logsnr).device
    high, low = schedule.logsnr(torch.tensor([0.0, 1.0], device=device)).tolist()
    return (logsnr >= low - 1e-3) & (logsnr <= high + 1e-3)


def change(rows: Table, first: Table) -> tuple[float, float]:
    """sum(v's errors) / sum(the first run's) - 1, and its standard error by the delta method: the points are pairs.

    A row's variance of (error - ratio * first's) gives the covariance of the two, and that the variance for one ratio
    of all rows.
    """
    v, v_se, ratio, ratio_se = (doubles(rows, name) for name in ("v_mse", "v_mse_se", "v_change", "v_change_se"))
    base, base_se = (doubles(first, name) for name in ("v_mse", "v_mse_se"))
    ratio, total = 1 + ratio, v.sum() / base.sum()
    together = (v_se.square() + (ratio * base_se).square() - (ratio_se * base).square()) / (2 * ratio)
    variance = v_se.square() + (total * base_se).square() - 2 * total * together
    return (total - 1).item(), (variance.sum().clamp(min=0).sqrt() / base.sum()).item()


def doubles(table: Table, name: str) -> PerRow:
    return torch.tensor(column(table, name), dtype=torch.float64)


def pooled(table: Table, name: str) -> Table:
    """Of every run the means over rows that lie close together, and their standard errors."""
    found = []
    for of in names(table, "of"):
        for _, near in groupby((row for row in table if row["of"] == of), lambda row: row["logsnr"] // POOLED):
            rows = [*near]
            logsnr, mean = (fmean(column(rows, key)) for key in ("logsnr", name))
            error = math.hypot(*column(rows, f"{name}_se")) / len(rows)
            found.append({"of": of, "logsnr": logsnr, name: mean, f"{name}_se": error})
    return found
