"""Scores of images, each with all that one must know to read it."""

import torch

from smallbatch.data.module import ImageData
from smallbatch.errors import UserError
from smallbatch.metrics import ranks
from smallbatch.metrics.compared import BLOCKS, LEAST, Compared
from smallbatch.metrics.extractors import Extractor
from smallbatch.metrics.floor import Floor
from smallbatch.metrics.judged import Judged
from smallbatch.metrics.looking import Samples, pass_by
from smallbatch.metrics.prompt_accuracy import SceneReader
from smallbatch.metrics.prompted import Judge, Prompted
from smallbatch.metrics.reference import Reference, at_hand, check, open_reference
from smallbatch.metrics.stamps import fingerprints
from smallbatch.metrics.validity import clipped, copies, drifted, refuse_broken
from smallbatch.notation import ImageSpec

KEPT = 10_000  # real images whose features are kept


class Evaluation:
    """`scores` of `n` images. `floor`: also what as many real ones score; `extrapolate`: what infinitely many would.

    `reference` is a file or folder; None: the training part of the data. What was once measured of a data set is kept
    in `cache`. Where only prompts are asked about, neither extractor nor reference is looked at.
    """

    compared: Compared | None
    prompted: list[Prompted]

    def __init__(
        self,
        scores: list[str],
        n: int | None,
        floor: bool,
        extrapolate: bool,
        extractor: Extractor,
        clip: Judge,
        cache: str,
        reference: str | None = None,
        batch: int = 64,
    ):
        judges = {judge.score: judge for judge in (SceneReader(), clip)}
        for name in scores:
            if name not in LEAST | judges:
                raise UserError(f"metrics.scores={name} is not known: use {', '.join(LEAST | judges)}")
        if batch < 1:
            raise UserError(f"metrics: {batch=} must be at least 1")
        self.scores, self.n, self.floor, self.extrapolate = scores, n, floor, extrapolate
        self.extractor, self.cache, self.given, self.batch = extractor, cache, reference, batch
        self.judges = [judges[name] for name in scores if name in judges]

    def prepare(self, data: ImageData | None, spec: ImageSpec, n: int, device: torch.device) -> None:
        """Refuses, before `n` images are drawn, what could not be judged; measures what they are held against."""
        self.data = data
        self._check(n)
        for judge in self.judges:
            judge.prepare(spec)
        self.prompted = [Prompted(judge, data if self.floor else None, self.batch) for judge in self.judges]
        self.compared = self._compared(spec, device) if LEAST.keys() & {*self.scores} else None

    def _check(self, n: int) -> None:
        least = {f"metrics.scores={name}": LEAST.get(name, 2) for name in self.scores}
        least |= {"metrics.extrapolate=true": 2 * BLOCKS} if self.extrapolate else {}
        least |= {f"{ranks.world_size()} processes": ranks.world_size(), "a score": 2}
        for what, count in least.items():
            if n < count:
                raise UserError(f"n={n} is too small for {what}: it needs at least {count} images")
        if "inception_score" in self.scores and not self.extractor.has_classes:
            raise UserError(f"metrics.scores=inception_score needs classes, and {self.extractor.name} has none")

    def _compared(self, spec: ImageSpec, device: torch.device) -> Compared:
        self.extractor.prepare(self.data)
        reference = self._reference(device)
        known = fingerprints(self.data) if self.data else ()
        marks = [*self.extractor.marks, *check(reference, self.extractor, spec, known)]
        floor = Floor(self.data, reference, self.extractor, self.batch) if self.floor else None
        return Compared(self.scores, self.extractor, reference, marks, floor, BLOCKS if self.extrapolate else 1)

    def _reference(self, device: torch.device) -> Reference:
        if self.given is not None:
            return open_reference(self.given, self.extractor, device, self.batch, KEPT)
        if self.data is not None:
            return at_hand(self.data, self.extractor, device, self.batch, KEPT, self.cache)
        raise UserError("reference must be given: FILE.npz or a folder of real images, or a data set: data=...")

    def __call__(self, samples: Samples) -> Judged:
        """Every rank must call it."""
        fits = [one.fit(samples) for one in self.prompted]
        images = samples.images
        for fit in fits:
            images = fit.look(images)
        found = self.compared.look(images, samples) if self.compared else pass_by(images, samples.seen)
        refuse_broken(samples.seen, samples.n)
        told = [score for one, fit in zip(self.prompted, fits, strict=True) for score in one.scores(fit, samples)]
        if found is None:
            return Judged([*told, *clipped(samples.seen, samples.n)], None)
        scores = [*self.compared.scores(found, samples.marks), *told, *clipped(found.seen, found.n)]
        if self.compared.reference.colours is not None:
            scores += drifted(found.seen.colours, self.compared.reference.colours, found.n)
        if self.data is None or ranks.rank() > 0:  # the others would find the same copies
            return Judged(scores, None)
        score, pairs = copies(found.first, self.data)
        return Judged([*scores, score], pairs)

    @property
    def held_against(self) -> str:
        """By which files of scores are told apart."""
        return self.compared.reference.known_as if self.compared else "prompts"
