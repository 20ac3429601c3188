"""The names and shapes that guided-diffusion gives the weights of its U-Net."""

import pytest
import torch

from smallbatch.networks.guided_diffusion import published
from smallbatch.networks.unet import UNet
from smallbatch.notation import ImageSpec

BLOCK = {  # of a block from 8 to 16 channels that hears 32 numbers
    "in_layers.0.weight": (8,),
    "in_layers.2.weight": (16, 8, 3, 3),
    "emb_layers.1.weight": (32, 32),
    "out_layers.0.weight": (16,),
    "out_layers.3.weight": (16, 16, 3, 3),
    "skip_connection.weight": (16, 8, 1, 1),
}
ATTENTION = {"norm.weight": (16,), "qkv.weight": (48, 16, 1), "proj_out.weight": (16, 16, 1)}
EVERYWHERE = {
    "time_embed.0.weight": (32, 8),
    "time_embed.2.bias": (32,),
    "label_emb.weight": (3, 32),
    "input_blocks.0.0.weight": (8, 3, 3, 3),
    **{f"input_blocks.3.0.{name}": shape for name, shape in BLOCK.items()},
    **{f"input_blocks.3.1.{name}": shape for name, shape in ATTENTION.items()},
    **{f"middle_block.1.{name}": shape for name, shape in ATTENTION.items()},
    **{f"output_blocks.1.1.{name}": shape for name, shape in ATTENTION.items()},
    "middle_block.2.out_layers.3.bias": (16,),
    "output_blocks.3.0.skip_connection.weight": (8, 16, 1, 1),
    "out.0.weight": (8,),
    "out.2.weight": (6, 8, 3, 3),
}
RESAMPLES = {
    False: {"input_blocks.2.0.op.weight": (8, 8, 3, 3), "output_blocks.1.2.conv.weight": (16, 16, 3, 3)},
    True: {
        "input_blocks.2.0.in_layers.2.weight": (8, 8, 3, 3),
        "output_blocks.1.2.out_layers.3.weight": (16, 16, 3, 3),
    },
}


def network(resample_in_block):
    """Two stages of one block each, 8 and 16 channels; the coarser attends."""
    made = {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention_at": [4], "heads": 2}
    return UNet(ImageSpec(3, 8, 3), 2, **made, resample_in_block=resample_in_block)


@pytest.mark.parametrize("resample_in_block", RESAMPLES)
def test_weights_have_the_published_names_and_shapes(resample_in_block):
    named = published(network(resample_in_block))
    for name, shape in {**EVERYWHERE, **RESAMPLES[resample_in_block]}.items():
        assert tuple(named[name].shape) == shape, name
    top = {name.split(".")[0] for name in named}
    assert top == {"time_embed", "label_emb", "input_blocks", "middle_block", "output_blocks", "out"}


def test_what_is_copied_into_the_published_names_is_the_networks_own():
    made = network(True)
    named = published(made)
    assert len(named) == len(list(made.parameters()))
    for weight in named.values():
        weight.fill_(7)
    assert all((parameter == 7).all() for parameter in made.parameters())
    assert torch.equal(made.middle[1].attention.qkv.weight, named["middle_block.1.qkv.weight"][..., 0])
