"""How frozen features are kept on disk: they would take far more of it than the images' latents."""

from abc import ABC, abstractmethod

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from smallbatch.notation import Text, TextSpec

Arrays = dict[str, np.ndarray]  # each of b rows, one a caption


class Storage(ABC):
    """Features to arrays and back."""

    arrays: tuple[str, ...] = ("features", "mask")

    @abstractmethod
    def spec(self, whole: TextSpec) -> TextSpec:
        """Of what is read back."""

    @abstractmethod
    def bytes(self, whole: TextSpec) -> int:
        """Of one caption."""

    @abstractmethod
    def pack(self, features: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Arrays: ...

    @abstractmethod
    def unpack(self, arrays: Arrays) -> Text: ...


class Float16(Storage):
    """Every token, as the published MicroDiT keeps them."""

    def spec(self, whole: TextSpec) -> TextSpec:
        return whole

    def bytes(self, whole: TextSpec) -> int:
        return whole.length * (2 * whole.width + 1)

    def pack(self, features: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Arrays:
        return {"features": _half(features), "mask": mask.numpy(force=True)}

    def unpack(self, arrays: Arrays) -> Text:
        return Text(torch.from_numpy(arrays["features"]).float(), torch.from_numpy(arrays["mask"]))


class Int8(Storage):
    """Every token, in steps of 1/127 of its largest value: half of float16's bytes, off by half a step at most.

    Steps are as coarse as the largest channel asks: Gaussian features are off by 0.8 %; with one channel 30 times as
    wide, the others by 7 %.
    """

    arrays = ("features", "step", "mask")

    def spec(self, whole: TextSpec) -> TextSpec:
        return whole

    def bytes(self, whole: TextSpec) -> int:
        return whole.length * (whole.width + 4 + 1)

    def pack(self, features: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Arrays:
        features = features.float()
        step = (features.abs().amax(dim=2) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        steps = (features / step[..., None]).round().to(torch.int8)
        return {"features": steps.numpy(force=True), "step": step.numpy(force=True), "mask": mask.numpy(force=True)}

    def unpack(self, arrays: Arrays) -> Text:
        steps, step, mask = (torch.from_numpy(arrays[name]) for name in ("features", "step", "mask"))
        return Text(steps.float() * step[..., None], mask)


class Pooled(Storage):
    """The mean over the real tokens, as one token: of the words' order is left what each token knows of it."""

    def spec(self, whole: TextSpec) -> TextSpec:
        return whole._replace(length=1)

    def bytes(self, whole: TextSpec) -> int:
        return Float16().bytes(self.spec(whole))

    def pack(self, features: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Arrays:
        real = mask[..., None]
        mean = (features.float() * real).sum(dim=1, keepdim=True) / real.sum(dim=1, keepdim=True).clamp(min=1)
        return Float16().pack(mean, mask.any(dim=1, keepdim=True))

    def unpack(self, arrays: Arrays) -> Text:
        return Float16().unpack(arrays)


STORAGES: dict[str, Storage] = {"float16": Float16(), "int8": Int8(), "pooled": Pooled()}


def _half(features: Float[Tensor, "b n d"]) -> np.ndarray:
    half = features.half()
    assert half.isfinite().all(), f"a feature of {features.abs().max():.3g} is too large for float16"
    return half.numpy(force=True)
