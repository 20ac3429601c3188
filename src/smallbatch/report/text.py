"""Figures as people read them."""

import math

from smallbatch.report.paired import Interval


def number(value: float | None) -> str:
    """Four digits."""
    if value is None or not math.isfinite(value):
        return ""
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.{max(0, 3 - int(math.log10(abs(value))))}f}"


def quantity(value: float | None) -> str:
    """Three digits and a prefix: 8 k, 1.2 M."""
    if value is None:
        return ""
    for prefix, size in (("Z", 1e21), ("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g}"


def percent(value: float) -> str:
    return f"{value:+,.2f}" if abs(value) < 1000 else f"{value:+,.0f}"


def moved(value: float, unit: str) -> str:
    """A difference with its sign, without its unit: in percent, or else in a metric's own."""
    return percent(value) if unit == "%" else "+" * (value > 0) + number(value)


def sign(value: float) -> str:
    """A round figure with its sign; 0 has none."""
    return f"{value:+,.15g}" if value else "0"


def change(of: Interval, unit: str) -> str:
    """A difference with its ends, where it has any."""
    mean = f"{moved(of.mean, unit)} {unit or 'absolute'}"
    return f"{mean}, one seed" if of.n == 1 else f"{mean} [{moved(of.low, unit)}, {moved(of.high, unit)}]"


def probability(p: float | None) -> str:
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
