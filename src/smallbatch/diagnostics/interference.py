"""What training on one slot of time does to the others: measured after it, and foretold by cosines of gradients."""

import copy
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from smallbatch import curves
from smallbatch.denoiser import Denoiser
from smallbatch.densities import Uniform
from smallbatch.diagnostics.cosines import cosines
from smallbatch.diagnostics.diagnostic import Case, Diagnostic, Found, Picture, Subject, Table, names
from smallbatch.diagnostics.held_out import relative
from smallbatch.diagnostics.interference_figure import ALL, interference_figure, said
from smallbatch.diagnostics.training_loss import Ends, Rows, some_of, within
from smallbatch.ema import trainable
from smallbatch.errors import UserError, refuse_unless_positive
from smallbatch.optimizers import adamw
from smallbatch.randomness import Step, key
from smallbatch.slots import CurveSlots

COLUMNS = (
    *("of", "trained", "measured", "low", "high"),
    *("change", "change_se", "against_all", "against_all_se", "cosine", "cosine_se"),
)
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
        rows: int = 512,
        curve: str | None = None,
    ):
        refuse_unless_positive("diagnostics.interference", lr=lr)
        if slots < 2:
            raise UserError(f"diagnostics.interference.{slots=} must be at least 2")
        trained = range(1, slots + 1) if trained is None else trained
        if not trained or not all(isinstance(slot, int) and 1 <= slot <= slots for slot in trained):
            raise UserError(f"diagnostics.interference.trained={list(trained)} must name slots from 1 to {slots}")
        if points < 2 or rows < GROUPS or rows % GROUPS:
            raise UserError(f"diagnostics.interference: {points=} must be at least 2, {rows=} a multiple of {GROUPS}")
        if batch < 1 or images < batch or images % batch:
            raise UserError(f"diagnostics.interference: {images=} must be a multiple of {batch=}, and not 0")
        self.slots, self.trained, self.curve = slots, trained, curve
        self.images, self.batch, self.lr, self.points, self.rows = images, batch, lr, points, rows

    def check(self, case: Case) -> None:
        for subject in case.subjects:
            self.ends(subject)

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
        schedule, device = subject.denoiser.schedule, next(subject.denoiser.parameters()).device
        slots = CurveSlots(curves.read(file, "diagnostics.interference.curve"), self.slots).to(device)
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
        return interference_figure(table)

    def line(self, table: Table) -> str:
        return "; ".join(said(table, run) for run in names(table, "of"))
