"""Scores of images against a reference, each with all that one must know to read it."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor

from smallbatch.data.module import ImageData
from smallbatch.data.store import Source
from smallbatch.errors import UserError
from smallbatch.metrics import ranks
from smallbatch.metrics.extractors import Extractor
from smallbatch.metrics.frechet import extrapolate, frechet
from smallbatch.metrics.judged import Judged, Score
from smallbatch.metrics.looking import Looked, Stream, look
from smallbatch.metrics.prompt_accuracy import PromptAccuracy
from smallbatch.metrics.prompted import PROMPTS, Prompted
from smallbatch.metrics.reference import Reference, at_hand, check, open_reference
from smallbatch.metrics.rows import spread
from smallbatch.metrics.scores import inception_score, kernel_distance, precision_recall
from smallbatch.metrics.shares import real
from smallbatch.metrics.stamps import fingerprints
from smallbatch.metrics.validity import Seen, nearest
from smallbatch.notation import ImageSpec, Labels, Pixels

BY_IMAGE = ("kernel", "inception_score", "precision_recall")  # need the features of single images
LEAST = {"frechet": 2, "kernel": 2, "inception_score": 10, "precision_recall": 4, PROMPTS: 2}  # images
BLOCKS = 10  # of the jackknife
KEPT = 10_000  # real images whose features are kept


class NotFinite(UserError):
    """Samples hold NaN or infinity. Raised on every rank alike."""


class Samples(NamedTuple):
    """What is judged: this rank's share of `n` images, as it streams by; labels, prompts and marks are of all."""

    n: int
    images: Stream
    seen: Seen
    labels: Labels | None = None
    marks: Sequence[str] = ()
    prompts: Sequence[str] | None = None


