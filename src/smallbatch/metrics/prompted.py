"""Samples held against their prompts, beside what real images score against their captions."""

from collections.abc import Sequence

from smallbatch.data.module import ImageData
from smallbatch.errors import UserError
from smallbatch.metrics import ranks
from smallbatch.metrics.judged import Score
from smallbatch.metrics.prompt_accuracy import PromptAccuracy
from smallbatch.metrics.rows import spread
from smallbatch.metrics.shares import real
from smallbatch.notation import ImageSpec

PROMPTS = "prompt_accuracy"
LEAST_SIZE = 16  # pixels, from which shapes can be told apart


class Prompted:
    """`data`: whose held-out images show by how much the reading itself is off; None: not asked."""

    def __init__(self, spec: ImageSpec, data: ImageData | None, batch: int):
        if spec.channels != 3 or spec.size < LEAST_SIZE:
            kind = f"{spec.channels}x{spec.size}x{spec.size}"
            raise UserError(f"metrics.scores={PROMPTS} reads colour images of {LEAST_SIZE} pixels and more, not {kind}")
        self.data, self.batch = data, batch

    def accuracy(self, prompts: Sequence[str] | None) -> PromptAccuracy:
        """Counts while images with these prompts pass."""
        if prompts is None:
            raise UserError(f"metrics.scores={PROMPTS} needs prompts: a run that hears a text, or prompts=FILE")
        return PromptAccuracy(prompts)

    def scores(self, accuracy: PromptAccuracy, n: int) -> list[Score]:
        """Once n images have passed. Every rank must call it."""
        return [*summed(accuracy), *self.of_real(n)]

    def of_real(self, n: int) -> list[Score]:
        if self.data is None:
            return []
        source = self.data.held_out_store
        m = min(n, len(source))
        captions = source.captions(spread(m, len(source)))
        if captions is None:
            return []
        accuracy = PromptAccuracy(captions)
        for _ in accuracy.look(real(source, m, self.batch)):
            pass
        marks = ["of held-out images and their captions"]
        return [summed(accuracy)[0]._replace(name=f"{PROMPTS}_real@{m}", marks=marks)]


def summed(accuracy: PromptAccuracy) -> list[Score]:
    """Of all ranks together."""
    ranks.summed_(accuracy.sums)
    return accuracy.scores
