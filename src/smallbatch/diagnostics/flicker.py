"""How much enlarged frames of a film flicker, where the frames themselves move smoothly."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from smallbatch.data.decode import said as said_size
from smallbatch.data.images import enlarged, shrunk, to_float, to_pixels
from smallbatch.data.small import small_images
from smallbatch.diagnostics.diagnostic import Case, Diagnostic, Found, Picture, Row, Subject, Table, column
from smallbatch.diagnostics.enlarging import Mark, kind, panels, refuse_unless_enlarging, said, summed_up
from smallbatch.errors import UserError
from smallbatch.generation import Numbers, Whose, generate, own
from smallbatch.likeness import GREY, colour
from smallbatch.metrics.rows import spread
from smallbatch.notation import Condition, Image, Labels, PerImage
from smallbatch.pictures import labelled
from smallbatch.plots import COLOURS

TITLES = {"flicker": "flicker, grey levels", "colour": "colour flicker, grey levels"}
SHOWN = 10  # frames in the picture, of the first film
TRUTH = "truth"


class Films(NamedTuple):
    """Films one after the other, each of `length` frames: small ones, what they truly show, and their classes."""

    length: int
    small: Image
    truth: Image | None
    labels: Labels | None

    def told(self, numbers: Numbers) -> Condition:
        return Condition(None if self.labels is None else self.labels[numbers], None, self.small[numbers])

    def first(self, numbers: Numbers) -> Numbers:
        """The frame that opens the film of each."""
        return numbers // self.length * self.length


class Flicker(Diagnostic):
    """Root mean square, over the steps from one frame to the next, of the change of (sample - the small frame enlarged
    bicubically): what appears and goes though the small film does not show it; and of the change of (the sample's
    channel means - the small frame's), `colour`. All frames of a film from one noise, or each from its own.

    `frames`: a folder or zip, one film. None: `films` held-out images, each moved bicubically on a circle of `radius`
    small pixels, once around in `length` frames, and then shrunk by area. Of those the true frames are measured too:
    their details move against the small ones, and a sample need not do better.
    """

    most_runs = len(COLOURS)

    def __init__(self, frames: str | None = None, films: int = 8, length: int = 16, radius: float = 0.5):
        for name, given, least in (("films", films, 2), ("length", length, 2), ("radius", radius, 0)):
            if given < least:
                raise UserError(f"diagnostics.flicker.{name}={given} must be at least {least}")
        self.frames, self.films, self.length, self.radius = frames, films, length, radius

    def check(self, case: Case) -> None:
        refuse_unless_enlarging(case, "flicker")

    def measure(self, case: Case) -> Found:
        self.check(case)
        films = self.given(case) if self.frames else self.moved(case)
        size = case.subjects[0].denoiser.spec.size
        smooth, noises = enlarged(films.small, size, "bicubic"), {"one noise": films.first, "fresh noise": own}
        rows, shown = [], {"small": enlarged(films.small, size, "nearest"), "bicubic": smooth}
        for one in case.subjects:
            for noise, whose in noises.items():
                x = sampled(case, one, films, whose)
                rows += measured(one.name, kind(one), noise, x, smooth, films)
                shown[f"{kind(one)} ({one.name}), {noise}"] = x
        if films.truth is not None:
            rows += measured(TRUTH, None, None, films.truth, smooth, films)
            shown[TRUTH] = films.truth
        few = min(SHOWN, films.length)
        return Found(rows, {"frames": labelled([(name, to_pixels(x[:few])) for name, x in shown.items()])})

    def given(self, case: Case) -> Films:
        spec = case.subjects[0].denoiser.spec
        small, extents = small_images(self.frames, spec.low_size, spec.channels, "diagnostics.flicker.frames")
        if len(small) < 2:
            raise UserError(f"diagnostics.flicker.frames={self.frames} holds one image: a film has at least 2 frames")
        if odd := [extent for extent in extents if extent != extents[0]]:
            raise UserError(
                f"diagnostics.flicker.frames={self.frames} holds frames of {said_size(extents[0])} and of "
                f"{said_size(odd[0])}: give those of one film"
            )
        return Films(len(small), to_float(small).to(case.device), None, None)

    def moved(self, case: Case) -> Films:
        x0, condition = case.held_out.take(spread(min(self.films, case.held_out.count), case.held_out.count))
        radius = self.radius * x0.shape[-1] / condition.image.shape[-1]
        turn = 2 * math.pi * torch.arange(self.length, device=case.device) / self.length
        path = radius * torch.stack([turn.cos(), turn.sin()], dim=1)
        truth = translated(x0.repeat_interleave(self.length, dim=0), path.repeat(len(x0), 1))
        label = condition.label
        labels = None if label is None else label.cpu().repeat_interleave(self.length)
        return Films(self.length, shrunk(truth, condition.image.shape[-1]), truth, labels)

    def figure(self, table: Table) -> Picture:
        title = f"change from frame to frame, {table[0]['n']} film{'s' * (table[0]['n'] > 1)}: mean and standard error"
        return panels({title: marks(table, name) for name, title in TITLES.items()}, title)

    def line(self, table: Table) -> str:
        found = []
        for row in table:
            if row["measure"] == "flicker":
                where = {"of": row["of"], "noise": row["noise"], "measure": "colour"}
                (mean,), (error,) = (column(table, key, **where) for key in ("mean", "error"))
                found.append(f"{label(row)} {said(row['mean'], row['error'])} (colour {said(mean, error)})")
        return f"change from frame to frame beyond that of the small film, in grey levels: {'; '.join(found)}"


def translated(x: Image, pixels: Float[Tensor, "b 2"]) -> Image:
    """Moved right and down by so many pixels, bicubically; at the edges the outermost pixels go on."""
    shift = -2 * pixels / x.shape[-1]  # of what is looked up, in units of half the image
    whole = torch.eye(2, device=x.device).expand(len(x), 2, 2)
    grid = F.affine_grid(torch.cat([whole, shift[:, :, None]], dim=2), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bicubic", padding_mode="border", align_corners=False).clamp(-1, 1)


def sampled(case: Case, subject: Subject, films: Films, whose: Whose) -> Image:
    numbers = torch.arange(len(films.small))
    parts = generate(subject.denoiser, case.sampler, films.told, numbers, case.seed, case.batch, whose)
    return torch.cat([x for _, x in case.track(parts, subject.name, -(-len(numbers) // case.batch))])


def measured(
    of: str, prediction: str | None, noise: str | None, x: Image, smooth: Image, films: Films
) -> Iterator[Row]:
    about = {"of": of, "prediction": prediction, "noise": noise}
    beyond = GREY * (x - smooth)
    tint = (colour(x) - colour(films.small))[:, :, None, None]
    for measure, values in (("flicker", beyond), ("colour", tint)):
        yield {**about, "measure": measure, **summed_up(change(values, films.length))}


def change(values: Float[Tensor, "frames c h w"], length: int) -> PerImage:
    """Root mean square difference of consecutive frames, of each film."""
    return values.unflatten(0, (-1, length)).diff(dim=1).square().mean(dim=(1, 2, 3, 4)).sqrt()


def label(row: Row) -> str:
    return row["of"] if row["prediction"] is None else f"{row['prediction']} ({row['of']}), {row['noise']}"


def marks(table: Table, measure: str) -> list[Mark]:
    rows = [row for row in table if row["measure"] == measure]
    colours = dict(zip(dict.fromkeys(row["of"] for row in rows if row["prediction"]), COLOURS, strict=False))
    return [Mark(label(row), row["mean"], row["error"], colours.get(row["of"], "grey")) for row in rows]
