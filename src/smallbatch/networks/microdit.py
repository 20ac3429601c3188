"""A transformer that may be spared most patches, once a patch mixer has seen them. Sehwag et al. 2024 (2407.15811)."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from smallbatch.errors import UserError, refuse_unless_positive
from smallbatch.networks.bias_free import norm
from smallbatch.networks.experts import fewest_tokens, seats
from smallbatch.networks.layers import ClockAndLabel, Embedding, Tokens, refuse_part, xavier_, zero_
from smallbatch.networks.memory import Memory, Reader, narrow
from smallbatch.networks.microdit_block import Block, Common, alike, modulated, says, widening
from smallbatch.networks.network import Network
from smallbatch.networks.patches import cut, join, passed, positions, spans, through, whole
from smallbatch.notation import Condition, Image, ImageSpec, Keep, Output, Time

SINUSOIDS = 512  # of the clock, whatever the width

Pieces = Float[Tensor, "b n numbers"]  # of the output, patch by patch


class PatchMixer(nn.Module):
    """Blocks of a width of their own, with no way past them."""

    def __init__(self, width: int, inner: int, blocks: Sequence[Block], common: Common):
        super().__init__()
        self.enter, self.leave = between(width, inner), between(inner, width)
        self.reads = between(width, inner) if common.reads else None
        self.blocks = nn.ModuleList(blocks)

    def forward(self, tokens: Tokens, told: Embedding, memory: Memory | None) -> Tokens:
        if self.reads is not None:
            memory = memory._replace(tokens=self.reads(memory.tokens))
        return self.leave(passed([*self.blocks], self.enter(tokens), told, memory))


class Last(nn.Module):
    """What every token at last says of its pixels: nothing at first."""

    def __init__(self, width: int, numbers: int):
        super().__init__()
        self.norm, self.says, self.leave = norm(width), says(width, 2 * width), zero_(nn.Linear(width, numbers))

    def forward(self, tokens: Tokens, told: Embedding) -> Pieces:
        return self.leave(modulated(self.norm(tokens), *self.says(told)[:, None].chunk(2, dim=2)))


class MicroDiT(Network):
    """Blocks whose attention and feed-forward widen with depth, with experts in every second one.

    Deferred masking and routing spare hidden patches all but the patch mixer; the last `decoder` blocks are those of
    MaskDiT, and where routed patches are back. Without a text there is no cross-attention.
    """

    block_types = (Block,)

    def __init__(
        self,
        spec: ImageSpec,
        outputs: int,
        *,
        patch: int = 2,  # pixels per side
        width: int = 1024,
        depth: int = 28,  # blocks behind the mixer
        head_width: int = 64,
        attention_ratio: Sequence[float] = (0.5, 1.0),  # to `width`, of the first and of the last block
        mlp_ratio: Sequence[float] = (0.5, 4.0),
        mixer_width: int = 768,
        mixer_depth: int = 6,
        mixer_mlp_ratio: float = 4.0,
        experts: int = 8,  # 0: none
        capacity: float = 2.0,  # experts per token, on average
        multiple: int = 256,  # of every feed-forward's width
        position_scale: float = 1.0,  # 2 where twice as many patches per side stand for the same places
        decoder: int = 2,  # blocks
        pad: str = "heard",  # padding of a text; or "masked"
        class_conditional: bool = True,
        init_std: float = 0.02,  # of weights before training, where nothing smaller is asked
    ):
        super().__init__()
        refuse_unless_positive("network", depth=depth, mixer_depth=mixer_depth, mixer_mlp_ratio=mixer_mlp_ratio)
        refuse_unless_positive("network", init_std=init_std)
        refuse_unless_positive("network", capacity=capacity, multiple=multiple, position_scale=position_scale)
        refuse_ratios(attention_ratio=attention_ratio, mlp_ratio=mlp_ratio)
        refuse_counts(width, depth, decoder, experts)
        refuse_parts(spec.size, patch, head_width, width=width, mixer_width=mixer_width)
        self.patch, self.side, self.text = patch, spec.size // patch, spec.text
        self.classes = spec.classes if class_conditional else 0
        self.fewest = fewest_patches(self.side**2, experts, capacity)
        self.embed = ClockAndLabel(SINUSOIDS, width, self.classes, lambda: nn.GELU(approximate="tanh"))
        self.embed.apply(narrow(init_std))
        self.read = None if self.text is None else Reader(self.text, width, head_width, multiple, pad, init_std)
        self.enter = nn.Linear(spec.channels * patch**2, width).apply(xavier_)
        self.register_buffer("positions", positions(self.side, width, position_scale), persistent=False)
        self.spans = spans(1 + depth, mixer=1, decoder=decoder)
        common = Common(width, self.text is not None, head_width, multiple, experts, capacity, init_std)
        mixing = alike(mixer_width, mixer_depth, mixer_mlp_ratio, depth, common)
        self.mixer = PatchMixer(width, mixer_width, mixing, common)
        self.blocks = nn.ModuleList(widening(width, depth, attention_ratio, mlp_ratio, common))
        self.last = Last(width, outputs * spec.channels * patch**2)

    def forward(self, x: Image, clock: Time, condition: Condition, keep: Keep | None = None) -> Output:
        told, memory = self.embed(clock, condition.label), None
        if self.read is not None:
            text = self.read.nothing(len(x)) if condition.text is None else condition.text
            memory, pooled = self.read(text)
            told = told + pooled
        tokens = self.enter(cut(x, self.patch)) + self.positions
        tokens = through([self.mixer, *self.blocks], tokens, keep, self.spans, self.positions, told, memory)
        return join(whole(self.last(tokens, told), keep, self.side**2), self.patch, self.side)


def between(width: int, to: int) -> nn.Module:
    """From one width to another, unless they are the same."""
    return nn.Identity() if width == to else nn.Sequential(norm(width), nn.Linear(width, to, bias=False).apply(xavier_))


def refuse_ratios(**ratios: Sequence[float]) -> None:
    for name, ends in ratios.items():
        if len(ends) != 2 or min(ends) <= 0:
            raise UserError(f"network.{name}={ends} must be two numbers above 0: of the first and of the last block")


def refuse_counts(width: int, depth: int, decoder: int, experts: int) -> None:
    if width % 4 or not 0 <= decoder < depth or experts < 0:
        raise UserError(
            f"network: {width=} must be a multiple of 4, {decoder=} from 0 to below {depth=}, {experts=} at least 0"
        )


def refuse_parts(size: int, patch: int, head_width: int, **widths: int) -> None:
    refuse_part("patch", patch, "the image size", size)
    for name, width in widths.items():
        refuse_part("head_width", head_width, f"network.{name}", width)


def fewest_patches(patches: int, experts: int, capacity: float) -> int:
    """With which every expert has a seat. Refuses an image that has fewer."""
    if not experts:
        return 1
    seats(patches, experts, capacity)
    return fewest_tokens(experts, capacity)
