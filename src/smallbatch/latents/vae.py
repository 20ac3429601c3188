"""The variational autoencoder of latent diffusion."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from math import isfinite
from typing import Any

import torch
from torch import nn

from smallbatch.errors import UserError
from smallbatch.latents.autoencoder import Autoencoder, Z
from smallbatch.latents.published import Diffusers
from smallbatch.notation import Image
from smallbatch.published import from_anywhere


def sampled(posterior: Any, eps: Z) -> Z:
    """As the public preparation of MicroDiT, Sehwag et al. 2024 (2407.15811), keeps it."""
    return posterior.mean + posterior.std * eps


def mean(posterior: Any, eps: Z) -> Z:
    return posterior.mean


DRAWS: dict[str, Callable[[Any, Z], Z]] = {"sampled": sampled, "mean": mean}
AT_ONCE = 16  # images that are decoded: what the network holds of each is far larger than the image


@dataclass(frozen=True)
class Vae(Autoencoder):
    """Rombach et al. 2022 (2112.10752), sec. 3.1, as diffusers' AutoencoderKL: z = (draw - shift) * scale.

    `name`, `revision`: as in Published. `scale`, `shift`: None: the config's; its latents_mean and latents_std, which
    few have, count nowhere. `draw`: of the posterior, one of DRAWS.
    Weights are read when first needed and belong to no module, so that no checkpoint holds them.
    """

    name: str
    revision: str | None = None
    scale: float | None = None
    shift: float | None = None
    draw: str = "sampled"

    def __post_init__(self) -> None:
        if self.scale is not None and not (self.scale > 0 and isfinite(self.scale)):
            raise UserError(f"latents.scale={self.scale} must be above 0 and finite")
        if self.shift is not None and not isfinite(self.shift):
            raise UserError(f"latents.shift={self.shift} must be finite")
        if self.draw not in DRAWS:
            raise UserError(f"latents.draw={self.draw} is not known: use {' or '.join(DRAWS)}")

    @cached_property
    def published(self) -> Diffusers:
        Diffusers.need("latents=vae")
        from diffusers import AutoencoderKL

        return Diffusers("latents.name", self.name, self.revision, AutoencoderKL)

    @cached_property
    def config(self) -> Any:
        return self.published.read_config(("AutoencoderKL",))

    @property
    def channels(self) -> int:
        return self.config.in_channels

    @property
    def maps(self) -> int:
        return self.config.latent_channels

    @property
    def factor(self) -> int:
        return 2 ** (len(self.config.block_out_channels) - 1)

    @cached_property
    def affine(self) -> tuple[float, float]:
        """Shift and scale; many a config knows no shift."""
        shift = self.config.shift_factor or 0.0 if self.shift is None else self.shift
        scale = self.config.scaling_factor if self.scale is None else self.scale
        if not scale:
            raise UserError(f"{self.published.said} states no scale: give latents.scale")
        return float(shift), float(scale)

    def prepare(self) -> None:
        self._network(torch.device("cpu"))

    @torch.no_grad()
    def encode(self, x: Image, eps: Z) -> Z:
        shift, scale = self.affine
        with torch.autocast(x.device.type, enabled=False):  # the same whatever training they are for
            posterior = self._network(x.device).encode(x.float()).latent_dist
        return (DRAWS[self.draw](posterior, eps.float()) - shift) * scale

    @torch.no_grad()
    def decode(self, z: Z) -> Image:
        shift, scale = self.affine
        network = self._network(z.device)
        with torch.autocast(z.device.type, enabled=False):
            made = [network.decode(some / scale + shift).sample for some in z.float().split(AT_ONCE)]
        return torch.cat(made).clamp(-1, 1)

    def described(self) -> dict[str, Any]:
        """With the scale and the shift that are used, whoever named them: stored latents depend on both."""
        shift, scale = self.affine
        used = {"name": from_anywhere(self.name), "scale": scale, "shift": shift}
        return {"_target_": f"{type(self).__module__}.{type(self).__name__}", **asdict(self), **used}

    def _network(self, device: torch.device) -> nn.Module:
        _ = self.config  # which says whether it is one of these
        return frozen(self.published, device)


@lru_cache(maxsize=1)  # one copy in memory, however many ask
def frozen(model: Diffusers, device: torch.device) -> nn.Module:
    """float32 everywhere: SDXL's overflows in float16."""
    return model.read_model(torch.float32).to(device)
