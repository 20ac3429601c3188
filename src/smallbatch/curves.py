"""Loss curves: the held-out loss at every time of a schedule, measured, written and read."""

import csv
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smallbatch.denoiser import Denoiser
from smallbatch.errors import UserError
from smallbatch.files import replacing
from smallbatch.notation import Batch, PerImage, Time
from smallbatch.randomness import SampleNoise
from smallbatch.schedules import NoiseSchedule
from smallbatch.validation import errors
from smallbatch.weightings import Weighting

INTERVALS = 1000  # rows of a continuous schedule's curve
COLUMNS = ("schedule", "steps", "time", "logsnr", "loss", "n")
MEASURED = ("loss", "x0_mse", "eps_mse", "v_mse")


class Curve(NamedTuple):
    """One row for each of even intervals of time; on a table, for each index."""

    schedule: str
    steps: int | None  # of a table
    time: Float[Tensor, " rows"]  # where the interval ends
    logsnr: Float[Tensor, " rows"]  # there
    loss: Float[Tensor, " rows"]
    n: Int[Tensor, " rows"]

    @property
    def origin(self) -> str:
        return named(self.schedule, self.steps)


def named(schedule: str, steps: int | None) -> str:
    return f"{schedule}, continuous" if steps is None else f"{schedule} of {steps} timesteps"


def rows_of(schedule: NoiseSchedule, points: int) -> int:
    """As many as the curve has, but none without a point: fewer points make longer intervals."""
    return min(schedule.steps or INTERVALS, points)


def row_of(point: Int[Tensor, " b"], points: int, rows: int) -> Int[Tensor, " b"]:
    """Points are shared out evenly over the rows."""
    return point * rows // points


def middle(row: Int[Tensor, " b"], rows: int) -> Time:
    """Where a row's points lie: the middle of its interval, which a table reads as its end."""
    return ((row.double() + 0.5) / rows).float()


def measure(denoiser: Denoiser, weighting: Weighting, batch: Batch, indices: list[int], t: Time) -> PerImage:
    """The weighted error that training minimises, without importance; its noise depends on the point's index alone."""
    return measure_all(denoiser, weighting, batch, indices, t, seed=0)[:, 0]


@torch.no_grad()
def measure_all(
    denoiser: Denoiser, weighting: Weighting, batch: Batch, indices: list[int], t: Time, seed: int
) -> Float[Tensor, "b 4"]:
    """MEASURED: what `measure` says, and the mean squared error of x0, eps and v."""
    level = denoiser.schedule(t)
    eps = SampleNoise(seed, indices, tuple(batch.x0.shape[1:]), batch.x0.device)(0)
    x_t = level.mix(batch.x0, eps)
    out = denoiser(x_t, level, batch.condition)
    terms = denoiser.prediction.terms(out, batch.x0, eps, level)
    loss = (weighting.counts(denoiser.prediction, terms, level) * terms.error).sum(dim=1)
    estimate = denoiser.prediction.decode(out, x_t, level).x0
    return torch.cat([loss[:, None], errors(estimate, batch.x0, level)], dim=1)


def curve(schedule: NoiseSchedule, total: Float[Tensor, " rows"], n: Float[Tensor, " rows"]) -> Curve:
    """From the sum of each row's losses and how many they are."""
    time, logsnr = ends(schedule, len(n))
    return Curve(type(schedule).__name__, schedule.steps, time, logsnr, (total / n).float(), n.long())


def ends(schedule: NoiseSchedule, rows: int) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
    """The time at which each row ends, and the log-SNR there."""
    time = _even(rows)
    device = next(schedule.buffers(), time).device
    return time, schedule.logsnr(time.to(device)).cpu()


def _even(rows: int) -> Float[Tensor, " rows"]:
    return (torch.arange(1, rows + 1, dtype=torch.float64) / rows).float()


def write(curve: Curve, path: Path) -> None:
    with replacing(path) as partial, open(partial, "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        figures = (column.tolist() for column in (curve.time, curve.logsnr, curve.loss, curve.n))
        for time, logsnr, loss, n in zip(*figures, strict=True):
            steps = "" if curve.steps is None else curve.steps
            table.writerow((curve.schedule, steps, f"{time:.7g}", f"{logsnr:.7g}", f"{loss:.7g}", n))


def read(path: str | Path, setting: str = "timesteps.proposal.curve") -> Curve:
    """`setting` is how the user named the path."""
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        made = _parsed(rows)
    except OSError as error:
        raise UserError(f"{setting}={path} cannot be read ({error.strerror}): give {HINT}") from None
    except (KeyError, IndexError, TypeError, ValueError, csv.Error) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{setting}={path} is no loss curve ({reason}): give {HINT}") from None
    return made


HINT = "a loss_curve.csv that `train` wrote, or `diagnose diagnostic=loss_curve` of one run"


def _parsed(rows: list[dict[str, str]]) -> Curve:
    runs = list(dict.fromkeys(row["of"] for row in rows if row.get("of")))
    if len(runs) > 1:
        raise ValueError(f"it holds the curves of {len(runs)} runs, {', '.join(runs)}: measure one of them alone")
    time, logsnr, loss = (torch.tensor([float(row[name]) for row in rows]) for name in ("time", "logsnr", "loss"))
    steps = {row["steps"] for row in rows}
    if len(steps) != 1 or len({row["schedule"] for row in rows}) != 1:
        raise ValueError("it needs rows, all of one schedule")
    if not (time.isfinite().all() and logsnr.isfinite().all() and loss.isfinite().all()):
        raise ValueError("not every number is finite")
    if not torch.allclose(time, _even(len(time)), rtol=0, atol=1e-6):
        raise ValueError("time must rise to 1 in even steps")
    if not ((loss >= 0).all() and loss.sum() > 0):
        raise ValueError("a loss lies below 0, or all are 0")
    (count,) = steps
    n = torch.tensor([int(row["n"]) for row in rows])
    return Curve(rows[0]["schedule"], int(count) if count else None, time, logsnr, loss, n)
