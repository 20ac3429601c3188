"""Images as rows of square patches, some of which a network may be spared."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from smallbatch.networks.layers import Tokens, sinusoid
from smallbatch.notation import Keep

Maps = Float[Tensor, "b maps h w"]
Kept = Float[Tensor, "b kept d"]
Positions = Float[Tensor, "n d"]


def cut(maps: Maps, patch: int) -> Tokens:
    """The patches of `patch` x `patch` pixels, row by row."""
    return rearrange(maps, "b c (y p) (x q) -> b (y x) (c p q)", p=patch, q=patch)


def join(tokens: Tokens, patch: int, side: int) -> Maps:
    """The maps of which `cut` makes these tokens, `side` patches high."""
    return rearrange(tokens, "b (y x) (c p q) -> b c (y p) (x q)", p=patch, q=patch, y=side)


def positions(side: int, width: int) -> Positions:
    """Where each of side x side patches lies: half of its numbers are sinusoids of the row, half of the column."""
    line = sinusoid(torch.arange(side, dtype=torch.float32), width // 2)
    return torch.cat([line.repeat_interleave(side, dim=0), line.repeat(side, 1)], dim=1)


def kept(tokens: Tokens, keep: Keep) -> Kept:
    return tokens.gather(1, keep[:, :, None].expand(-1, -1, tokens.shape[2]))


def put_back(tokens: Kept, keep: Keep, patches: int) -> Tokens:
    """All patches of an image, zero where they were not kept."""
    everywhere = tokens.new_zeros(len(tokens), patches, tokens.shape[2])
    return everywhere.scatter(1, keep[:, :, None].expand_as(tokens), tokens)
