"""Mixed prediction: one output with three heads, x0, eps and v, fused into one velocity."""

from collections.abc import Iterator

import torch
from jaxtyping import Float64
from torch import Tensor

from smallbatch.errors import UserError
from smallbatch.fusing import Fuse, Winners
from smallbatch.notation import Denoised, Image, NoiseLevel, Observed, Output, PerTerm, Seen
from smallbatch.predictions import X0, Eps, Linear, Prediction, Terms, V, over_seen
from smallbatch.teaching import Smallest, Teach, beside

HEADS: dict[str, Linear] = {"x0": X0(), "eps": Eps(), "v": V()}  # in the order of the output's maps


class Mixture(Prediction):
    """`fuse` says what each head counts at a noise level, `teach` which errors train them.

    Fused as velocities on the unit circle with x_t scaled alike, so that every path gives the same.
    """

    outputs = len(HEADS)
    heads = HEADS

    def __init__(self, fuse: Fuse, teach: Teach):
        super().__init__()
        if isinstance(fuse, Winners) and not isinstance(teach, Smallest):
            kind = type(teach).__name__
            raise UserError(f"prediction: {kind} has no winners to fuse by: use prediction=mixed_blend or mixed_gate")
        self.fuse, self.teach = fuse, teach

    def terms(self, out: Output, x0: Image, eps: Image, level: NoiseLevel, seen: Seen | None = None) -> Terms:
        parts = [head.terms(map, x0, eps, level, seen) for head, map in _heads(out)]

        def fused() -> Terms:
            terms = HEADS["v"].terms(self.velocity(out, level.mix(x0, eps), level), x0, eps, level, seen)
            power = self.fuse(level).square().sum(dim=1, keepdim=True)  # of what the heads' outputs count
            return terms._replace(slope=terms.slope * power, pooled=terms.pooled * power)

        return self.teach.columns(beside(*parts), fused)._replace(gram=error_gram(out, x0, eps, level, seen))

    def shares(self, weighted: PerTerm) -> PerTerm:
        return self.teach.shares(weighted)

    def each(self, out: Output, x_t: Image, level: NoiseLevel) -> list[Denoised]:
        return [head.decode(map, x_t, level) for head, map in _heads(out)]

    def decode(self, out: Output, x_t: Image, level: NoiseLevel) -> Denoised:
        return HEADS["v"].decode(self.velocity(out, x_t, level), x_t, level)

    def observe(self, observed: Observed) -> None:
        self.fuse.observe(observed)

    def velocity(self, out: Output, x_t: Image, level: NoiseLevel) -> Image:
        """sum_k g_k v_k. In the closed form the factor of x_t is 0, to the last bit."""
        of_x0, of_eps, of_v = self.fuse(level)[..., None, None].chunk(3, dim=1)
        x0, eps, v = out.chunk(3, dim=1)
        unit, length = level.unit, (level.alpha.square() + level.sigma.square()).sqrt()
        return (unit.alpha * of_x0 - unit.sigma * of_eps) * x_t / length - of_x0 * x0 + of_eps * eps + of_v * v


@torch.no_grad()
def error_gram(
    out: Output, x0: Image, eps: Image, level: NoiseLevel, seen: Seen | None = None
) -> Float64[Tensor, "b 3 3"]:
    """Mean products over the pixels of the heads' errors in v.

    In float64: most of the error is common to the heads, and what sets them apart is its small rest.
    """
    unit, errors = level.unit, []
    for head, map in _heads(out):
        a, b = head.basis(level)
        per_v = b * unit.alpha - a * unit.sigma  # what a unit of v makes in the head's own space
        errors.append((map - (a * x0 + b * eps)).double() / per_v.double())
    rows, columns = (torch.stack(some, dim=1).flatten(2) for some in ([over_seen(e, seen) for e in errors], errors))
    return rows @ columns.transpose(1, 2) / x0[0].numel()


def _heads(out: Output) -> Iterator[tuple[Linear, Image]]:
    return zip(HEADS.values(), out.chunk(len(HEADS), dim=1), strict=True)
