"""Learning rates: a factor on the optimizer's rate, counted in images and in the share of the budget spent."""

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
