"""Images as rows of square patches, some of which blocks may be spared."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from smallbatch.errors import UserError
from smallbatch.networks.layers import Tokens, sinusoid
from smallbatch.notation import Keep, Way

Maps = Float[Tensor, "b maps h w"]
Kept = Float[Tensor, "b kept d"]
Positions = Float[Tensor, "n d"]


def cut(maps: Maps, patch: int) -> Tokens:
    """The patches of `patch` x `patch` pixels, row by row."""
    return rearrange(maps, "b c (y p) (x q) -> b (y x) (c p q)", p=patch, q=patch)


def join(tokens: Tokens, patch: int, side: int) -> Maps:
    """The maps of which `cut` makes these tokens, `side` patches high."""
    return rearrange(tokens, "b (y x) (c p q) -> b c (y p) (x q)", p=patch, q=patch, y=side)


def positions(side: int, width: int, scale: float = 1.0) -> Positions:
    """Where each of side x side patches lies: half of its numbers are sinusoids of the row, half of the column.

    Both are counted in `scale` patches, so that a finer grid may lie where a coarser one did.
    """
    line = sinusoid(torch.arange(side, dtype=torch.float32) / scale, width // 2)
    return torch.cat([line.repeat_interleave(side, dim=0), line.repeat(side, 1)], dim=1)


def kept(tokens: Tokens, keep: Keep) -> Kept:
    return tokens.gather(1, keep.patches[:, :, None].expand(-1, -1, tokens.shape[2]))


def put_back(tokens: Kept, keep: Keep, others: Tokens) -> Tokens:
    """The kept ones in their places among the others."""
    return others.to(tokens.dtype).scatter(1, keep.patches[:, :, None].expand_as(tokens), tokens)


class Span(NamedTuple):
    """Hidden patches are left out of the blocks from number `first` on, and come back before number `end`."""

    first: int
    end: int


def spans(blocks: int, mixer: int, decoder: int) -> dict[Way, Span]:
    """Of so many blocks, the first `mixer` and the last `decoder` may see all patches where others do not.

    A way that leaves no block between them is not there.
    """
    if mixer < 0 or decoder < 0:
        raise UserError(f"network: {mixer=} and {decoder=} must be at least 0")
    found = {
        Way.NAIVE: Span(0, blocks),
        Way.DEFERRED: Span(mixer, blocks),
        Way.MASKDIT: Span(0, blocks - decoder),
        Way.ROUTED: Span(mixer, blocks - decoder),
    }
    return {way: span for way, span in found.items() if span.first < span.end}


def through(
    blocks: Sequence[nn.Module],
    tokens: Tokens,
    keep: Keep | None,
    spans: Mapping[Way, Span],
    empty: Positions,
    *heard: Any,
) -> Tokens | Kept:
    """What all blocks make of the tokens; of the kept ones alone, where the others do not come back.

    What comes back is what was left out, and for a decoder the same `empty` token of its place in every image.
    """
    if keep is None or keep.patches.shape[1] == tokens.shape[1]:
        return passed(blocks, tokens, *heard)
    first, end = spans[keep.way]
    tokens = passed(blocks[:first], tokens, *heard)
    few = passed(blocks[first:end], kept(tokens, keep), *heard)
    if end == len(blocks):
        return few
    others = empty.expand_as(tokens) if keep.way is Way.MASKDIT else tokens
    return passed(blocks[end:], put_back(few, keep, others), *heard)


def passed(blocks: Sequence[nn.Module], tokens: Tokens, *heard: Any) -> Tokens:
    for block in blocks:
        tokens = block(tokens, *heard)
    return tokens


def whole(out: Kept, keep: Keep | None, patches: int) -> Tokens:
    """What was said of all patches of an image: nothing of those that did not come back."""
    if out.shape[1] == patches:
        return out
    return put_back(out, keep, out.new_zeros(len(out), patches, out.shape[2]))
