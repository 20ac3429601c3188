"""Optimizers whose memory is counted in images, so that it survives a change of batch size."""

from collections.abc import Iterable

import torch
from torch import nn

from smallbatch.errors import UserError


def adamw(
    parameters: Iterable[nn.Parameter],
    batch: int,
    lr: float,
    beta1: float = 0.9,
    beta2_halflife_images: float = 90_000,  # 0.999 at batch 128 is 88,700
    weight_decay: float = 0.0,
    eps: float = 1e-8,
    fused: bool = True,
) -> torch.optim.AdamW:
    """AdamW with beta2 = 0.5^(batch / halflife): Marek et al. 2025 (2507.07101) keep it over batch sizes."""
    if lr <= 0 or not 0 <= beta1 < 1:
        raise UserError(f"optimizer: {lr=} must be above 0, and {beta1=} lie in [0, 1)")
    if beta2_halflife_images <= 0:
        raise UserError(f"optimizer: {beta2_halflife_images=} must be above 0")
    betas = (beta1, 0.5 ** (batch / beta2_halflife_images))
    return torch.optim.AdamW(parameters, lr=lr, betas=betas, weight_decay=weight_decay, eps=eps, fused=fused)
