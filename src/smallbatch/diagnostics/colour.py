"""The colours of x0 along sampling, against those of the data; of grey images, their brightness."""

import torch
from jaxtyping import Float
from torch import Tensor

from smallbatch.diagnostics.bands import band
from smallbatch.diagnostics.diagnostic import Case, Diagnostic, Found, Picture, Table, estimated, names
from smallbatch.diagnostics.walks import Walk, walks
from smallbatch.errors import UserError
from smallbatch.likeness import Colour, colour
from smallbatch.metrics.rows import spread
from smallbatch.plots import DIRECTION, drawn, figure

DATA = "data"
Colours = Float[Tensor, "steps n c"]


class ColourDrift(Diagnostic):
    """Per step and channel, in grey levels: the mean over the images of their own mean in x0, how far that is from the
    data's, and the images' spread around it (a standard deviation), which is too small where all come out alike.

    Every sample is told what a held-out image is (its class, its small image), so that the two sets differ in nothing
    else; the drift's standard error is that of the differences.
    """

    of_pixels = True

    def __init__(self, images: int = 100):
        if images < 2:
            raise UserError(f"diagnostics.colour.images={images} must be at least 2")
        self.images = images

    def measure(self, case: Case) -> Found:
        part = case.held_out
        numbers = spread(min(self.images, part.count), part.count)
        data = torch.cat([colour(part.take(some).x0) for some in numbers.split(case.batch)]).cpu()
        table = rows(DATA, [None], [None], data[None], data)
        for one in case.subjects:
            seen = walks(case, one.denoiser, lambda some: part.take(some).condition, numbers, f"colours of {one.name}")
            found = [(walk, colours(walk)) for _, walk in seen]
            t, logsnr = (found[0][0][place].tolist() for place in (0, 1))
            table += rows(one.name, t, logsnr, torch.cat([means for _, means in found], dim=1), data)
        return Found(table)

    def figure(self, table: Table) -> Picture:
        channels = names(table, "channel")
        page, axes = figure(5.6 * len(channels) if len(channels) > 1 else 8.0, 7.0, 2, len(channels), sharex=True)
        for channel, (drift, apart) in enumerate(zip(axes[: len(channels)], axes[len(channels) :], strict=True)):
            of_data, *mine = (one for one in table if one["channel"] == channel)
            band(drift, mine, "drift", f"channel {channel}: mean against the data's, grey levels")
            drift.axhspan(-2 * of_data["mean_se"], 2 * of_data["mean_se"], color="black", alpha=0.1, linewidth=0)
            drift.axhline(0, color="black", linewidth=0.8)
            band(apart, mine, "spread", "spread over the images, grey levels")
            apart.axhline(of_data["spread"], color="black", linewidth=0.8, label=DATA)
        axes[len(channels)].legend()
        page.supxlabel(DIRECTION, fontsize="medium")
        return drawn(page)

    def line(self, table: Table) -> str:
        found = []
        for of in names(table, "of")[1:]:
            last = [one for one in table if one["of"] == of][-len(names(table, "channel")) :]
            drifts = ", ".join(f"{one['drift']:+.1f} ± {one['drift_se']:.1f}" for one in last)
            spreads = ", ".join(f"{one['spread']:.1f}" for one in last)
            found.append(f"{of}: mean {drifts} grey levels from the data's, spread {spreads}")
        of_data = ", ".join(f"{one['spread']:.1f}" for one in table if one["of"] == DATA)
        return f"{'; '.join(found)} (data: {of_data})"


def colours(walk: Walk) -> Colours:
    return torch.stack([colour(x0) for x0 in walk.x0]).cpu()


def rows(of: str, t: list[float | None], logsnr: list[float | None], found: Colours, data: Colour) -> Table:
    table = []
    for step, (when, at, means) in enumerate(zip(t, logsnr, found, strict=True), start=1):
        for channel, (own, real) in enumerate(zip(means.T, data.T, strict=True)):
            (mean, mean_se), (drift, drift_se), apart = estimated(own), estimated(own - real), own.std().item()
            place = {"of": of, "step": step, "t": when, "logsnr": at, "channel": channel, "images": len(own)}
            values = {"mean": mean, "mean_se": mean_se, "drift": drift, "drift_se": drift_se}
            error = apart / (2 * (len(own) - 1)) ** 0.5  # of normal values
            table.append({**place, **values, "spread": apart, "spread_se": error})
    return table
