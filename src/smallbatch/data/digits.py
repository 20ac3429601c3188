"""scikit-learn's 1,797 handwritten digits, bright on dark: a data set that needs no download."""

from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from smallbatch.data.module import ImageData, Parts
from smallbatch.data.store import Store, digest
from smallbatch.errors import UserError
from smallbatch.notation import ImageSpec, Pixels

INK = 16  # the digits are stored as 0..16


def enlarged(ink: np.ndarray, size: int) -> Pixels:
    """Bicubic on the stored values, which may overshoot, so they are clamped."""
    grey = torch.from_numpy(ink).double().unsqueeze(1)
    if size != grey.shape[-1]:
        grey = F.interpolate(grey, size=(size, size), mode="bicubic")
    return (grey.clamp(0, INK) * (255 / INK)).round().to(torch.uint8)


class Digits(ImageData):
    """15 % are held out, stratified, whatever the seed: the last 297 would be other writers."""

    def __init__(
        self, batch: int, seed: int, size: int = 8, flip: bool = False, per_image: int = 1, low_size: int | None = None
    ):
        super().__init__(batch, seed, flip, per_image=per_image, low_size=low_size)
        if size < 8 or size % 8:
            raise UserError(f"data.size={size}: digits are 8x8, enlarged only to a multiple of 8, e.g. 16")
        self.size = size

    @property
    def spec(self) -> ImageSpec:
        return ImageSpec(channels=1, size=self.size, classes=10, low_size=self.low_size)

    @property
    def class_names(self) -> list[str]:
        return [str(digit) for digit in range(10)]

    @property
    def fingerprint(self) -> str:
        return digest(self.parts.train, self.parts.held_out)

    @cached_property
    def parts(self) -> Parts:
        digits = load_digits()
        whole = Store(enlarged(digits.images, self.size), torch.from_numpy(digits.target).long())
        rows = np.arange(len(whole))
        split = train_test_split(rows, test_size=0.15, stratify=digits.target, random_state=0)
        return Parts(*(whole.take(torch.from_numpy(np.sort(part))) for part in split))
