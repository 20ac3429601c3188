"""What schedule, prediction and weighting imply before any network is trained."""

from itertools import cycle

import torch

from smallbatch.diagnostics.diagnostic import CPU, Case, Diagnostic, Found, Picture, Table, column, names
from smallbatch.errors import UserError
from smallbatch.mixtures import HEADS
from smallbatch.notation import NoiseLevel, PerImage
from smallbatch.plots import COLOURS, DIRECTION, drawn, figure
from smallbatch.predictions import Prediction
from smallbatch.schedules import NoiseSchedule
from smallbatch.tables import Table as Steps
from smallbatch.weightings import Weighting

CLEAN = torch.inf  # log-SNR of an image without noise


class Coefficients(Diagnostic):
    """Per time: what x0 and x_t count in the mean of q(x_before | x_t, x0), Ho et al. 2020 (2006.11239), eq. 7; what an
    error of 1 in eps or v is in x0; and how the loss weighs an error of x0, eps or v, also per log-SNR.

    `before` is a table's index before; of a continuous schedule, 1 / `steps` earlier. Runs bring their own schedules,
    predictions and weightings.
    """

    least_runs, needs_data = 0, False

    def __init__(self, schedule: NoiseSchedule, prediction: Prediction, weighting: Weighting, steps: int = 1000):
        if min(steps, schedule.steps or steps) < 2:
            raise UserError(f"diagnostics.coefficients: {steps=} and a table's must be at least 2")
        self.recipe, self.steps = (schedule, prediction, weighting), steps

    def measure(self, case: Case) -> Found:
        recipes = {
            subject.name: (subject.denoiser.schedule, subject.denoiser.prediction, subject.weighting)
            for subject in case.subjects
        } or {type(self.recipe[0]).__name__: self.recipe}
        device = case.device if case.subjects else CPU
        return Found([row for name, recipe in recipes.items() for row in self.rows(name, *recipe, device)])

    @torch.no_grad()
    def rows(
        self, name: str, schedule: NoiseSchedule, prediction: Prediction, weighting: Weighting, device: torch.device
    ) -> Table:
        steps = schedule.steps or self.steps
        now = schedule((torch.arange(1, steps + 1, dtype=torch.float64) / steps).float().to(device))
        logsnr = now.logsnr.flatten()
        before = torch.cat([torch.full_like(logsnr[:1], CLEAN), logsnr[:-1]])
        of_x0, of_xt = posterior_mean(now, before)
        weight = weight_of_x0(prediction, weighting, now)
        rise = torch.cat([logsnr[:1] - logsnr[1:2], -logsnr.diff()])  # per step of 1 / steps
        columns = {
            "t": torch.arange(steps) if isinstance(schedule, Steps) else now.t,
            "logsnr": logsnr,
            "alpha": now.alpha.flatten(),
            "sigma": now.sigma.flatten(),
            "c_x0": of_x0,
            "c_xt": of_xt,
            "gain_eps": HEADS["eps"].gain(now).flatten(),
            "gain_v": HEADS["v"].gain(now).flatten(),
            "weight_x0": weight,
            "weight_eps": weight / logsnr.exp(),
            "weight_v": weight / (1 + logsnr.exp()),
            "weight_per_logsnr": weight / logsnr.exp() / (steps * rise),
        }
        values = zip(*(column.tolist() for column in columns.values()), strict=True)
        return [{"of": name, **dict(zip(columns, row, strict=True))} for row in values]

    def figure(self, table: Table) -> Picture:
        page, (means, weights) = figure(11.0, 4.2, 1, 2)
        page.subplots_adjust(wspace=0.22, left=0.07, right=0.98)
        for name, colour in zip(names(table, "of"), cycle(COLOURS), strict=False):
            t = range(1, 1 + len(column(table, "t", of=name)))
            means.plot(t, column(table, "c_x0", of=name), color=colour, label=f"of x0, {name}")
            means.plot(t, column(table, "c_xt", of=name), color=colour, linestyle="--", label=f"of x_t, {name}")
            logsnr, weight = (column(table, key, of=name) for key in ("logsnr", "weight_per_logsnr"))
            weights.plot(logsnr, weight, color=colour, label=name)
        means.set(xscale="log", xlabel="step, counted from the data", title="coefficients of the posterior's mean")
        weights.set(yscale="log", xlabel=DIRECTION, title="weight of the squared error of eps, per unit of log-SNR")
        for axes in (means, weights):
            axes.grid(alpha=0.3)
            axes.legend()
        return drawn(page)

    def line(self, table: Table) -> str:
        found = []
        for name in names(table, "of"):
            of_x0, logsnr = column(table, "c_x0", of=name), column(table, "logsnr", of=name)
            large = sum(value > 0.1 for value in of_x0)
            even = sum(value > 0 for value in logsnr)
            found.append(
                f"{name}: x0 counts more than 0.1 in the posterior's mean for the first {large} of {len(of_x0)} steps; "
                f"SNR exceeds 1 for the first {even}"
            )
        return "; ".join(found)


def posterior_mean(now: NoiseLevel, before: PerImage) -> tuple[PerImage, PerImage]:
    """Coefficients of x0 and x_t in the mean of q(x_before | x_t, x0) at unit levels, from the log-SNR before."""
    share = -torch.expm1(now.logsnr.flatten() - before)
    alpha_before = before.sigmoid().sqrt()
    kept = (1 - share) * alpha_before / now.unit.alpha.flatten()
    return alpha_before * share, kept


def weight_of_x0(prediction: Prediction, weighting: Weighting, level: NoiseLevel) -> PerImage:
    """What the loss makes of an error of 1 in x0, where all heads err alike."""
    one = torch.zeros_like(level.alpha)
    terms = prediction.terms(one.expand(-1, prediction.outputs, 1, 1), one, one, level)
    terms = terms._replace(error=terms.gain.square().reciprocal())
    return (weighting.counts(prediction, terms, level) * terms.error).sum(dim=1)
