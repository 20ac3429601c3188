"""Slots of equal loss: time cut so that each slot holds the same share of a run's held-out loss."""

from collections.abc import Callable, Mapping
from itertools import cycle, pairwise

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from smallbatch import curves
from smallbatch.diagnostics.diagnostic import Case, Diagnostic, Found, Picture, Table, column, names
from smallbatch.diagnostics.held_out import PerRow, several, standard_error
from smallbatch.diagnostics.loss_curve import curve_points
from smallbatch.errors import UserError
from smallbatch.plots import COLOURS, drawn, figure
from smallbatch.schedules import NoiseSchedule
from smallbatch.slots import PAPER, slot_of

THE_PAPER, GREY = "the paper's (ImageNet, 256 pixels)", "#999999"
BySlot = Mapping[int, float]
WIDTHS = [last - before for before, last in pairwise((-1, *PAPER, 999))]


class Slots(Diagnostic):
    """Xie & Agam 2025 (2502.01990), table 1: `slots` slots of `error`, one of `curves.MEASURED`, on a run's schedule.

    `first` and `last` are timesteps, or thousandths of continuous time; log-SNR runs from `logsnr_first` to
    `logsnr_last`. `to_last` is the mean against the last slot's. `paper` has the paper's widths, where slots and
    timesteps are as many. A slot without a timestep of its own, beside one that holds more than its share, has no row.
    """

    def __init__(self, slots: int = 10, images: int = 16, error: str = "loss"):
        if not isinstance(slots, int) or slots < 2:
            raise UserError(f"diagnostics.slots.{slots=} must be a whole number, at least 2")
        if error not in curves.MEASURED:
            raise UserError(f"diagnostics.slots.{error=} is not known: use one of {', '.join(curves.MEASURED)}")
        self.slots, self.images, self.error = slots, several("slots", images), error

    def check(self, case: Case) -> None:
        for subject in case.subjects:
            steps = subject.denoiser.schedule.steps or curves.INTERVALS
            if steps < self.slots:
                raise UserError(
                    f"diagnostics.slots.slots={self.slots}, but the curve of {subject.name} has {steps} rows"
                )

    def measure(self, case: Case) -> Found:
        self.check(case)
        table, place = [], curves.MEASURED.index(self.error)
        for subject in case.subjects:
            schedule = subject.denoiser.schedule
            points = curve_points(case, subject, schedule, self.images)[..., place]
            rows = cut(schedule, points.mean(dim=1), standard_error(points), self.slots)
            table += [{"of": subject.name, **row} for row in rows]
        return Found(table)

    def figure(self, table: Table) -> Picture:
        page, (widths, means) = figure(11.0, 4.2, 1, 2)
        page.subplots_adjust(wspace=0.16)
        bars(widths, by_slot(table, "steps") | papers(table, lambda width: width))
        bars(means, by_slot(table, "to_last") | papers(table, lambda width: WIDTHS[-1] / width))
        widths.set_title("timesteps in each slot")
        means.set_title("mean loss of each slot, against the last's")
        widths.legend()
        return drawn(page)

    def line(self, table: Table) -> str:
        said = []
        for run in names(table, "of"):
            widths, means = column(table, "steps", of=run), column(table, "to_last", of=run)
            said.append(
                f"{run}: slots of equal loss are {', '.join(map(str, widths))} timesteps wide, the first's mean "
                f"loss is {means[0]:.3g} times the last's"
            )
        return "; ".join(said)


def cut(schedule: NoiseSchedule, loss: PerRow, error: PerRow, slots: int) -> Table:
    """`loss` and its standard error by timestep."""
    slot, logsnr = slot_of(loss, slots), curves.ends(schedule, len(loss))[1].tolist()
    table, last = [], loss[slot == slots].mean().item()
    for number in slot.unique().tolist():
        mine = (slot == number).nonzero().flatten()
        mean, first, end = loss[mine].mean().item(), int(mine[0]), int(mine[-1])
        table.append(
            {
                "slot": number,
                "first": first,
                "last": end,
                "steps": len(mine),
                "mean": mean,
                "mean_se": (error[mine].square().sum().sqrt() / len(mine)).item(),
                "to_last": mean / last,
                "share": (loss[mine].sum() / loss.sum()).item(),
                "logsnr_first": logsnr[first],
                "logsnr_last": logsnr[end],
                "paper": WIDTHS[number - 1] if slots == len(WIDTHS) and schedule.steps == sum(WIDTHS) else None,
            }
        )
    return table


def by_slot(table: Table, name: str) -> dict[str, BySlot]:
    return {
        run: dict(zip(column(table, "slot", of=run), column(table, name, of=run), strict=True))
        for run in names(table, "of")
    }


def papers(table: Table, of: Callable[[int], float]) -> dict[str, BySlot]:
    """What the paper's own slots have, where they can be compared."""
    return {} if None in column(table, "paper") else {THE_PAPER: {k: of(width) for k, width in enumerate(WIDTHS, 1)}}


def bars(axes: Axes, series: Mapping[str, BySlot]) -> None:
    """Groups of bars, one of each series beside the others."""
    width = 0.8 / len(series)
    for place, ((name, heights), colour) in enumerate(zip(series.items(), cycle(COLOURS), strict=False)):
        centres = [slot - 0.4 + width * (place + 0.5) for slot in heights]
        colour = GREY if name == THE_PAPER else colour
        axes.bar(centres, list(heights.values()), width, color=colour, label=name)
    axes.set(yscale="log", xlabel="slot, from the data")
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    axes.grid(axis="y", alpha=0.3)
