"""What training on one slot of time does to the others: measured after it, and foretold by cosines of gradients."""

import copy
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float, Float64
from matplotlib.axes import Axes
from torch import Tensor

from smallbatch import curves
from smallbatch.denoiser import Denoiser
from smallbatch.densities import Uniform
from smallbatch.diagnostics.cosines import cosines
from smallbatch.diagnostics.diagnostic import Case, Diagnostic, Found, Picture, Subject, Table, column, names
from smallbatch.diagnostics.held_out import relative
from smallbatch.diagnostics.training_loss import Ends, Rows, some_of, within
from smallbatch.ema import trainable
from smallbatch.errors import UserError
from smallbatch.optimizers import adamw
from smallbatch.plots import drawn, figure
from smallbatch.randomness import Step, key
from smallbatch.slots import CurveSlots

COLUMNS = (
    *("of", "trained", "measured", "low", "high"),
    *("change", "change_se", "against_all", "against_all_se", "cosine", "cosine_se"),
)
ALL = "all"  # times: training goes on as before
GROUPS = 4  # of the rows of a slot's gradient, for standard errors


PerSlot = Float64[Tensor, "slots points"]


class Interference(Diagnostic):
    """Xie & Agam 2025 (2502.01990), figure 2. From a run's averaged weights, `images` rows of training on one slot of
    equal loss, by Adam at a constant rate in batches of `batch`, with the run's own prediction and weighting; then the
    held-out loss of every slot, at `points` fixed rows.

    `trained` are numbers from 1; None: every slot. `change` is relative to the run; `against_all`, to as much training
    on even times, for averaged weights are better than what any further step makes of them. Their standard errors are
    of the held-out rows, for this one training. `cosine` is of the slots' mean gradients before it, from `rows`
    training rows each; it is empty where they are too noisy to have a length.
    """

    def __init__(
        self,
        slots: int = 10,
        trained: Sequence[int] | None = (3, 5, 7, 9),
        images: int = 2048,
        batch: int = 64,
        lr: float = 1e-4,
        points: int = 256,
        rows: int = 256,
        curve: str | None = None,
    ):
        trained = range(1, slots + 1) if trained is None else trained
        if not trained or not all(isinstance(slot, int) and 1 <= slot <= slots for slot in trained):
            raise UserError(f"diagnostics.interference.trained={list(trained)} must name slots from 1 to {slots}")
        if points < 2 or rows < GROUPS or rows % GROUPS:
            raise UserError(f"diagnostics.interference: {points=} must be at least 2, {rows=} a multiple of {GROUPS}")
        if batch < 1 or images < batch or images % batch:
            raise UserError(f"diagnostics.interference: {images=} must be a multiple of {batch=}, and not 0")
        self.slots, self.trained, self.curve = slots, trained, curve
        self.images, self.batch, self.lr, self.points, self.rows = images, batch, lr, points, rows

    def measure(self, case: Case) -> Found:
        slots = {subject.name: self.ends(subject) for subject in case.subjects}
        return Found([row for subject in case.subjects for row in self.table(case, subject, slots[subject.name])])

    def ends(self, subject: Subject) -> list[Ends]:
        """Of each slot's window of time."""
        file = Path(self.curve) if self.curve else subject.folder / "loss_curve.csv"
        if not file.is_file():
            raise UserError(
                f"{file} is missing: give diagnostics.interference.curve=FILE, a loss_curve.csv of this run"
            )
        schedule = subject.denoiser.schedule
        slots = CurveSlots(curves.read(file), self.slots)
        slots.check(schedule, Uniform())
        return list(pairwise(slots.knots(schedule)[1].tolist()))

    def table(self, case: Case, subject: Subject, slots: list[Ends]) -> Table:
        windows = {ALL: (0.0, 1.0)} | {slot: slots[slot - 1] for slot in self.trained}
        before, losses = self.losses(case, subject, subject.denoiser, slots), {}
        for slot, ends in case.track(windows.items(), f"training slots of {subject.name}", len(windows)):
            losses[slot] = self.losses(case, subject, self.tuned(case, subject, ends), slots)
        cosine = cosines(self.gradients(case, subject, slots))
        table = []
        for slot, after in losses.items():
            unknown = torch.full((self.slots,), torch.nan)
            foretold = (unknown, unknown) if slot == ALL else (part[slot - 1] for part in cosine)
            found = (*relative(after, before), *relative(after, losses[ALL]), *foretold)
            for place, values in enumerate(zip(*(part.tolist() for part in found), strict=True)):
                told = (None if math.isnan(value) else value for value in values)
                table.append(dict(zip(COLUMNS, (subject.name, slot, place + 1, *slots[place], *told), strict=True)))
        return table

    def losses(self, case: Case, subject: Subject, denoiser: Denoiser, slots: list[Ends]) -> PerSlot:
        found = []
        for slot, ends in enumerate(slots):
            step = Step(key(case.seed, "held out"), slot, 0, 0.0)
            objective = within(ends, subject.weighting, denoiser.schedule)
            found.append(Rows(objective, case.held_out, self.points, step, case.batch).losses(denoiser))
        return torch.stack(found)

    def gradients(self, case: Case, subject: Subject, slots: list[Ends]) -> Float[Tensor, "groups slots weights"]:
        found, denoiser = [], subject.denoiser
        for place in case.track(range(GROUPS * len(slots)), f"gradients of {subject.name}", GROUPS * len(slots)):
            step = Step(key(case.seed, "gradients"), place, 0, 0.0)
            objective = within(slots[place % len(slots)], subject.weighting, denoiser.schedule)
            found.append(Rows(objective, case.train, self.rows // GROUPS, step, case.batch).gradient(denoiser))
        return torch.stack(found).unflatten(0, (GROUPS, -1))

    def tuned(self, case: Case, subject: Subject, ends: Ends) -> Denoiser:
        """A copy of the run's denoiser, trained in one window of time."""
        denoiser = copy.deepcopy(subject.denoiser)
        optimizer = adamw(trainable(denoiser.network).values(), self.batch, self.lr)
        objective = within(ends, subject.weighting, denoiser.schedule)
        for index in range(self.images // self.batch):
            step = Step(case.seed, index, index * self.batch, 0.0)
            x0, condition = some_of(case.train, step, self.batch)
            optimizer.zero_grad()
            objective(denoiser, x0, condition, step).value.backward()
            optimizer.step()
        return denoiser

    def figure(self, table: Table) -> Picture:
        runs = names(table, "of")
        page, axes = figure(14.0, 1.2 + len(runs) * (1.4 + 0.5 * len(names(table, "trained"))), len(runs), 2)
        page.subplots_adjust(wspace=0.12, hspace=0.5)
        for run, change, cosine in zip(runs, axes[::2], axes[1::2], strict=True):
            heat(change, table, run, "change", "{:+.1f}", 100)
            heat(cosine, table, run, "cosine", "{:+.2f}", 1)
            change.set_title(f"change of the held-out loss in %, {run}")
            cosine.set_title("cosine of the slots' gradients before training")
        return drawn(page)

    def line(self, table: Table) -> str:
        return "; ".join(said(table, run) for run in names(table, "of"))


def heat(axes: Axes, table: Table, run: str, what: str, form: str, scale: float) -> None:
    """A row for each trained slot, a column for each measured one; white is 0."""
    trained, measured = (names([row for row in table if row["of"] == run], key) for key in ("trained", "measured"))
    found = [
        [math.nan if x is None else scale * x for x in column(table, what, of=run, trained=slot)] for slot in trained
    ]
    most = max((abs(x) for row in found for x in row if not math.isnan(x)), default=1.0) or 1.0
    axes.imshow(found, "RdBu_r", vmin=-most, vmax=most, aspect="auto")
    for y, row in enumerate(found):
        for x, value in enumerate(row):
            if not math.isnan(value):
                dark = abs(value) > 0.6 * most
                axes.text(
                    x, y, form.format(value), ha="center", va="center", color="white" if dark else "black", fontsize=8
                )
    axes.set_xticks(range(len(measured)), measured)
    axes.set_yticks(range(len(trained)), trained)
    axes.set(xlabel="measured slot   (data on the left, noise on the right)", ylabel="trained slot")


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
