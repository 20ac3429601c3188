"""How large the gradient of one row is at each noise level, how it varies, and what drawing by it would save."""

from itertools import chain, cycle

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from smallbatch.diagnostics.diagnostic import Case, Diagnostic, Found, Picture, Subject, Table, column, names
from smallbatch.diagnostics.gradient_moments import GROUPS, OF_ALL, OF_BINS, Seen
from smallbatch.diagnostics.jackknife import jackknifed
from smallbatch.diagnostics.training_loss import Vector, slope, some_of, within
from smallbatch.ema import trainable
from smallbatch.errors import UserError
from smallbatch.notation import Observed
from smallbatch.plots import COLOURS, DIRECTION, drawn, figure
from smallbatch.proposals import LossProportional, PooledGradient, RootLoss
from smallbatch.randomness import Step

OURS = {"root_loss": RootLoss, "pooled_gradient": PooledGradient, "loss_proportional": LossProportional}
COLUMNS = ("of", "bin", "logsnr", "what", "value", "se")
ALL = "all"


class Gradients(Diagnostic):
    """Per bin of even time, of the gradient g of one training row's loss in the network's weights, row by row in a
    loop: `rms`, the root of E|g|^2; `mean`, |E g|^2; `within`, their difference, the variance. Of `all` bins also
    `between`, the variance of their means, and the share of the variance of an even draw's gradient that others save.

    A density q, with the loss divided by it, has the variance E[|g|^2 / q] - |E g|^2, least for q ~ `rms`, which
    `optimal` draws: Katharopoulos & Fleuret 2018 (1803.00942). That is so of plain SGD; Adam divides by a root mean
    square of its own. `root_loss` and the other proposals make their q of the same rows, with their shares and bounds.
    `stratified` draws every bin equally often, which leaves `within`.
    """

    def __init__(self, bins: int = 32, rows: int = 32):
        if bins < 2:
            raise UserError(f"diagnostics.gradients.{bins=} must be at least 2")
        if rows < 2 * GROUPS or rows % GROUPS:
            raise UserError(f"diagnostics.gradients.{rows=} must be a multiple of {GROUPS}, from {2 * GROUPS} on")
        self.bins, self.rows = bins, rows

    def measure(self, case: Case) -> Found:
        return Found([row for subject in case.subjects for row in self.table(subject, self.look(case, subject))])

    def look(self, case: Case, subject: Subject) -> Seen:
        square, product, rows, over_bins = [], [], [], 0.0
        for bin in case.track(range(self.bins), f"gradients of {subject.name}", self.bins):
            squares, means, seen = zip(*(self.group(case, subject, bin, one) for one in range(GROUPS)), strict=True)
            means = torch.stack(means)
            square.append(torch.stack(squares))
            product.append(means @ means.T)
            over_bins = over_bins + means / self.bins
            rows += chain(*seen)
        observed = Observed(*(None if field[0] is None else torch.cat(field) for field in zip(*rows, strict=True)))
        together = (torch.stack(square), torch.stack(product), over_bins @ over_bins.T)
        return Seen(*(part.double().cpu() for part in together), observed)

    def group(
        self, case: Case, subject: Subject, bin: int, group: int
    ) -> tuple[Float[Tensor, ""], Vector, list[Observed]]:
        """Of the gradients of a group of a bin's rows the mean square and the mean, and what was seen of each row."""
        denoiser, squares, total, observed = subject.denoiser, [], 0.0, []
        weights = [*trainable(denoiser.network).values()]
        objective = within((bin / self.bins, (bin + 1) / self.bins), subject.weighting, denoiser.schedule)
        rows = self.rows // GROUPS
        first = bin * self.rows + group * rows
        for row in range(first, first + rows):
            step = Step(case.seed, row, row, 0.0)
            x0, condition = some_of(case.train, step, 1)
            loss = objective(denoiser, x0, condition, step)
            gradient = slope(loss.value, weights)
            squares.append(gradient.square().sum())
            total = total + gradient  # one row's gradient at a time: a large network's fill the memory
            observed.append(loss.observed._replace(u=(bin + loss.observed.u) / self.bins))
        return torch.stack(squares).mean(), total / rows, observed

    def table(self, subject: Subject, seen: Seen) -> Table:
        ours = {name: seen.drawn_by(proposal) for name, proposal in OURS.items()}
        of_bins = jackknifed(seen.of_bins, GROUPS)
        of_all = jackknifed(lambda groups: seen.of_all(groups, ours), GROUPS)
        middle = ((torch.arange(self.bins) + 0.5) / self.bins).to(seen.observed.u)
        bins = list(enumerate(subject.denoiser.schedule.logsnr(middle).tolist()))
        made = []
        for what, values, errors in zip(OF_BINS, *(part.tolist() for part in of_bins), strict=True):
            made += [(*bin, what, *found) for bin, found in zip(bins, zip(values, errors, strict=True), strict=True)]
        for what, q in ours.items():
            made += [(*bin, f"q {what}", value, None) for bin, value in zip(bins, q.tolist(), strict=True)]
        whats = (*OF_ALL, *(f"saved by {what}" for what in ours))
        made += [(ALL, None, *found) for found in zip(whats, *(part.tolist() for part in of_all), strict=True)]
        return [dict(zip(COLUMNS, (subject.name, *row), strict=True)) for row in made]

    def figure(self, table: Table) -> Picture:
        runs = names(table, "of")
        page, (sizes, *densities) = figure(5.4 * (1 + len(runs)), 4.4, 1, 1 + len(runs))
        page.subplots_adjust(wspace=0.2)
        for run, colour in zip(runs, cycle(COLOURS), strict=False):
            draw(sizes, table, run, "rms", color=colour, label=run)
        sizes.set(yscale="log", title="root mean square of a row's gradient", xlabel=DIRECTION)
        for axes, run in zip(densities, runs, strict=True):
            for what, colour in zip(("optimal", *OURS), COLOURS, strict=False):
                draw(axes, table, run, f"q {what}", color=colour, label=f"{what}: saves {share(table, run, what)}")
            axes.axhline(1, color="grey", linewidth=0.8)
            axes.set(title=f"where to draw, {run}", ylabel="density over even times", xlabel=DIRECTION)
        for axes in (sizes, *densities):
            axes.grid(alpha=0.3)
            axes.legend()
        return drawn(page)

    def line(self, table: Table) -> str:
        return "; ".join(said(table, run) for run in names(table, "of"))


