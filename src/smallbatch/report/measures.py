"""What the name of a metric tells: which values are better, and which figure is that of real images."""

from collections.abc import Mapping
from typing import Literal

HIGHER = ("inception_score", "recognised", "precision", "recall", "classifier_score", "prompt_", "clip_score")
OF_REAL = ("_floor@", "_real@")
NEITHER = ("colour_spread", "colour_shift", "nearest", "clipped", "train/")


def better(metric: str) -> Literal["lower", "higher"] | None:
    """None: no value is better than another by itself."""
    name = metric.removeprefix("metrics/")
    if name.startswith(NEITHER):
        return None
    return "higher" if name.startswith(HIGHER) else "lower"


def is_of_real(metric: str) -> bool:
    """What real images score; shown beside what samples score."""
    return any(ending in metric for ending in OF_REAL)


def of_real(metric: str, values: Mapping[str, float]) -> float | None:
    """What real images score by that metric, perhaps fewer of them; None where nobody asked."""
    names = tuple(metric.partition("@")[0] + ending for ending in OF_REAL)
    return next((value for name, value in values.items() if name.startswith(names)), None)
