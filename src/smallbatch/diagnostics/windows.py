"""Windows of a sampler's steps: the fixed ones of a paper or of a user, and one that slides."""

from collections.abc import Sequence
from typing import NamedTuple

from smallbatch.errors import UserError
from smallbatch.notation import Time

NOTHING = range(0)


class Window(NamedTuple):
    kind: str  # none, fixed or sliding
    name: str
    excluded: int  # of the last steps, which no window of this row may hold
    steps: range  # of the sampler, counted from the noise


def fixed(times: Time, ends: Sequence[Sequence[float]], excluded: int) -> list[Window]:
    """Ends in thousandths of the time, both included. Those that hold no step are left out."""
    found = []
    for low, high in ends:
        steps = holds(times, low, high)
        steps = range(steps.start, min(steps.stop, len(times) - excluded))
        if steps:
            found.append(Window("fixed", f"[{low:g}, {high:g}]", excluded, steps))
    return found


def holds(times: Time, low: float, high: float) -> range:
    """The steps inside; of a falling grid they are neighbours."""
    thousandths = (1000 * times.double()).round(decimals=3)  # float32 is off by 1e-4
    first, after = (thousandths > high).sum(), (thousandths >= low).sum()
    return range(int(first), int(after))


def refuse_empty(times: Time, ends: Sequence[Sequence[float]], where: str) -> None:
    for low, high in ends:
        if not holds(times, low, high):
            raise UserError(
                f"{where}: [{low:g}, {high:g}] holds none of the sampler's {len(times)} steps, which go from "
                f"{1000 * times[0]:g} to {1000 * times[-1]:g}: widen it, or give more steps="
            )


def sliding(count: int, width: int, excluded: int) -> list[Window]:
    """Of `count` steps, side by side from the data on, as many as are whole."""
    starts = range(count - excluded - width, -1, -width)
    return [Window("sliding", f"{k + 1}..{k + width}", excluded, range(k, k + width)) for k in starts]


def bounds(times: Time, steps: range) -> tuple[float, float]:
    """Ends in t, low <= t < high, that part these steps from their neighbours."""
    middles = (times[:-1] + times[1:]) / 2
    high = middles[steps.start - 1].item() if steps.start > 0 else float("inf")
    low = middles[steps.stop - 1].item() if steps.stop < len(times) else -float("inf")
    return low, high
