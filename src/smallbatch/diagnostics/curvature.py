"""Products with the Hessian of a network's loss, and its leading eigenvalues."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from smallbatch.denoiser import Denoiser
from smallbatch.diagnostics.training_loss import Rows, Vector, running_mean, slope
from smallbatch.ema import trainable
from smallbatch.errors import UserError
from smallbatch.randomness import generator

Product = Callable[[Vector], Vector]
TOLERANCE = 1e-2  # relative, of an eigenvalue


def hessian(denoiser: Denoiser, rows: Rows) -> Product:
    """v -> H v by two backward passes, for the mean loss over the rows in the network's trainable weights."""
    weights = [*trainable(denoiser.network).values()]

    def along(loss: Tensor, vector: Vector) -> Vector:
        gradient = slope(loss, weights, create_graph=True)
        return slope(gradient @ vector, weights)

    def product(vector: Vector) -> Vector:
        with sdpa_kernel(SDPBackend.MATH):  # the other kinds of attention have no second derivative
            return running_mean(along(loss, vector) for loss in rows.means(denoiser))

    return product


def leading(product: Product, like: Vector, count: int, seed: int) -> tuple[list[float], list[Vector]]:
    """The `count` largest eigenvalues, falling, with their vectors: Lanczos, by ARPACK."""

    def matvec(x: np.ndarray) -> np.ndarray:
        return product(torch.from_numpy(x).flatten().to(like)).cpu().numpy()

    size = len(like)
    operator = LinearOperator((size, size), matvec, dtype=np.float32)
    start = torch.randn(size, generator=generator(seed, "lanczos")).numpy()
    try:
        values, vectors = eigsh(operator, count, which="LA", v0=start, tol=TOLERANCE)
    except ArpackError as error:
        raise UserError(
            f"Lanczos finds no curvature ({error}), as of a network that is not trained: give a trained run, or "
            "diagnostics.landscape.eigenvalues=0"
        ) from None
    found = torch.from_numpy(vectors.T.copy()).to(like).flip(0)
    return values[::-1].tolist(), list(found)


def weighted(shares: Sequence[float], products: Sequence[Product]) -> Product:
    """Of the sum of these losses, each times its share."""
    return lambda vector: sum(share * product(vector) for share, product in zip(shares, products, strict=True))
