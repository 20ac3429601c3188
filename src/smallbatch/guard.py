"""Notices loss or gradients that are not finite, without waiting for the device at every step."""

import torch
from torch import Tensor

from smallbatch.errors import UserError
from smallbatch.notation import Observed


class Guard:
    """Remembers, on the device, the first optimizer step that was not finite and the log-SNR of its worst row."""

    def __init__(self) -> None:
        self.first: Tensor | None = None  # (step, log-SNR); step -1 while all is well

    def watch(self, step: int, observed: Observed, grad_norm: Tensor) -> None:
        worst = observed.loss.nan_to_num(nan=torch.inf).argmax()
        bad = ~(observed.loss.sum().isfinite() & grad_norm.isfinite())
        there = observed.logsnr.take(worst)  # [worst] would wait for the device
        now = torch.stack([torch.full_like(grad_norm, step), there])
        if self.first is None:
            self.first = torch.full_like(now, -1.0)
        self.first = torch.where(bad & (self.first[0] < 0), now, self.first)

    def check(self) -> None:
        if self.first is None or self.first[0] < 0:
            return
        step, logsnr = self.first.tolist()
        raise UserError(
            f"loss or gradient is not finite at optimizer step {step:.0f}; largest loss in the log-SNR bin "
            f"{2 * (logsnr // 2):+.0f}..{2 * (logsnr // 2) + 2:+.0f}. What was saved before is kept: "
            "lower optimizer.lr or clip_norm, or train in precision=fp32, then start a new run"
        )
