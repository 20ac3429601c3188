"""How the image settles while it is sampled: the denoiser's x0 at every step, against the image that comes out."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from smallbatch.data.images import to_pixels
from smallbatch.diagnostics.bands import band
from smallbatch.diagnostics.diagnostic import Case, Diagnostic, Found, Picture, Table, estimated, names
from smallbatch.diagnostics.walks import walks
from smallbatch.errors import UserError
from smallbatch.likeness import rmse
from smallbatch.notation import Pixels
from smallbatch.pictures import labelled
from smallbatch.plots import DIRECTION, drawn, figure

PerStep = Float[Tensor, "steps b"]
Steps = Float[Tensor, "steps b c h w"]


class Trajectory(Diagnostic):
    """Per step: how far x0 lies from the image that comes out, and how far it moves to the next step, root mean squares
    in grey levels; and that per unit of log-SNR. The picture has x0 of the first `rows` samples at `shown` steps,
    spread evenly from the first to the last. A step that asks twice is heard where it starts.
    """

    needs_data, of_pixels = False, True

    def __init__(self, images: int = 64, rows: int = 6, shown: int = 10):
        for name, value, least in (("images", images, 2), ("rows", rows, 1), ("shown", shown, 2)):
            if value < least:
                raise UserError(f"diagnostics.trajectory.{name}={value} must be at least {least}")
        self.images, self.rows, self.shown = images, rows, shown

    def measure(self, case: Case) -> Found:
        table, pictures = [], []
        for one in case.subjects:
            parts, first = [], []
            what = f"trajectories of {one.name}"
            for some, walk in walks(case, one.denoiser, case.told, torch.arange(self.images), what):
                parts.append((to_final(walk.x0), to_next(walk.x0)))
                first += [self.chosen(walk.x0[:, place]) for place in range(int((some < self.rows).sum()))]
            distance, change = (torch.cat(part, dim=1).cpu() for part in zip(*parts, strict=True))
            table += rows(one.name, walk.t.tolist(), walk.logsnr.tolist(), distance, change)
            pictures += [(f"{one.name}  {number}", row) for number, row in enumerate(first)]
        return Found(table, {"images": labelled(pictures)})

    def chosen(self, x0: Float[Tensor, "steps c h w"]) -> Pixels:
        return to_pixels(x0[torch.linspace(0, len(x0) - 1, self.shown).round().long()]).cpu()

    def figure(self, table: Table) -> Picture:
        page, (far, moves) = figure(11.0, 4.4, 1, 2)
        page.subplots_adjust(wspace=0.18)
        panels = (
            (far, "distance", "from x0 to the image that comes out"),
            (moves, "change_per_logsnr", "movement of x0 per unit of log-SNR"),
        )
        for axes, name, title in panels:
            band(axes, [one for one in table if one[name] is not None], name, title)
            axes.set(xlabel=DIRECTION, ylabel="grey levels", ylim=(0, None))
        far.legend()
        return drawn(page)

    def line(self, table: Table) -> str:
        found = []
        for of in names(table, "of"):
            mine = [one for one in table if one["of"] == of]
            half = next(one for one in mine if one["distance"] <= mine[0]["distance"] / 2)
            most = max(mine[:-1], key=lambda one: one["change_per_logsnr"], default=mine[0])
            found.append(
                f"{of}: x0 starts {mine[0]['distance']:.1f} grey levels from the image, has come half of the way at "
                f"log-SNR {half['logsnr']:.1f} (step {half['step']} of {len(mine)}), moves most at {most['logsnr']:.1f}"
            )
        return "; ".join(found)


def to_final(x0: Steps) -> PerStep:
    return torch.stack([rmse(one, x0[-1]) for one in x0])


def to_next(x0: Steps) -> PerStep:
    return torch.stack([rmse(one, then) for one, then in pairwise([*x0, x0[-1]])])


def rows(of: str, t: list[float], logsnr: list[float], distance: PerStep, change: PerStep) -> Table:
    table = []
    for k, (far, moved) in enumerate(zip(map(estimated, distance), map(estimated, change), strict=True)):
        rise = logsnr[k + 1] - logsnr[k] if k + 1 < len(t) else None
        found = {"step": k + 1, "t": t[k], "logsnr": logsnr[k], "distance": far[0], "distance_se": far[1]}
        found |= {"change": moved[0], "change_se": moved[1]}
        found |= {"change_per_logsnr": rise and moved[0] / rise, "change_per_logsnr_se": rise and moved[1] / rise}
        table.append({"of": of, **found, "images": distance.shape[1]})
    return table
