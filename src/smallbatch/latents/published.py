"""Autoencoders that somebody else trained, read through diffusers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from smallbatch.published import Published


@dataclass(frozen=True)
class Diffusers(Published):
    """A network alone."""

    library: ClassVar[str] = "diffusers"
    extra: ClassVar[str] = "latents"
    stated: ClassVar[str] = "_class_name"
    weights: ClassVar[str] = "diffusion_pytorch_model"

    @property
    def parts(self) -> tuple[type, ...]:
        return (self.model,)

    def config_in(self, folder: Path) -> Any:
        """Only a network knows the values that the file leaves out: here one that takes no memory."""
        with torch.device("meta"):
            return self.model.from_config(self.model.load_config(folder)).config
