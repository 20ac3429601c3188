"""How smooth the loss is around and between runs: along lines through the weights, and by its largest curvatures."""

import torch
from torch import Tensor

from smallbatch.diagnostics.curvature import hessian, leading, weighted
from smallbatch.diagnostics.diagnostic import Case, Diagnostic, Found, Picture, Subject, Table, names
from smallbatch.diagnostics.directions import Walk, along, filter_normalised, weights_of
from smallbatch.diagnostics.landscape_figure import landscape_figure, said
from smallbatch.diagnostics.stretches import Stretches, stretches
from smallbatch.diagnostics.training_loss import Vector
from smallbatch.ema import trainable
from smallbatch.errors import UserError

COLUMNS = ("of", "what", "number", "bin", "logsnr", "position", "value", "se", "rise", "rise_se")
ALL = "all"
LEAST = {"bins": 1, "rows": 2, "points": 3, "directions": 0, "eigenvalues": 0, "hessian_rows": 1}


class Landscape(Diagnostic):
    """The held-out loss in `bins` even bins of log-SNR, times even within each, and over `all` times, where each bin
    counts the time that it holds; on the same `rows` rows of each bin at all weights.

    `line`: from one run (position 0) straight to another (1), where two are given; `rise` is from the straight line
    between the losses at its ends. `direction`: from -`reach` to `reach` along random filter-normalised directions, Li
    et al. 2018 (1712.09913), section 4; `rise` is from position 0. `eigenvalue`: the Hessian's largest, by Lanczos, on
    `hessian_rows` rows of each bin; `position` is the rank. So few rows make them too large: `elsewhere` is the
    curvature of other rows along the same vectors. Every run has its own prediction and weighting, a line its start's.
    """

    most_runs = 2

    def __init__(
        self,
        bins: int = 6,
        rows: int = 48,
        points: int = 11,
        directions: int = 2,
        reach: float = 0.5,
        eigenvalues: int = 2,
        hessian_rows: int = 8,
    ):
        given = (bins, rows, points, directions, eigenvalues, hessian_rows)
        for (name, least), value in zip(LEAST.items(), given, strict=True):
            if not isinstance(value, int) or value < least:
                raise UserError(f"diagnostics.landscape.{name}={value} must be a whole number, at least {least}")
        if points % 2 == 0 or not reach > 0:
            raise UserError(
                f"diagnostics.landscape: {points=} must be odd, for the run in the middle; {reach=} above 0"
            )
        self.bins, self.rows, self.points, self.directions, self.eigenvalues, self.hessian_rows = given
        self.reach = reach

    def check(self, case: Case) -> None:
        refuse_other_weights(case.subjects)
        if len(case.subjects) == 1 and self.directions == self.eigenvalues == 0:
            raise UserError("diagnostics.landscape: one run has no line: give directions, eigenvalues or run=[A,B]")
        for subject in case.subjects:
            stretches(case, subject, self.bins)

    def measure(self, case: Case) -> Found:
        self.check(case)
        places = [stretches(case, subject, self.bins) for subject in case.subjects]
        table = self.between(*places) if len(places) == 2 else []
        for place in places:
            for number in range(1, self.directions + 1):
                table += self.around(place, number)
            table += self.curvatures(place) if self.eigenvalues else []
        return Found(table)

    def between(self, here: Stretches, there: Stretches) -> Table:
        positions = torch.linspace(0, 1, self.points, dtype=torch.float64)
        start, end = (weights_of(place.subject.denoiser.network) for place in (here, there))
        losses = self.walk(here, end - start, positions, "line to the other run")
        straight = losses[0] + positions[:, None, None] * (losses[-1] - losses[0])
        return walked(here, "line", 1, positions, losses, losses - straight)

    def around(self, place: Stretches, number: int) -> Table:
        positions = torch.linspace(-self.reach, self.reach, self.points, dtype=torch.float64)
        direction = filter_normalised(place.subject.denoiser.network, place.case.seed, number)
        losses = self.walk(place, direction, positions, f"direction {number} from")
        return walked(place, "direction", number, positions, losses, losses - losses[self.points // 2])

    def walk(self, place: Stretches, direction: Vector, positions: Tensor, what: str) -> Walk:
        shown = place.case.track(positions.tolist(), f"{what} {place.subject.name}", self.points)
        return along(place.subject.denoiser, direction, shown, lambda moved: place.losses(self.rows, moved))

    def curvatures(self, place: Stretches) -> Table:
        """Of all times, then of every bin."""
        denoiser, like = place.subject.denoiser, weights_of(place.subject.denoiser.network)
        products, others = (
            [hessian(denoiser, rows) for rows in place.rows(self.hessian_rows, purpose)]
            for purpose in ("hessian", "hessian elsewhere")
        )
        of_all = [weighted(place.shares.tolist(), each) for each in (products, others)]
        tasks = [(ALL, None, *of_all), *zip(range(self.bins), place.logsnr, products, others, strict=True)]
        table = []
        for bin, logsnr, product, other in place.case.track(tasks, f"curvature of {place.subject.name}", len(tasks)):
            values, vectors = leading(product, like, self.eigenvalues, place.case.seed)
            elsewhere = [(vector @ other(vector)).item() for vector in vectors]
            for what, found in (("eigenvalue", values), ("elsewhere", elsewhere)):
                for rank, value in enumerate(found, 1):
                    row = (place.subject.name, what, None, bin, logsnr, rank, value, None, None, None)
                    table.append(dict(zip(COLUMNS, row, strict=True)))
        return table

    def figure(self, table: Table) -> Picture:
        return landscape_figure(table)

    def line(self, table: Table) -> str:
        return "; ".join(said(table, run) for run in names(table, "of"))


def walked(place: Stretches, what: str, number: int, positions: Tensor, losses: Walk, rises: Walk) -> Table:
    table, bins = [], [(ALL, None), *enumerate(place.logsnr)]
    for position, loss, rise in zip(positions.tolist(), losses, rises, strict=True):
        found = zip(*place.estimates(loss), *place.estimates(rise), strict=True)
        for bin, figures in zip(bins, found, strict=True):
            row = (place.subject.name, what, number, *bin, position, *figures)
            table.append(dict(zip(COLUMNS, row, strict=True)))
    return table


def refuse_other_weights(subjects: list[Subject]) -> None:
    """Between other shapes there is no line."""
    shapes = [[tuple(weight.shape) for weight in trainable(one.denoiser.network).values()] for one in subjects]
    for one, other in zip(subjects[1:], shapes[1:], strict=True):
        if other != shapes[0]:
            first = subjects[0].folder
            raise UserError(f"run={one.folder} has another network than run={first}: give runs of one, or one run")
        here, there = (type(run.denoiser.prediction).__name__ for run in (one, subjects[0]))
        if here != there:  # a line would read the one's outputs as the other's
            raise UserError(f"run={one.folder} predicts {here}, run={subjects[0].folder} {there}: give one at a time")
