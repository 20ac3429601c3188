"""Learning rates: a factor on the optimizer's rate, counted in images and in the share of the budget spent.

Momentum may move with the rate: leaves may also say which beta1 Adam has.
"""

import math
from abc import ABC, abstractmethod

from smallbatch.errors import UserError


class LearningRate(ABC):
    """A warm-up in a straight line over `warmup_images`, then the leaf's own shape."""

    def __init__(self, warmup_images: int = 0):
        if warmup_images < 0:
            raise UserError(f"lr_schedule: {warmup_images=} must be at least 0")
        self.warmup_images = warmup_images

    @abstractmethod
    def shape(self, images: int, progress: float) -> float: ...

    def __call__(self, images: int, progress: float) -> float:
        """Factor for the optimizer step that ends at `images` rows, at `progress` (0..1) of the budget."""
        warm = min(images / self.warmup_images, 1.0) if self.warmup_images else 1.0
        return warm * self.shape(images, progress)

    def beta1(self, progress: float) -> float | None:
        """The optimizer's first beta at `progress`; None leaves the optimizer its own, always."""
        return None


class Constant(LearningRate):
    def shape(self, images: int, progress: float) -> float:
        return 1.0


class Cosine(LearningRate):
    """From 1 to `floor` over the budget. Loshchilov & Hutter 2016 (1608.03983), eq. 5, one period."""

    def __init__(self, warmup_images: int = 0, floor: float = 0.0):
        super().__init__(warmup_images)
        self.floor = floor

    def shape(self, images: int, progress: float) -> float:
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


class InverseSqrt(LearningRate):
    """Constant for `reference_images`, then as 1 / sqrt(images). Karras et al. 2023 (2312.02696), eq. 67."""

    def __init__(self, reference_images: int, warmup_images: int = 0):
        super().__init__(warmup_images)
        if reference_images < 1:
            raise UserError(f"lr_schedule: {reference_images=} must be at least 1")
        self.reference_images = reference_images

    def shape(self, images: int, progress: float) -> float:
        return max(images / self.reference_images, 1.0) ** -0.5


class LinearCooldown(LearningRate):
    """Constant, then in a straight line to zero over the last `cooldown` share of the budget."""

    def __init__(self, warmup_images: int = 0, cooldown: float = 0.25):
        super().__init__(warmup_images)
        if not 0 < cooldown <= 1:
            raise UserError(f"lr_schedule: {cooldown=} is a share of the budget and must lie in (0, 1]")
        self.cooldown = cooldown

    def shape(self, images: int, progress: float) -> float:
        return min((1 - progress) / self.cooldown, 1.0)


class Linear(LearningRate):
    """From 1 to `floor` in a straight line over the budget: what MDLRC does to the rate, alone."""

    def __init__(self, warmup_images: int = 0, floor: float = 0.1):
        super().__init__(warmup_images)
        if not 0 <= floor <= 1:
            raise UserError(f"lr_schedule: {floor=} is a share of the rate and must lie in 0..1")
        self.floor = floor

    def shape(self, images: int, progress: float) -> float:
        return 1 - (1 - self.floor) * min(progress, 1.0)


class MomentumDecay(LearningRate):
    """beta1 decays to 0: Demon, Chen et al. 2019 (1910.04952), on Adam; beta2 stays.

    beta1 / (1 - beta1), what a gradient adds to all updates after its own, falls in a straight line. torch corrects
    Adam's bias by 1 - beta1^step with the beta1 of that step: this matters in the first few steps only, in which beta1
    has hardly moved.
    """

    def __init__(self, beta1: float, warmup_images: int = 0):
        super().__init__(warmup_images)
        if not 0 < beta1 < 1:
            raise UserError(f"lr_schedule: {beta1=} must lie between 0 and 1, so that there is momentum to decay")
        self.first = beta1

    def beta1(self, progress: float) -> float:
        left = self.first * (1 - min(progress, 1.0))
        return left / (1 - self.first + left)


class Beta1Decay(MomentumDecay):
    """Momentum decay at a constant rate: what MDLRC does to beta1, alone."""

    def shape(self, images: int, progress: float) -> float:
        return 1.0


class MDLRC(MomentumDecay):
    """Momentum decay with learning-rate compensation: rate * (1 - beta1) is constant. Xu et al. 2024 (2404.07946).

    A fresh gradient thus counts the same in every update, and the rate falls in a straight line to 1 - beta1 of
    itself: to a tenth from 0.9. Not from the printed formula but from a public transcription of it.
    """

    def shape(self, images: int, progress: float) -> float:
        return (1 - self.first) / (1 - self.beta1(progress))
