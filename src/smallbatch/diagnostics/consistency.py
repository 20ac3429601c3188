"""How alike the images are that different networks, or different solvers, make from the same noise."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from copy import copy
from itertools import combinations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from smallbatch.data.images import to_pixels
from smallbatch.diagnostics.diagnostic import Case, Diagnostic, Found, Picture, Row, Subject, Table, estimated, names
from smallbatch.errors import UserError
from smallbatch.generation import generate
from smallbatch.likeness import correlation, rmse, ssim
from smallbatch.metrics.extractors import Extractor
from smallbatch.notation import Image, PerImage
from smallbatch.pictures import labelled
from smallbatch.plots import COLOURS, drawn, figure
from smallbatch.sampler import Sampler
from smallbatch.solvers import Solver

Compare = Callable[[Image, Image], PerImage]
DISTANCE, SHOWN = "rmse", 10
LABELS = {DISTANCE: "root mean square, grey levels", "correlation": "correlation", "ssim": "SSIM"}


class Source(NamedTuple):
    """What makes images: a run under a solver."""

    one: Subject
    solver: str

    @property
    def name(self) -> str:
        return f"{self.one.name} {self.solver}".rstrip()


class Consistency(Diagnostic):
    """Xu et al. 2024 (2404.07946). Each of `images` numbers has its label (or small image) and two noises, of the start
    and of every step, that all sources share. A pair of images with one noise is held against a pair with two: the
    label is the same in both, since it alone makes images alike. Pairs of sources differ in the run or in the solver.

    `rmse` is a distance in grey levels; `correlation`, `ssim` and the cosine of an `extractor`'s features are 1 for
    equal images. `share` is that of the pairs with one noise that are more alike than `threshold`; `chance` that of
    pairs with two. Standard errors are over the numbers. `solvers` replace the sampler's own; none leaves it alone.
    """

    needs_data, of_pixels = False, True

    def __init__(
        self,
        solvers: Mapping[str, Solver],
        images: int = 50,
        threshold: float = 0.6,
        extractor: Extractor | None = None,
    ):
        if images < 2:
            raise UserError(f"diagnostics.consistency.images={images} must be at least 2")
        if not -1 < threshold < 1:
            raise UserError(f"diagnostics.consistency.threshold={threshold} must lie between -1 and 1")
        self.solvers, self.images, self.threshold, self.extractor = solvers, images, threshold, extractor

    def check(self, case: Case) -> None:
        if len(case.subjects) * max(len(self.solvers), 1) < 2:
            raise UserError("diagnostic=consistency compares: give run=[A,B], or two diagnostics.consistency.solvers")

    def measure(self, case: Case) -> Found:
        self.check(case)
        sources = [Source(one, solver) for one in case.subjects for solver in self.solvers or ("",)]
        if self.extractor is not None:
            self.extractor.prepare(None)
        made = {one.name: self.images_of(case, one) for one in sources}
        pairs = [pair for pair in combinations(sources, 2) if differ_in_one(*pair)]
        with ExitStack() as lent:
            measures = measures_with(self.extractor, case.device, lent)
            table = [
                self.row(a, b, name, compare, made[a.name], made[b.name])
                for a, b in pairs
                for name, compare in measures.items()
            ]
        shown = [(name, to_pixels(first[:SHOWN])) for name, (first, _) in made.items()]
        return Found(table, {"images": labelled(shown)})

    def images_of(self, case: Case, source: Source) -> tuple[Image, Image]:
        """Of every number the image from its first noise, and from its second; numbers go on for these."""
        sampler = using(case.sampler, self.solvers.get(source.solver, case.sampler.solver))
        numbers = torch.arange(2 * self.images)
        parts = generate(
            source.one.denoiser, sampler, lambda some: case.told(some % self.images), numbers, case.seed, case.batch
        )
        steps = len(numbers.split(case.batch))
        first, second = torch.cat([x for _, x in case.track(parts, f"images of {source.name}", steps)]).chunk(2)
        return first, second

    def row(
        self, a: Source, b: Source, measure: str, compare: Compare, of_a: tuple[Image, Image], of_b: tuple[Image, Image]
    ) -> Row:
        one_noise = torch.stack([compare(of_a[k], of_b[k]) for k in (0, 1)])
        two_noises = torch.stack([compare(of_a[k], of_b[1 - k]) for k in (0, 1)])
        found = {"paired": one_noise, "unpaired": two_noises}
        if measure != DISTANCE:
            found |= {"share": one_noise > self.threshold, "chance": two_noises > self.threshold}
        values = {name: estimated(both.double().mean(dim=0)) for name, both in found.items()}
        told = {
            f"{name}{end}": values.get(name, (None, None))[place]
            for name in ("paired", "unpaired", "share", "chance")
            for place, end in enumerate(("", "_se"))
        }
        threshold = None if measure == DISTANCE else self.threshold
        return {"of": a.name, "and": b.name, "measure": measure, **told, "threshold": threshold, "images": self.images}

    def figure(self, table: Table) -> Picture:
        measures = names(table, "measure")
        pairs = len(table) // len(measures)
        height = 1.8 + 0.45 * pairs
        title = "images of two from one noise, and from two noises, with 2 standard errors"
        page, axes = figure(3.4 * len(measures) + 3.0, height, 1, len(measures), title, sharey=True)
        longest = max(len(one[end]) for one in table for end in ("of", "and"))
        page.subplots_adjust(left=(0.3 + 0.075 * longest) / page.get_figwidth(), top=1 - 0.45 / height, wspace=0.1)
        for panel, measure in zip(axes, measures, strict=True):
            draw(panel, [one for one in table if one["measure"] == measure])
        axes[0].legend(fontsize="small")
        return drawn(page)

    def line(self, table: Table) -> str:
        found = []
        for one in table:
            if one["measure"] == "ssim":
                found.append(
                    f"{one['of']} and {one['and']}: SSIM {one['paired']:.2f} ± {one['paired_se']:.2f} from one noise, "
                    f"{one['unpaired']:.2f} ± {one['unpaired_se']:.2f} from two with the same label; "
                    f"{one['share']:.0%} above {one['threshold']:g}, by chance {one['chance']:.0%}"
                )
        return "; ".join(found)


def differ_in_one(a: Source, b: Source) -> bool:
    return (a.one.name == b.one.name) != (a.solver == b.solver)


def using(sampler: Sampler, solver: Solver) -> Sampler:
    """The same sampler with another solver."""
    other = copy(sampler)
    other.solver = solver
    return other


def measures_with(extractor: Extractor | None, device: torch.device, lent: ExitStack) -> dict[str, Compare]:
    measures = {DISTANCE: rmse, "correlation": correlation, "ssim": ssim}
    if extractor is None:
        return measures
    extract = lent.enter_context(extractor.on(device))

    def features(x: Image) -> Float[Tensor, "b d"]:
        return extract(to_pixels(x)).vectors

    return measures | {extractor.name: lambda x, y: F.cosine_similarity(features(x), features(y))}


def draw(axes: Axes, table: Table) -> None:
    """Filled: from one noise; hollow: from two."""
    places, measure = range(len(table)), table[0]["measure"]
    looks = (("paired", "one noise", COLOURS[0], -0.1), ("unpaired", "two noises", "white", 0.1))
    for name, label, inside, shift in looks:
        mean, error = ([one[key] for one in table] for key in (name, f"{name}_se"))
        style = {"marker": "o", "linestyle": "none", "color": COLOURS[0], "markerfacecolor": inside}
        axes.errorbar(mean, [place + shift for place in places], xerr=[2 * one for one in error], label=label, **style)
    if table[0]["threshold"] is not None:
        axes.axvline(table[0]["threshold"], color="black", linestyle="--", linewidth=0.8)
    axes.set_yticks(places, [f"{one['of']}\n{one['and']}" for one in table], fontsize="small")
    axes.set(xlabel=LABELS.get(measure, f"cosine of {measure} features"), ylim=(len(table) - 0.5, -0.5))
    axes.grid(alpha=0.3)
