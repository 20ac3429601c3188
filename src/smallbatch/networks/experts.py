"""A feed-forward of several experts, each of which chooses the tokens that it works on."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from smallbatch.errors import UserError
from smallbatch.networks.bias_free import Start, linear
from smallbatch.networks.layers import Tokens

Seated = Float[Tensor, "b experts seats d"]


class Experts(nn.Module):
    """Feed-forwards of one shape, run together: each on the tokens in its own seats."""

    def __init__(self, width: int, hidden: int, experts: int, start: Start):
        super().__init__()
        self.enter = nn.Parameter(torch.empty(experts, width, hidden))
        self.out = nn.Parameter(torch.empty(experts, hidden, width))
        nn.init.trunc_normal_(self.enter, std=start.std)
        nn.init.trunc_normal_(self.out, std=start.out_std)

    def forward(self, seated: Seated) -> Seated:
        hidden = F.gelu(torch.einsum("beki,eij->bekj", seated, self.enter))
        return torch.einsum("bekj,eji->beki", hidden, self.out)


class ExpertChoice(nn.Module):
    """Each of E experts takes the int(capacity * tokens / E) tokens of an image that the router gives it most of.

    Zhou et al. 2022 (2202.09368), section 3.1, but for its choice from the whole batch: an image's output here does not
    depend on its neighbours. What an expert says counts as much as the router's softmax over experts; several may work
    on a token, or none.
    """

    def __init__(self, width: int, hidden: int, experts: int, capacity: float, start: Start):
        super().__init__()
        self.capacity = capacity  # experts per token, on average
        self.router = linear(width, experts, start.std)
        self.experts = Experts(width, hidden, experts, start)

    def forward(self, tokens: Tokens) -> Tokens:
        b, n, d = tokens.shape
        shares = self.router(tokens).softmax(dim=2).transpose(1, 2)  # (b, experts, n)
        share, taken = shares.topk(seats(n, shares.shape[1], self.capacity), dim=2)
        where = rearrange(taken, "b e k -> b (e k) 1").expand(-1, -1, d)
        seated = rearrange(tokens.gather(1, where), "b (e k) d -> b e k d", e=shares.shape[1])
        said = (share[..., None] * self.experts(seated)).flatten(1, 2)
        return said.new_zeros(b, n, d).scatter_add(1, where, said)


def seats(tokens: int, experts: int, capacity: float) -> int:
    """Tokens per expert."""
    count = int(capacity * tokens / experts)
    if count > tokens:
        raise UserError(
            f"network.capacity={capacity:g}: {count} seats for each of {experts} experts are more seats than tokens,"
            f" {tokens}: use at most {experts}"
        )
    if count == 0:
        raise UserError(
            f"network.capacity={capacity:g} of {experts} experts leaves no seat at {tokens} tokens: it takes at least"
            f" {fewest_tokens(experts, capacity)}, by a smaller patch or masking.ratio"
        )
    return count


def fewest_tokens(experts: int, capacity: float) -> int:
    """With which every expert has a seat."""
    return math.ceil(experts / capacity)
