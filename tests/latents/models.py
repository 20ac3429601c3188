"""Autoencoders as diffusers saves them, with random weights: small, but of the real class."""

import torch
from diffusers import AutoencoderKL

SIZES = {"block_out_channels": [8, 8], "latent_channels": 4, "norm_num_groups": 4, "sample_size": 16}
BLOCKS = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}


def save_vae(folder, **settings):
    torch.manual_seed(0)
    AutoencoderKL(**SIZES, **BLOCKS, **settings).save_pretrained(folder)
