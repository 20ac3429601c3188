"""What enlarged images are worth: against the truth, in their colours, and against the small images."""

from collections.abc import Iterator

import torch

from smallbatch.data.images import enlarged, shrunk, to_float, to_pixels
from smallbatch.diagnostics.diagnostic import Case, Diagnostic, Found, Picture, Row, Subject, Table, column, names
from smallbatch.diagnostics.enlarging import Mark, kind, panels, refuse_unless_enlarging, said, summed_up
from smallbatch.errors import UserError
from smallbatch.generation import Numbers, generate
from smallbatch.likeness import colour, colour_drift, psnr, rmse, ssim
from smallbatch.metrics.rows import spread
from smallbatch.notation import Batch, Image, PerImage
from smallbatch.pictures import labelled
from smallbatch.plots import COLOURS

PLAIN = ("nearest", "bilinear", "bicubic")  # enlargements that know nothing of images
CHANNELS = {1: ("grey",), 3: ("red", "green", "blue")}
TITLES = {
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "drift": "|colour drift|, grey levels",
    "hue": "hue drift, grey levels",
    "fidelity": "shrunk - small, grey levels",
}
SHOWN = 10  # images in the picture


class SuperResolution(Diagnostic):
    """Held-out images from their small ones, by every run and by plain interpolation. Per image, then averaged:

    `psnr` and `ssim` to the truth at 8 bits; `drift_*`, by how many grey levels a channel's mean lies above the
    truth's, `drift`, how far off it is on average over the channels, and in colour `hue`, the root mean square over the
    channels of what is left of it without their common part; `fidelity`, the root mean square difference of the sample,
    shrunk by area, from the small image.
    """

    most_runs = len(COLOURS)

    def __init__(self, images: int = 256):
        if images < 2:
            raise UserError(f"diagnostics.super_resolution.{images=} must be at least 2")
        self.images = images

    def check(self, case: Case) -> None:
        refuse_unless_enlarging(case, "super_resolution")

    def measure(self, case: Case) -> Found:
        self.check(case)
        numbers = spread(min(self.images, case.held_out.count), case.held_out.count)
        batch = case.held_out.take(numbers)
        size, small = batch.x0.shape[-1], batch.condition.image
        made = {how: enlarged(small, size, how) for how in PLAIN}
        made |= {one.name: sampled(case, one, numbers) for one in case.subjects}
        kinds = {one.name: kind(one) for one in case.subjects}
        rows = [row for name, x in made.items() for row in judged(name, kinds.get(name), in_8_bits(x), batch)]
        shown = {"small": enlarged(small, size, "nearest"), "bicubic": made["bicubic"]}
        shown |= {label(name, kinds[name]): made[name] for name in kinds} | {"truth": batch.x0}
        return Found(rows, {"images": labelled([(name, to_pixels(x[:SHOWN])) for name, x in shown.items()])})

    def figure(self, table: Table) -> Picture:
        measures = [name for name in TITLES if name in names(table, "measure")]
        title = f"super-resolution of {table[0]['n']} held-out images, with standard errors"
        return panels({TITLES[name]: marks(table, name) for name in measures}, title)

    def line(self, table: Table) -> str:
        psnr = {name: value(table, name, "psnr") for name in names(table, "of")}
        found = [f"bicubic {psnr['bicubic']} dB"]
        for row in table:
            if row["prediction"] and row["measure"] == "psnr":
                name = row["of"]
                found.append(
                    f"{label(name, row['prediction'])} {psnr[name]} dB, SSIM {value(table, name, 'ssim', 3)}, "
                    f"colour off by {value(table, name, 'drift')} grey levels"
                )
        return f"PSNR to {table[0]['n']} held-out images: {'; '.join(found)}"


def sampled(case: Case, subject: Subject, numbers: Numbers) -> Image:
    parts = generate(subject.denoiser, case.sampler, case.told, numbers, case.seed, case.batch)
    return torch.cat([x for _, x in case.track(parts, subject.name, -(-len(numbers) // case.batch))])


def in_8_bits(x: Image) -> Image:
    """As it would be stored."""
    return to_float(to_pixels(x))


def judged(name: str, prediction: str | None, x: Image, batch: Batch) -> Iterator[Row]:
    for measure, values in measures(x, batch).items():
        yield {"of": name, "prediction": prediction, "measure": measure, **summed_up(values)}


def measures(x: Image, batch: Batch) -> dict[str, PerImage]:
    truth, small = batch.x0, batch.condition.image
    drift = colour(x) - colour(truth)
    found = {"psnr": psnr(x, truth), "ssim": ssim(x, truth), "drift": colour_drift(x, truth)}
    found |= {f"drift_{one}": drift[:, at] for at, one in enumerate(CHANNELS[x.shape[1]])}
    if x.shape[1] > 1:
        found["hue"] = (drift - drift.mean(dim=1, keepdim=True)).square().mean(dim=1).sqrt()
    return found | {"fidelity": rmse(shrunk(x, small.shape[-1]), small)}


def label(name: str, prediction: str | None) -> str:
    return name if prediction is None else f"{prediction} ({name})"


def marks(table: Table, measure: str) -> list[Mark]:
    rows = [row for row in table if row["measure"] == measure]
    colours = iter(COLOURS)
    return [
        Mark(
            label(row["of"], row["prediction"]),
            row["mean"],
            row["error"],
            next(colours) if row["prediction"] else "grey",
        )
        for row in rows
    ]


def value(table: Table, name: str, measure: str, digits: int = 2) -> str:
    (mean,), (error,) = (column(table, key, of=name, measure=measure) for key in ("mean", "error"))
    return said(mean, error, digits)
