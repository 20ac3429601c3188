"""Scores of images that are held against real ones in an extractor's features."""

from collections.abc import Collection, Iterator, Sequence

from smallbatch.errors import UserError
from smallbatch.metrics.extractors import Extractor
from smallbatch.metrics.floor import Floor
from smallbatch.metrics.frechet import extrapolate, frechet
from smallbatch.metrics.judged import Score
from smallbatch.metrics.looking import Looked, Samples, Stream, look
from smallbatch.metrics.reference import Reference
from smallbatch.metrics.rows import spread
from smallbatch.metrics.scores import inception_score, kernel_distance, precision_recall

LEAST = {"frechet": 2, "kernel": 2, "inception_score": 10, "precision_recall": 4}  # images
BY_IMAGE = {"kernel", "inception_score", "precision_recall"}  # need the features of single images
BY_REAL_IMAGE = {"kernel", "precision_recall"}  # those of the reference, too
BLOCKS = 10  # of the jackknife


class Compared:
    """`wanted` scores against one reference, of which `marks` say what to know. A `floor` of None is not asked for.

    A Frechet distance is called fid in the features of TensorFlow's Inception alone.
    """

    def __init__(
        self,
        wanted: Collection[str],
        extractor: Extractor,
        reference: Reference,
        marks: Sequence[str],
        floor: Floor | None,
        blocks: int,
    ):
        if BY_REAL_IMAGE & {*wanted} and reference.vectors is None:
            raise UserError(
                f"reference={reference.name} keeps no single features, which kernel and precision_recall need: "
                "make one with `smallbatch reference`, or use metrics.scores=[frechet]"
            )
        self.wanted, self.extractor, self.reference, self.marks = wanted, extractor, reference, marks
        self.floor, self.blocks = floor, blocks

    def look(self, images: Stream, samples: Samples) -> Looked:
        """Every rank must call it."""
        by_image = bool(BY_IMAGE & {*self.wanted})
        return look(images, self.extractor, samples.seen, samples.device, self.blocks, by_image, samples.labels)

    def scores(self, found: Looked, more: Sequence[str]) -> list[Score]:
        """The headline first, then its floor and its extrapolation. `more` marks. Every rank must call it."""
        kinds = {
            "frechet": self._frechet,
            "kernel": self._kernel,
            "inception_score": self._inception_score,
            "precision_recall": self._precision_recall,
        }
        marks = [*self.marks, *more, *self._few(found.n)]
        scores = [score for name, kind in kinds.items() if name in self.wanted for score in kind(found, marks)]
        return scores if found.recognised is None else [*scores, self._recognised(found)]

    def _frechet(self, found: Looked, marks: list[str]) -> Iterator[Score]:
        n, name, reference = found.n, self.distance, self.reference.moments
        missing = self.floor.missing if self.floor else []
        yield self._score(name, frechet(found.sums.moments(), reference), n, [*marks, *missing])
        if self.floor and not missing:
            real = self.floor(n, found.sums.device)
            yield self._score(f"{name}_floor", real.value, n, [*self.marks, *self._few(real.images), *real.marks])
        if self.blocks > 1:
            value, low, high = extrapolate(found.sums, reference)
            score = self._score(f"{name}_extrapolated", value, n, [*marks, *self._curved(n)])
            yield score._replace(low=low, high=high)

    def _kernel(self, found: Looked, marks: list[str]) -> Iterator[Score]:
        kernel = kernel_distance(found.vectors, self.reference.vectors)
        name = "kid" if self.distance == "fid" else f"kd_{self.extractor.name}"
        yield self._score(name, kernel.mean, found.n, [*marks, *kernel.marks])._replace(error=kernel.error)

    def _inception_score(self, found: Looked, marks: list[str]) -> Iterator[Score]:
        score = inception_score(found.logits)
        name = "inception_score" if self.distance == "fid" else f"{self.extractor.name}_score"
        splits = f"standard deviation over splits {score.std:.3g}"
        yield self._score(name, score.mean, found.n, [*marks, splits])._replace(reference=None)

    def _precision_recall(self, found: Looked, marks: list[str]) -> Iterator[Score]:
        n = min(found.n, len(self.reference.vectors))  # both depend on how many of either there are
        some = [vectors[spread(n, len(vectors))] for vectors in (found.vectors, self.reference.vectors)]
        for name, value in precision_recall(*some)._asdict().items():
            yield self._score(f"{name}_{self.extractor.name}", value, n, [*marks, f"against {n} real images"])

    def _recognised(self, found: Looked) -> Score:
        return self._score("recognised", found.recognised, found.n, [])._replace(reference=None)

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