def draw(axes: Axes, table: Table, run: str, what: str, **how: str) -> None:
    """With two standard errors to both sides."""
    rows = [row for row in table if row["of"] == run and row["what"] == what and row["bin"] != ALL]
    logsnr, value = column(rows, "logsnr"), column(rows, "value")
    error = [2 * (row["se"] or 0.0) for row in rows]
    axes.errorbar(logsnr, value, error, marker="o", markersize=3, linewidth=1.2, elinewidth=0.8, **how)


def share(table: Table, run: str, what: str) -> str:
    ((value, error),) = [
        (row["value"], row["se"]) for row in table if row["of"] == run and row["what"] == f"saved by {what}"
    ]
    return f"{100 * value:.1f} ± {100 * error:.1f} %"


def said(table: Table, run: str) -> str:
    rms, logsnr = (column(table, key, of=run, what="rms")[:-1] for key in ("value", "logsnr"))
    least, most = (rms.index(pick(rms)) for pick in (min, max))
    shares = ", ".join(f"{what} {share(table, run, what)}" for what in ("optimal", "stratified", *OURS))
    return (
        f"{run}: a row's gradient is from {rms[least]:.3g} (log-SNR {logsnr[least]:.1f}) to {rms[most]:.3g} "
        f"({logsnr[most]:.1f}); of the variance of even times is saved by {shares} (± standard error)"
    )
