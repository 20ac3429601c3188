"""Which share of samples shows what their prompts say, of everything together and of each attribute."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from numpy import ndarray

from smallbatch.data.prompts import Content, said
from smallbatch.errors import UserError
from smallbatch.metrics.judged import Score
from smallbatch.metrics.looking import Stream
from smallbatch.metrics.prompted import Fit, Judge
from smallbatch.metrics.reading_scenes import read
from smallbatch.notation import ImageSpec

LEAST_SIZE = 16  # pixels, from which shapes can be told apart
ALL = "accuracy"  # everything that was said, at once
ATTRIBUTES = (ALL, *Content._fields)


class Verdict(NamedTuple):
    """Of n pictures, in the order of ATTRIBUTES. What was not said is right, whatever is shown."""

    said: Bool[ndarray, "n attributes"]
    right: Bool[ndarray, "n attributes"]


class SceneReader(Judge):
    """Reads drawn scenes from their pixels."""

    score = "prompt_accuracy"

    def prepare(self, spec: ImageSpec) -> None:
        if spec.channels != 3 or spec.size < LEAST_SIZE:
            kind = f"{spec.channels}x{spec.size}x{spec.size}"
            least = f"colour images of {LEAST_SIZE} pixels and more"
            raise UserError(f"metrics.scores={self.score} reads {least}, not {kind}")

    def fit(self, prompts: Sequence[str], device: torch.device) -> "PromptAccuracy":
        return PromptAccuracy(prompts)


class PromptAccuracy(Fit):
    """Counts the images whose prompts say an attribute, and those that show it.

    Raises a UserError for a prompt that does not describe a scene.
    """

    def __init__(self, prompts: Sequence[str]):
        self.said = said(prompts)
        self.sums = torch.zeros(2, len(ATTRIBUTES), dtype=torch.long)  # said, right

    def look(self, images: Stream) -> Stream:
        for numbers, pixels in images:
            verdict = judge(self.said.at(numbers.numpy()), read(pixels.cpu().numpy()))
            right = verdict.said & verdict.right
            self.sums += torch.from_numpy(np.stack([verdict.said.sum(0), right.sum(0)]))
            yield numbers, pixels

    @property
    def scores(self) -> list[Score]:
        """Shares with their binomial standard errors, sqrt(p (1 - p) / n); of attributes that no prompt says, none."""
        images = int(self.sums[0, 0])
        rows = zip(ATTRIBUTES, *self.sums.tolist(), strict=True)
        return [_share(name, n, right, images) for name, n, right in rows if n]


def _share(name: str, n: int, right: int, images: int) -> Score:
    p = right / n
    marks = [f"of the {n} images whose prompts say it"] if n < images else []
    return Score(f"prompt_{name}@{images}", p, n, error=(p * (1 - p) / n) ** 0.5, marks=marks)


def judge(said: Content, seen: Content) -> Verdict:
    """Which of two objects comes first is the prompt's choice: pictures are read from the side that fits better."""
    one, other = _right(said, seen), _right(said, seen.turned)
    right = np.where(one.sum(1, keepdims=True) >= other.sum(1, keepdims=True), one, other)
    told = np.stack([(field >= 0).reshape(len(field), -1).any(1) for field in said], axis=1)
    everything = np.ones((len(told), 1), bool)
    return Verdict(np.hstack([everything, told]), np.hstack([right.all(1, keepdims=True), right]))


def _right(said: Content, seen: Content) -> Bool[ndarray, "n attributes"]:
    """Of both objects, where both are named, both must be right."""
    fits = [(want < 0) | (want == found) for want, found in zip(said, seen, strict=True)]
    return np.stack([fit.reshape(len(fit), -1).all(1) for fit in fits], axis=1)
