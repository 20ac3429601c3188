"""The U-Net's weights under the names and in the shapes of guided-diffusion's checkpoints."""

import re

from torch import Tensor

from smallbatch.networks.unet import UNet

NAMES = (  # ours, as patterns, to theirs, one after the other
    (r"^embed\.clock\.", r"time_embed."),
    (r"^embed\.label\.", r"label_emb."),
    (r"^down\.(\d+)\.", lambda found: f"input_blocks.{int(found[1]) + 1}."),  # the stem is their first
    (r"^(input_blocks\.\d+)\.(?=enter|modulate|leave|skip)", r"\1.0."),  # a block that shrinks stands alone in ours
    (r"^(input_blocks\.\d+\.0)\.(?=weight|bias)", r"\1.op."),
    (r"^stem\.", r"input_blocks.0.0."),
    (r"^middle\.", r"middle_block."),
    (r"^up\.(\d+\.\d+)\.1\.(?=weight|bias)", r"up.\1.conv."),
    (r"^up\.", r"output_blocks."),
    (r"^head\.", r"out."),
    (r"\.enter\.0\.", r".in_layers.0."),
    (r"\.enter\.3\.", r".in_layers.2."),  # theirs counts no resampling
    (r"\.modulate\.project\.", r".emb_layers."),
    (r"\.modulate\.norm\.", r".out_layers.0."),
    (r"\.leave\.2\.", r".out_layers.3."),
    (r"\.skip\.1\.", r".skip_connection."),
    (r"\.attention\.qkv\.", r".qkv."),
    (r"\.attention\.out\.", r".proj_out."),
)


def published(network: UNet) -> dict[str, Tensor]:
    """The network's own memory as their state dict: to read its weights, or to copy theirs into it."""
    return {their_name(name): in_their_shape(name, weight) for name, weight in network.state_dict().items()}


def their_name(name: str) -> str:
    for ours, theirs in NAMES:
        name = re.sub(ours, theirs, name)
    return name


def in_their_shape(name: str, weight: Tensor) -> Tensor:
    """Where we have linear layers they have convolutions of width 1 over the pixels in a row: a view."""
    return weight[..., None] if re.search(r"\.attention\.(qkv|out)\.weight$", name) else weight