class Evaluation:
    """`scores` of `n` images. `floor`: also what as many real ones score; `extrapolate`: what infinitely many would.

    `reference` is a file or folder; None: the training part of the data. What was once measured of a data set is kept
    in `cache`. A Frechet distance is called fid in the features of TensorFlow's Inception alone.
    Where prompt_accuracy is asked alone, images are held against their prompts, and neither extractor nor reference is.
    """

    reference: Reference
    marks: list[str]

    def __init__(
        self,
        scores: list[str],
        n: int | None,
        floor: bool,
        extrapolate: bool,
        extractor: Extractor,
        cache: str,
        reference: str | None = None,
        batch: int = 64,
    ):
        for name in scores:
            if name not in LEAST:
                raise UserError(f"metrics.scores={name} is not known: use {', '.join(LEAST)}")
        if batch < 1:
            raise UserError(f"metrics: {batch=} must be at least 1")
        self.scores, self.n, self.floor, self.extrapolate = scores, n, floor, extrapolate
        self.extractor, self.cache, self.given, self.batch = extractor, cache, reference, batch
        self._real: tuple[int, Score] | None = None  # n and its floor: the same at every evaluation

    def prepare(self, data: ImageData | None, spec: ImageSpec, n: int, device: torch.device) -> None:
        """Refuses, before `n` images are drawn, what could not be judged; measures what they are held against."""
        self.data, self.device, self.spec = data, device, spec
        self._check(n)
        self.prompted = Prompted(spec, data if self.floor else None, self.batch) if PROMPTS in self.scores else None
        if not self.compares:
            return
        self.extractor.prepare(data)
        if self.given is not None:
            self.reference = open_reference(self.given, self.extractor, device, self.batch, KEPT)
        elif data is not None:
            self.reference = at_hand(data, self.extractor, device, self.batch, KEPT, self.cache)
        else:
            raise UserError("reference must be given: FILE.npz or a folder of real images, or a data set: data=...")
        self.marks = [
            *self.extractor.marks,
            *check(self.reference, self.extractor, spec, fingerprints(data) if data else ()),
        ]
        if {"kernel", "precision_recall"} & set(self.scores) and self.reference.vectors is None:
            raise UserError(
                f"reference={self.reference.name} keeps no single features, which kernel and precision_recall need: "
                "make one with `smallbatch reference`, or use metrics.scores=[frechet]"
            )

    def _check(self, n: int) -> None:
        least = {f"metrics.scores={name}": LEAST[name] for name in self.scores}
        least |= {"metrics.extrapolate=true": 2 * BLOCKS} if self.extrapolate else {}
        least |= {f"{ranks.world_size()} processes": ranks.world_size(), "a score": 2}
        for what, count in least.items():
            if n < count:
                raise UserError(f"n={n} is too small for {what}: it needs at least {count} images")
        if "inception_score" in self.scores and not self.extractor.has_classes:
            raise UserError(f"metrics.scores=inception_score needs classes, and {self.extractor.name} has none")

    def __call__(self, samples: Samples) -> Judged:
        """Every rank must call it."""
        accuracy = self.prompted and self.prompted.accuracy(samples.prompts)
        images = samples.images if accuracy is None else accuracy.look(samples.images)
        if not self.compares:
            return self._shown_alone(samples, images, accuracy)
        found = look(
            images,
            self.extractor,
            samples.seen,
            self.device,
            BLOCKS if self.extrapolate else 1,
            any(name in BY_IMAGE for name in self.scores),
            samples.labels,
        )
        refuse_broken(found.seen, found.n)
        marks = [*self.marks, *samples.marks, *self._few(found.n)]
        near, pairs = self._nearest(found.first)
        shown = self.prompted.scores(accuracy, found.n) if self.prompted else []
        return Judged([*self._scores(found, marks), *shown, *self._validity(found), *near], pairs)

    def _shown_alone(self, samples: Samples, images: Stream, accuracy: PromptAccuracy) -> Judged:
        for _ in samples.seen.look(images):
            pass
        ranks.summed_(samples.seen.sums)
        refuse_broken(samples.seen, samples.n)
        scores = self.prompted.scores(accuracy, samples.n)
        return Judged([score._replace(marks=[*score.marks, *samples.marks]) for score in scores], None)

    @property
    def compares(self) -> bool:
        """With real images, in an extractor's features."""
        return {*self.scores} != {PROMPTS}

    @property
    def held_against(self) -> str:
        return self.reference.known_as if self.compares else PROMPTS

    def _scores(self, found: Looked, marks: list[str]) -> Iterator[Score]:
        if "frechet" in self.scores:
            name, reference = self.distance, self.reference.moments
            floor, why = self._floor(found.n)
            yield self._score(name, frechet(found.sums.moments(), reference), found.n, [*marks, *why])
            yield from floor
            if self.extrapolate:
                estimate = extrapolate(found.sums, reference)
                score = self._score(f"{name}_extrapolated", estimate.value, found.n, [*marks, *self._curved(found.n)])
                yield score._replace(low=estimate.low, high=estimate.high)
        if "kernel" in self.scores:
            kernel = kernel_distance(found.vectors, self.reference.vectors)
            name = "kid" if self.distance == "fid" else f"kd_{self.extractor.name}"
            yield self._score(name, kernel.mean, found.n, [*marks, *kernel.marks])._replace(error=kernel.error)
        if "inception_score" in self.scores:
            name = "inception_score" if self.distance == "fid" else f"{self.extractor.name}_score"
            score = inception_score(found.logits)
            splits = f"standard deviation over splits {score.std:.3g}"
            yield self._score(name, score.mean, found.n, [*marks, splits])._replace(reference=None)
        if "precision_recall" in self.scores:
            n = min(found.n, len(self.reference.vectors))  # both depend on how many of either there are
            some = [vectors[spread(n, len(vectors))] for vectors in (found.vectors, self.reference.vectors)]
            for name, value in precision_recall(*some)._asdict().items():
                yield self._score(f"{name}_{self.extractor.name}", value, n, [*marks, f"against {n} real images"])

    def _floor(self, n: int) -> tuple[list[Score], list[str]]:
        """What n real images that the reference has not seen would score; or a mark that says why it is not known.

        A held-out part that has each class in its share scores less than one drawn at random, on digits 2.6 times less.
        """
        if not self.floor:
            return [], []
        if self.data is None:
            return [], ["no floor: give data=... for other real images"]
        part = "train" if self.reference.stamp and self.reference.stamp.split == "held_out" else "held_out"
        source = getattr(self.data, f"{part}_store")
        if len(source) < max(2, ranks.world_size()):
            return [], [f"no floor: of the part {part} there is only n={len(source)}"]
        if self._real is None or self._real[0] != n:
            self._real = n, self._measured(source, part, n)
        return [self._real[1]], []

    def _measured(self, source: Source, part: str, n: int) -> Score:
        reference, m = self.reference.moments, min(n, len(source))
        found = look(real(source, m, self.batch), self.extractor, Seen(self.spec.channels), self.device)
        value, marks = frechet(found.sums.moments(), reference), [*self.marks, *self._few(m)]
        if m < n:
            marks.append(f"expected from {m} images of the part {part}, which score {value:.4g}")
            value *= chance(n, reference.n) / chance(m, reference.n)
        return self._score(f"{self.distance}_floor", value, n, marks)

    def _validity(self, found: Looked) -> Iterator[Score]:
        if found.recognised is not None:
            yield self._score("recognised", found.recognised, found.n, [])._replace(reference=None)
        if found.seen.clipped is not None:
            mark = "share of values beyond -1..1, after what the sampler clips"
            yield Score(f"clipped@{found.n}", found.seen.clipped, found.n, marks=[mark])
        if self.reference.colours is not None:
            ours, theirs = found.seen.colours, self.reference.colours
            shift, ratio = ours.mean - theirs.mean, ours.spread / theirs.spread.clamp(min=1e-9)
            by_channel = [f"by channel {', '.join(f'{x:+.1f}' for x in shift.tolist())}"]
            worst = shift[shift.abs().argmax()].item()
            yield Score(f"colour_shift@{found.n}", worst, found.n, marks=["grey levels 0..255", *by_channel])
            by_channel = [f"by channel {', '.join(f'{x:.3f}' for x in ratio.tolist())}"]
            worst = ratio[ratio.log().abs().argmax()].item()
            yield Score(f"colour_spread@{found.n}", worst, found.n, marks=["of the data's", *by_channel])

    def _nearest(self, samples: Pixels) -> tuple[list[Score], UInt8[Tensor, "twice c h w"] | None]:
        """On rank 0 alone: the others have nothing to add."""
        if self.data is None or ranks.rank() > 0:
            return [], None
        train, held_out, mirrored = self.data.train_store, self.data.held_out_store, self.data.flip
        near = nearest(samples, train, mirrored)
        fresh = held_out.take(spread(min(len(samples), len(held_out)), len(held_out))).pixels.cpu()
        usual = nearest(fresh, train, mirrored).distance.mean()
        ratios, n = near.distance / usual.clamp(min=1e-3), len(samples)
        mark = "distance to the nearest training image over that of held-out ones: 0 is a copy"
        marks = [f"least {ratios.min():.2g}", mark]
        return [Score(f"nearest@{n}", ratios.mean().item(), n, marks=marks)], torch.cat([samples, near.pixels])

    def _score(self, name: str, value: float, n: int, marks: list[str]) -> Score:
        return Score(f"{name}@{n}", value, n, self.extractor.identity, self.reference.known_as, marks=marks)

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


def refuse_broken(seen: Seen, n: int) -> None:
    if seen.broken:
        raise NotFinite(f"{seen.broken} of {n} samples are not finite: nothing can be said of them")


def chance(n: int, of_reference: int) -> float:
    """What the distance between two sets of the same distribution is in proportion to, but for terms of second order.

    Means and covariances are off by random amounts of variance 1 / n, and the distance is quadratic in them.
    """
    return 1 / n + (1 / of_reference if of_reference else 0)
