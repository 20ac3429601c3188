"""Scores of images against a reference, each with all that one must know to read it."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from smallbatch.data.module import ImageData
from smallbatch.data.store import Source
from smallbatch.errors import UserError
from smallbatch.generation import Numbers
from smallbatch.metrics import ranks
from smallbatch.metrics.extractors import Extractor
from smallbatch.metrics.frechet import extrapolate, frechet
from smallbatch.metrics.looking import Looked, Stream, look
from smallbatch.metrics.reference import Reference, at_hand, check, fingerprints, open_reference
from smallbatch.metrics.rows import batches, spread
from smallbatch.metrics.scores import inception_score, kernel_distance, precision_recall
from smallbatch.metrics.validity import Seen, nearest
from smallbatch.notation import ImageSpec, Labels, Pixels

BY_IMAGE = ("kernel", "inception_score", "precision_recall")  # need the features of single images
SCORES = ("frechet", *BY_IMAGE)
BLOCKS = 10  # of the jackknife
KEPT = 10_000  # real images whose features are kept


class Score(NamedTuple):
    """`error` is a standard error; `low` and `high` end a 95 % interval; `marks` are what a reader must know."""

    name: str
    value: float
    n: int
    extractor: str | None = None
    error: float | None = None
    low: float | None = None
    high: float | None = None
    marks: Sequence[str] = ()

    @property
    def record(self) -> dict[str, Any]:
        return {key: value for key, value in self._asdict().items() if value is not None} | {"marks": list(self.marks)}


class Samples(NamedTuple):
    """What is judged: this rank's share of `n` images, as it streams by; `labels` and `marks` are of all."""

    n: int
    images: Stream
    seen: Seen
    labels: Labels | None = None
    marks: Sequence[str] = ()


class Judged(NamedTuple):
    """The headline first, then its floor and its extrapolation; `pairs` are some samples, then as many training images,
    each the nearest to its sample.
    """

    scores: list[Score]
    pairs: Pixels | None


