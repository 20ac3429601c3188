"""Whether stored tensors fit where they are wanted, by names and shapes."""

from collections.abc import Mapping

from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]

SHOWN = 3  # names of those that differ


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def misfit(wanted: Shapes, there: Shapes) -> str | None:
    """The first names that differ, in words; None where all fits."""
    odd = [name for name in {**wanted, **there} if wanted.get(name) != there.get(name)]
    if not odd:
        return None
    more = f", and {len(odd) - SHOWN} more" if len(odd) > SHOWN else ""
    return "; ".join(_said(name, wanted.get(name), there.get(name)) for name in odd[:SHOWN]) + more


def _said(name: str, wanted: tuple[int, ...] | None, there: tuple[int, ...] | None) -> str:
    if there is None:
        return f"{name} is missing"
    return f"{name} is not of this model" if wanted is None else f"{name} has shape {there}, not {wanted}"
