"""What the diagnostics of super-resolution share: runs that enlarge, and measures in panels beside each other."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from smallbatch.diagnostics.diagnostic import Case, Picture, Subject, estimated
from smallbatch.errors import UserError
from smallbatch.plots import drawn, figure


class Mark(NamedTuple):
    """A mean and its standard error, where it has one, under a name."""

    name: str
    mean: float
    error: float | None
    colour: str


def refuse_unless_enlarging(case: Case, name: str) -> None:
    for one in case.subjects:
        if one.denoiser.spec.low_size is None:
            raise UserError(
                f"diagnostic={name} needs runs that enlarge images, trained with data.low_size; {one.name} is none"
            )


def kind(subject: Subject) -> str:
    """What its network predicts."""
    return "+".join(subject.denoiser.prediction.heads)


def summed_up(values: Float[Tensor, " n"]) -> dict[str, float | int | None]:
    """Columns of a table; a single value has no known error."""
    if len(values) == 1:
        return {"mean": values.item(), "error": None, "n": 1}
    mean, error = estimated(values)
    return {"mean": mean, "error": error, "n": len(values)}


def said(mean: float, error: float | None, digits: int = 2) -> str:
    return f"{mean:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def panels(measures: Mapping[str, Sequence[Mark]], title: str) -> Picture:
    """One panel a measure, one line a name; bars are one standard error to either side."""
    marks = next(iter(measures.values()))
    height, left = 1.3 + 0.3 * len(marks), 0.3 + 0.078 * max(len(mark.name) for mark in marks)
    width = left + 2.4 * len(measures)
    page, axes = figure(width, height, 1, len(measures), title, sharey=True)
    page.subplots_adjust(left=left / width, top=1 - 0.75 / height, bottom=0.35 / height, wspace=0.12)
    for panel, (name, marks) in zip(axes, measures.items(), strict=True):
        for row, mark in enumerate(marks):
            panel.errorbar(mark.mean, -row, xerr=mark.error, color=mark.colour, marker="o", markersize=5, capsize=3)
        panel.set_yticks([-row for row in range(len(marks))], [mark.name for mark in marks])
        panel.set_title(name, fontsize="medium")
        panel.margins(x=0.15)
        panel.set_ylim(0.6 - len(marks), 0.6)
        panel.grid(alpha=0.3)
    return drawn(page)
