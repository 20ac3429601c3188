"""A transformer on patches. Peebles & Xie 2022 (2212.09748), section 3, with adaLN-Zero."""

from collections.abc import Callable

from torch import nn

from smallbatch.errors import UserError
from smallbatch.networks.layers import Attention, ClockAndLabel, Embedding, Tokens, refuse_part, xavier_, zero_
from smallbatch.networks.network import Network
from smallbatch.networks.patches import cut, join, positions, spans, through, whole
from smallbatch.notation import Condition, Image, ImageSpec, Keep, Output, Time

SINUSOIDS = 256  # of the clock, whatever the width


def says(width: int, numbers: int) -> nn.Module:
    """What the embedding says to the tokens: nothing at first."""
    return nn.Sequential(nn.SiLU(), zero_(nn.Linear(width, numbers)))


class AdaLN(nn.Module):
    """Layer norm whose shift and scale the embedding says."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.shift_scale = says(width, 2 * width)

    def forward(self, tokens: Tokens, told: Embedding) -> Tokens:
        shift, scale = self.shift_scale(told)[:, None].chunk(2, dim=2)
        return self.norm(tokens) * (1 + scale) + shift


class Branch(nn.Module):
    """What a layer adds to the tokens, times a gate that the embedding says, zero at first.

    The layer itself must not start at zero: with both at zero neither would ever have a gradient.
    """

    def __init__(self, width: int, layer: nn.Module):
        super().__init__()
        self.norm, self.layer, self.gate = AdaLN(width), layer.apply(xavier_), says(width, width)

    def forward(self, tokens: Tokens, told: Embedding) -> Tokens:
        return tokens + self.gate(told)[:, None] * self.layer(self.norm(tokens, told))


class Block(nn.Module):
    """Every token hears the others, then is worked on by itself."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, qk_norm: Callable[[int], nn.Module]):
        super().__init__()
        hidden = int(mlp_ratio * width)
        mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))
        self.attention = Branch(width, Attention(width, heads, qk_norm=qk_norm))
        self.mlp = Branch(width, mlp)

    def forward(self, tokens: Tokens, told: Embedding) -> Tokens:
        return self.mlp(self.attention(tokens, told), told)


class DiT(Network):
    """Blocks on the patches of an image, at one resolution and width.

    Where a part of the patches is hidden, the first `mixer` blocks may be the patch mixer of deferred masking, the last
    `decoder` blocks that of MaskDiT, and routed patches pass by those between the two.

    `qk_norm` brings queries and keys to unit RMS per head, times learned gains. Esser et al. 2024 (2403.03206), 5.3.2.
    """

    block_types = (Block,)

    def __init__(
        self,
        spec: ImageSpec,
        outputs: int,
        *,
        patch: int = 2,  # pixels per side
        width: int = 384,
        depth: int = 12,  # blocks
        heads: int = 6,
        mlp_ratio: float = 4.0,  # hidden width / `width`
        qk_norm: bool = False,
        mixer: int = 2,  # blocks
        decoder: int = 2,  # blocks
        class_conditional: bool = True,
    ):
        super().__init__()
        if depth < 1 or width < 4 or width % 4 or mlp_ratio <= 0:
            raise UserError(f"network: {depth=} must be at least 1, {width=} a multiple of 4, {mlp_ratio=} above 0")
        refuse_part("patch", patch, "the image size", spec.size)
        refuse_part("heads", heads, "network.width", width)
        self.patch, self.side = patch, spec.size // patch
        self.classes = spec.classes if class_conditional else 0
        self.embed = ClockAndLabel(SINUSOIDS, width, self.classes)
        self.enter = nn.Linear(spec.channels * patch**2, width).apply(xavier_)
        self.register_buffer("positions", positions(self.side, width), persistent=False)
        self.spans = spans(depth, mixer, decoder)
        norm = nn.RMSNorm if qk_norm else nn.Identity
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio, norm) for _ in range(depth))
        self.norm = AdaLN(width)
        self.leave = zero_(nn.Linear(width, outputs * spec.channels * patch**2))

    def forward(self, x: Image, clock: Time, condition: Condition, keep: Keep | None = None) -> Output:
        told = self.embed(clock, condition.label)
        tokens = self.enter(cut(x, self.patch)) + self.positions
        tokens = through([*self.blocks], tokens, keep, self.spans, self.positions, told)
        out = self.leave(self.norm(tokens, told))
        return join(whole(out, keep, self.side**2), self.patch, self.side)