class Evaluation:
    """`scores` of `n` images. `floor`: also what as many real ones score; `extrapolate`: what infinitely many would.

    `reference` is a file or folder; None: the training part of the data. What was once measured of a data set is kept
    in `cache`. A Frechet distance is called fid in the features of TensorFlow's Inception alone.
    """

    reference: Reference
    marks: list[str]

    def __init__(
        self,
        scores: Sequence[str],
        n: int | None,
        floor: bool,
        extrapolate: bool,
        extractor: Extractor,
        cache: str,
        reference: str | None = None,
        batch: int = 64,
    ):
        for name in scores:
            if name not in SCORES:
                raise UserError(f"metrics.scores={name} is not known: use {', '.join(SCORES)}")
        if (n is not None and n < 2) or batch < 1:
            raise UserError(f"metrics: {n=} must be at least 2, and {batch=} at least 1")
        self.scores, self.n, self.floor, self.extrapolate = list(scores), n, floor, extrapolate
        self.extractor, self.cache, self.given, self.batch = extractor, cache, reference, batch

    def prepare(self, data: ImageData | None, spec: ImageSpec, device: torch.device) -> None:
        """Refuses, before images are drawn, what could not be judged; measures what they are held against."""
        self.data, self.device, self.spec = data, device, spec
        self.extractor.prepare(data)
        if self.given is not None:
            self.reference = open_reference(self.given, self.extractor, device, self.batch, KEPT)
        elif data is not None:
            self.reference = at_hand(data, self.extractor, device, self.batch, KEPT, self.cache)
        else:
            raise UserError("reference must be given: FILE.npz or a folder of real images, or a data set: data=...")
        self.marks = check(self.reference, self.extractor, spec, fingerprints(data) if data else ())
        if {"kernel", "precision_recall"} & set(self.scores) and self.reference.vectors is None:
            raise UserError(
                f"reference={self.reference.name} keeps no single features, which kernel and precision_recall need: "
                "make one with `smallbatch reference`, or use metrics.scores=[frechet]"
            )

    def __call__(self, samples: Samples) -> Judged:
        """Every rank must call it."""
        if samples.n < ranks.world_size():
            raise UserError(f"n={samples.n} is too few for {ranks.world_size()} processes: draw more, or use fewer")
        found = look(
            samples.images,
            self.extractor,
            samples.seen,
            self.device,
            BLOCKS if self.extrapolate else 1,
            any(name in BY_IMAGE for name in self.scores),
            samples.labels if self.extractor.knows_labels else None,
        )
        if found.seen.broken:
            raise UserError(f"{found.seen.broken} of {found.n} samples are not finite: nothing can be said of them")
        marks = [*self.marks, *samples.marks, *self._few(found.n)]
        scores = [*self._scores(found, marks), *self._validity(found)]
        if self.data is None:
            return Judged(scores, None)
        near = nearest(found.first, self.data.train_store)
        usual = nearest(self._fresh(len(found.first)), self.data.train_store).distance.mean()
        mark = "distance to the nearest training image over that of held-out images: near 0 is a copy"
        ratio = Score(
            f"nearest@{len(near.distance)}", (near.distance.mean() / usual).item(), len(near.distance), marks=[mark]
        )
        return Judged([*scores, ratio], torch.cat([found.first, near.pixels]))

    def _fresh(self, n: int) -> Pixels:
        source = self.data.held_out_store
        return source.take(spread(min(n, len(source)), len(source))).pixels.cpu()

    def _scores(self, found: Looked, marks: list[str]) -> Iterator[Score]:
        if "frechet" in self.scores:
            name, reference = self.distance, self.reference.moments
            yield self._score(name, frechet(found.sums.moments(), reference), found.n, marks)
            if self.floor and self.data is not None:
                yield self._real(found.n)
            if self.extrapolate:
                estimate = extrapolate(found.sums, reference)
                score = self._score(f"{name}_extrapolated", estimate.value, found.n, [*marks, *self._curved(found.n)])
                yield score._replace(low=estimate.low, high=estimate.high)
        if "kernel" in self.scores:
            kernel = kernel_distance(found.vectors, self.reference.vectors)
            name = "kid" if self.distance == "fid" else f"kd_{self.extractor.name}"
            yield self._score(name, kernel.mean, found.n, [*marks, *kernel.marks])._replace(error=kernel.error)
        if "inception_score" in self.scores:
            if not found.logits.shape[1]:
                raise UserError(f"metrics.scores=inception_score needs classes, and {self.extractor.name} has none")
            name = "inception_score" if self.distance == "fid" else f"{self.extractor.name}_score"
            yield self._score(name, inception_score(found.logits).mean, found.n, marks)
        if "precision_recall" in self.scores:
            both = [*marks, f"against {len(self.reference.vectors)} real images"]
            for name, value in precision_recall(found.vectors, self.reference.vectors)._asdict().items():
                yield self._score(f"{name}_{self.extractor.name}", value, found.n, both)

    def _validity(self, found: Looked) -> Iterator[Score]:
        if found.recognised is not None:
            yield self._score("recognised", found.recognised, found.n, [])
        if found.seen.clipped is not None:
            yield Score(f"clipped@{found.n}", found.seen.clipped, found.n, marks=["share of values beyond -1..1"])
        if self.reference.colours is not None:
            ours, theirs = found.seen.colours, self.reference.colours
            shift, ratio = ours.mean - theirs.mean, ours.spread / theirs.spread.clamp(min=1e-9)
            by_channel = [f"by channel {', '.join(f'{x:+.1f}' for x in shift.tolist())}"]
            worst = shift[shift.abs().argmax()].item()
            yield Score(f"colour_shift@{found.n}", worst, found.n, marks=["grey levels 0..255", *by_channel])
            by_channel = [f"by channel {', '.join(f'{x:.3f}' for x in ratio.tolist())}"]
            worst = ratio[ratio.log().abs().argmax()].item()
            yield Score(f"colour_spread@{found.n}", worst, found.n, marks=["of the data's", *by_channel])

    def _real(self, n: int) -> Score:
        """What n real images that the reference has not seen would score; from fewer, where fewer are held out."""
        source, reference = self.data.held_out_store, self.reference.moments
        m = min(n, len(source))
        found = look(real(source, m, self.batch), self.extractor, Seen(self.spec.channels), self.device)
        value, marks = frechet(found.sums.moments(), reference), [*self.marks, *self._few(m)]
        if m < n:
            marks.append(f"expected from {m} held-out images, which score {value:.4g}")
            value *= chance(n, reference.n) / chance(m, reference.n)
        return self._score(f"{self.distance}_floor", value, n, marks)

    def _score(self, name: str, value: float, n: int, marks: list[str]) -> Score:
        return Score(f"{name}@{n}", value, n, self.extractor.identity, marks=marks)

    def _few(self, n: int) -> list[str]:
        d = self.extractor.dimension
        return [f"n={n} is no more than the {d} features: compare at equal n alone"] if n <= d else []

    def _curved(self, n: int) -> list[str]:
        """What the jackknife leaves of the bias is of second order."""
        d = self.extractor.dimension
        return [f"n={n} is below ten times the {d} features: still too low"] if n < 10 * d else []

    @property
    def distance(self) -> str:
        return "fid" if self.extractor.name == "inception" else f"fd_{self.extractor.name}"


def chance(n: int, of_reference: int) -> float:
    """What the distance between two sets of the same distribution is in proportion to, but for terms of second order.

    Means and covariances are off by random amounts of variance 1 / n, and the distance is quadratic in them.
    """
    return 1 / n + (1 / of_reference if of_reference else 0)


def share(n: int) -> Numbers:
    """This rank's numbers among 0..n-1."""
    return torch.arange(ranks.rank(), n, ranks.world_size())


def real(source: Source, n: int, batch: int) -> Stream:
    """This rank's share of n images, evenly spread over a source."""
    mine = share(n)
    taken = batches(source, spread(n, len(source))[mine], batch, "real images")
    return ((numbers, pixels) for numbers, (_, pixels) in zip(mine.split(batch), taken, strict=True))
