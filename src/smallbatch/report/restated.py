"""Runs at equal training FLOPs: their counts of images, restated as images of the baseline that cost as much."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from smallbatch.errors import UserError
from smallbatch.report import compared, runs
from smallbatch.report.choices import Choice, Label
from smallbatch.report.runs import Run


def read(folder: Path, ignored: Collection[str], price: float | None = None) -> Run:
    """UserError: nothing tells its words, or what it costs."""
    run = runs.read(folder, ignored, price)
    if (run.status.flops_per_image or 0) <= 0:
        raise UserError(f"{folder}: its status.json has no flops_per_image, which equal=flops needs")
    return run


def report(
    choices: Sequence[Choice], metric: str, baseline: Label | None, images: int | None, left_out: Sequence[str] = ()
) -> compared.Report:
    """Compared at as many images of the baseline. Without one nothing is compared, and every run keeps its own."""
    if baseline is None:
        return compared.report(choices, metric, baseline, images, left_out)
    theirs = next(choice for choice in choices if choice.label == baseline).first.status.flops_per_image
    made = [replace(choice, runs={s: restated(run, theirs) for s, run in choice.runs.items()}) for choice in choices]
    return replace(compared.report(made, metric, baseline, images, left_out), equal="flops")


def restated(run: Run, flops_per_image: int) -> Run:
    """In images that cost so much. Its own cost is the mean over training, also where masks hide less and less."""
    share = run.status.flops_per_image / flops_per_image
    points = {
        metric: [point._replace(images=round(point.images * share)) for point in series]
        for metric, series in run.points.items()
    }
    bins = {
        metric: {round(images * share): values for images, values in by_images.items()}
        for metric, by_images in run.bins.items()
    }
    return replace(run, points=points, bins=bins, share=share)


def at(report: compared.Report, images: int, whose: str = "the baseline") -> str:
    """Where values were taken, in words."""
    return f"the FLOPs of {images:,} images of {whose}" if report.equal == "flops" else f"{images:,} images"
