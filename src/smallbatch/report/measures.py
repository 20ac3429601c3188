"""What the name of a metric tells: which values are better, and which figure is its floor."""

from typing import Literal

HIGHER = ("inception_score", "recognised", "precision", "recall", "classifier_score")
NEITHER = ("colour_spread", "colour_shift", "nearest", "clipped", "train/")


def better(metric: str) -> Literal["lower", "higher"] | None:
    """None: no value is better than another by itself."""
    name = metric.removeprefix("metrics/")
    if name.startswith(NEITHER):
        return None
    return "higher" if name.startswith(HIGHER) else "lower"


def is_floor(metric: str) -> bool:
    """What real images score; shown beside what samples score."""
    return "_floor@" in metric
