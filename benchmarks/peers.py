"""Networks of other public repositories, imported from a checkout and put behind our interface."""

import importlib
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from smallbatch.errors import UserError
from smallbatch.networks.network import Network
from smallbatch.notation import Condition, Image, ImageSpec, Keep, Labels, Output, Time

Flags = dict[str, Any]  # what a network is built with; `ours` are those of our U-Net


class Peer(Network, ABC):
    """`half` is the repository's own fp16, less the fp32 copies of the weights that it keeps for the optimizer."""

    repository: str
    file: str

    def __init__(self, spec: ImageSpec, outputs: int, *, folder: str, ours: Flags, half: bool):
        super().__init__()
        self.classes = spec.classes if ours["class_conditional"] else 0
        self.low_size, self.half_precision = spec.low_size, half
        made = self.build(self.load(folder), spec._replace(classes=self.classes), outputs * spec.channels, ours)
        self.network = self.halved(made) if half else made

    @abstractmethod
    def build(self, file: ModuleType, spec: ImageSpec, maps: int, ours: Flags) -> nn.Module: ...

    @abstractmethod
    def halved(self, network: nn.Module) -> nn.Module: ...

    def load(self, folder: str) -> ModuleType:
        sys.path.insert(0, str(Path(folder).resolve()))
        try:
            return importlib.import_module(self.file)
        except ModuleNotFoundError as error:
            raise UserError(f"{folder} must be a checkout of github.com/{self.repository}: {error}") from None
        finally:
            sys.path.pop(0)

    def known(self, label: Labels) -> Labels:
        """They have no -1: a dropped label becomes class 0, at the same cost."""
        return label.clamp(min=0)


class OpenAI(Peer):
    """What both of OpenAI's U-Nets share."""

    def flags(self, spec: ImageSpec, maps: int, ours: Flags) -> Flags:
        return {
            "in_channels": spec.channels,
            "model_channels": ours["width"],
            "out_channels": maps,
            "num_res_blocks": ours["blocks"],
            "attention_resolutions": [spec.size // pixels for pixels in ours["attention_at"]],
            "dropout": ours["dropout"],
            "channel_mult": ours["multipliers"],
            "num_classes": spec.classes or None,
            "num_heads": ours["heads"],
            "use_scale_shift_norm": ours["scale_shift"],
        }

    def of(self, file: ModuleType) -> type[nn.Module]:
        return file.SuperResModel if self.low_size else file.UNetModel

    def halved(self, network: nn.Module) -> nn.Module:
        network.convert_to_fp16()
        network.dtype = torch.float16
        return network

    def forward(self, x: Image, clock: Time, condition: Condition, keep: Keep | None = None) -> Output:
        label = {"y": self.known(condition.label)} if self.classes else {}
        small = {"low_res": condition.image} if self.low_size else {}
        return self.network(x, clock, **label, **small)


class GuidedDiffusion(OpenAI):
    repository, file = "openai/guided-diffusion", "guided_diffusion.unet"

    def build(self, file: ModuleType, spec: ImageSpec, maps: int, ours: Flags) -> nn.Module:
        return self.of(file)(
            **self.flags(spec, maps, ours),
            image_size=spec.size,
            num_head_channels=ours["head_width"] or -1,
            resblock_updown=ours["resample_in_block"],
            use_new_attention_order=ours["head_order"] == "qkv_first",
        )


class ImprovedDiffusion(OpenAI):
    repository, file = "openai/improved-diffusion", "improved_diffusion.unet"

    def build(self, file: ModuleType, spec: ImageSpec, maps: int, ours: Flags) -> nn.Module:
        for name, only in {"head_width": None, "head_order": "heads_first", "resample_in_block": False}.items():
            if ours[name] != only:
                use = "null" if only is None else only
                raise UserError(f"improved_diffusion has no network.{name}={ours[name]}: use {use}")
        return self.of(file)(**self.flags(spec, maps, ours))


class EDM(Peer):
    """DhariwalUNet: heads always 64 wide, stages and dropout as ours."""

    repository, file = "NVlabs/edm", "training.networks"

    def build(self, file: ModuleType, spec: ImageSpec, maps: int, ours: Flags) -> nn.Module:
        if self.low_size:
            raise UserError("edm has no upsampler: use data.low_size=null")
        return file.DhariwalUNet(
            img_resolution=spec.size,
            in_channels=spec.channels,
            out_channels=maps,
            label_dim=spec.classes,
            model_channels=ours["width"],
            channel_mult=ours["multipliers"],
            num_blocks=ours["blocks"],
            attn_resolutions=ours["attention_at"],
            dropout=ours["dropout"],
        )

    def halved(self, network: nn.Module) -> nn.Module:
        """Its weights stay fp32, and follow the input's type where they are used."""
        return network

    def forward(self, x: Image, clock: Time, condition: Condition, keep: Keep | None = None) -> Output:
        label = F.one_hot(self.known(condition.label), self.classes).float() if self.classes else None
        return self.network(x.half() if self.half_precision else x, clock, label)


PEERS = {"guided_diffusion": GuidedDiffusion, "improved_diffusion": ImprovedDiffusion, "edm": EDM}
