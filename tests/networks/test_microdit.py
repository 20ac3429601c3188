"""MicroDiT has the published sizes and start; every token passes where it should, and texts are heard."""

from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from smallbatch.errors import UserError
from smallbatch.networks.bias_free import NormedAttention, Start
from smallbatch.networks.experts import ExpertChoice, Experts
from smallbatch.networks.memory import Memory, Reader
from smallbatch.networks.microdit import MicroDiT
from smallbatch.networks.patches import cut, join, positions
from smallbatch.notation import Condition, ImageSpec, Keep, Text, TextSpec, Way

cases = pytest.mark.parametrize
CONF = Path(__file__).parents[2] / "conf"
LATENTS = ImageSpec(4, 32, 0, text=TextSpec(77, width=1024))
SMALL = {"patch": 2, "width": 8, "depth": 4, "head_width": 4, "mixer_width": 4, "mixer_depth": 2, "multiple": 4}
LABELS = torch.tensor([0, -1, 2])
TOKENS = torch.tensor([[1, 2, 3, 0, 0], [4, 4, 5, 6, 1], [1, 0, 0, 0, 0]])
TEXT = Text(TOKENS, TOKENS > 0)
SAID = Condition(LABELS, TEXT)
PATCHES = torch.tensor([[0, 5, 9, 15, 6], [1, 2, 3, 4, 0], [12, 3, 7, 8, 1]])  # of 16
DEFERRED = Keep(PATCHES, Way.DEFERRED)


@cache
def configured(name: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose(f"network/{name}").network, _convert_="all")


def fresh(text: TextSpec | None = TextSpec(5, words=7), **changes) -> MicroDiT:  # noqa: B008
    """On 8 x 8 images of 3 classes, as training starts."""
    torch.manual_seed(0)
    return MicroDiT(ImageSpec(3, 8, 3, text=text), 2, **{**SMALL, "experts": 4, **changes})


def small(*text, **changes) -> MicroDiT:
    """The same, with none of its weights at zero."""
    network = fresh(*text, **changes).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


def images() -> torch.Tensor:
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def call(network: MicroDiT, condition: Condition = SAID, x: torch.Tensor | None = None, keep: Keep | None = None):
    return network(images() if x is None else x, torch.tensor([-1.0, 0.1, 1.0]), condition, keep)


WIDTHS = {
    "xl": [512, *[640] * 6, *[768] * 7, *[896] * 7, *[1024] * 7],
    "tiny": [256, *[320] * 3, *[384] * 4, *[448] * 4, *[512] * 4],
}


def up(width: float, to: int) -> int:
    return int(-(-width // to) * to)


def block(width: int, attention: int, ratio: float, told: int, sparse: bool, experts: int = 8) -> int:
    """Self-attention, cross-attention, feed-forward, three norms, what the embedding says."""
    dense = 3 * width * up(int(2 * int(width * ratio) / 3), 256)
    mixture = experts * (2 * width * up(int(width * ratio), 256) + width)
    says = 6 * width * (told + 1)
    return 4 * width * attention + 4 * width**2 + (mixture if sparse else dense) + 3 * width + says


def weights(width: int, depth: int, head: int, mixer: int, mixer_depth: int) -> int:
    """At patch 2 on 4 channels with features of 1,024 numbers, written out."""
    heads = [up(int(width * (0.5 + 0.5 * i / (depth - 1))), 2 * head) for i in range(depth)]
    ratios = [0.5 + 3.5 * i / (depth - 1) for i in range(depth)]
    backbone = sum(block(width, heads[i], ratios[i], width, i % 2 and i < depth - 1) for i in range(depth))
    first = sum(block(mixer, mixer, 4, width, i % 2) for i in range(mixer_depth))
    between = 0 if mixer == width else 3 * width * mixer + 2 * width + mixer  # in, out, and for the text
    clock = (512 + 1) * width + (width + 1) * width
    text = sum((n + 1) * width + width + (width + 1) * width for n in (1024, width))  # features in, pooled
    text += 4 * width**2 + 3 * width * up(int(2 * 4 * width / 3), 256) + 2 * width
    ends = (16 + 1) * width + width + 2 * width * (width + 1) + (width + 1) * 16
    return backbone + first + between + clock + text + ends


@cases("name, sizes, millions", [("xl", (1024, 28, 64, 768, 6), 1165.4), ("tiny", (512, 16, 32, 512, 4), 200.7)])
def test_parameters_are_as_many_as_published(name, sizes, millions):
    with torch.device("meta"):
        network = configured(f"microdit_{name}")(LATENTS, 1)
    count = sum(p.numel() for p in network.parameters())
    assert count == weights(*sizes) and round(count / 1e6, 1) == millions
    assert [b.attention.out.in_features for b in network.blocks] == WIDTHS[name]
    mixtures = [i for i, b in enumerate(network.blocks) if isinstance(b.feed_forward, ExpertChoice)]
    assert mixtures == [*range(1, len(network.blocks) - 1, 2)]
    mixtures = [i for i, b in enumerate(network.mixer.blocks) if isinstance(b.feed_forward, ExpertChoice)]
    assert mixtures == [*range(1, len(network.mixer.blocks), 2)]


@cases("name, spec, millions", [
    ("digits", ImageSpec(1, 16, 10), 0.656),
    ("shapes", ImageSpec(3, 16, 0, text=TextSpec(16, words=40)), 0.847),
])  # fmt: skip
def test_small_ones_have_the_parameters_that_their_configs_say(name, spec, millions):
    network = configured(f"microdit_{name}")(spec, 1)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 3) == millions


def test_output_is_zero_at_initialisation_and_blocks_add_only_what_they_hear_of_the_text():
    assert torch.equal(call(fresh()), torch.zeros(3, 6, 8, 8))
    tokens, told = torch.randn(3, 16, 8), torch.randn(3, 8)
    for part in fresh(None).blocks:
        assert torch.equal(part(tokens, told, None), tokens)


@cases("init", [{}, {"init_std": 0.08}], ids=["published", "of a narrow network"])
def test_weights_start_as_published(init):
    """Outputs of block i at init_std / sqrt(2 i), the mixer's at the last one's; what reads texts starts as an MLP."""
    full_std = init.get("init_std", 0.02)
    torch.manual_seed(0)
    spec = ImageSpec(4, 8, 0, text=TextSpec(5, width=64))
    network = MicroDiT(spec, 1, width=64, depth=4, head_width=16, mixer_width=48, mixer_depth=2, multiple=64, **init)
    near = {"rtol": 0.1, "atol": 0.0}
    for number, part in enumerate([*network.blocks, *network.mixer.blocks], start=1):
        small_std = full_std / (2 * min(number, 4)) ** 0.5
        own, cross, forward = part.attention, part.hears.attention, part.feed_forward
        late = forward.experts.out if number % 2 == 0 and number != 4 else forward.enter.weight
        for weight, std in [(own.out.weight, small_std), (cross.out.weight, small_std), (late, small_std)]:
            torch.testing.assert_close(weight.std().item(), std, **near)
        for weight in (own.q.weight, own.kv.weight, cross.q.weight, cross.kv.weight):
            torch.testing.assert_close(weight.std().item(), full_std, **near)
    assert not network.read.attention.out.weight.any() and not network.read.feed_forward.out.weight.any()
    torch.testing.assert_close(network.embed.clock[0].weight.std().item(), full_std, **near)


@cases("text", [TextSpec(5, words=7), TextSpec(5, width=6), None], ids=["words", "features", "labels"])
def test_every_weight_learns_from_some_early_step_on(text):
    """First only the last layer does, for it is zero; then what is ungated; nothing may stay between two zeros."""
    network = fresh(text)
    said = {5: TEXT, 6: Text(torch.randn(3, 5, 6), TEXT.mask)}[6 if text and text.width else 5]
    for _ in range(4):
        network.zero_grad()
        (call(network, Condition(LABELS, said)) - torch.randn(3, 6, 8, 8)).square().mean().backward()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter -= parameter.grad
    assert not [name for name, p in network.named_parameters() if not 0 < p.grad.norm() < torch.inf]


def test_every_expert_takes_its_seats_of_what_is_kept():
    network, seated = small(), []
    for part in network.modules():
        if isinstance(part, Experts):
            part.register_forward_pre_hook(lambda part, given: seated.append(given[0].shape[1:3]))
    call(network)
    call(network, keep=DEFERRED)
    assert seated == [(4, 2 * 16 // 4), (4, 2 * 16 // 4), (4, 2 * 16 // 4), (4, 2 * 5 // 4)]


@cases("way, lengths, blank", [
    (Way.NAIVE, [5, 5, 5, 5, 5], True),
    (Way.DEFERRED, [16, 5, 5, 5, 5], True),
    (Way.MASKDIT, [5, 5, 5, 16, 16], False),
    (Way.ROUTED, [16, 5, 5, 16, 16], False),
])  # fmt: skip
def test_hidden_patches_are_left_out_where_they_should_be_and_zero_if_they_do_not_come_back(way, lengths, blank):
    network, seen = small(), []
    for part in [network.mixer, *network.blocks]:
        part.register_forward_pre_hook(lambda part, given: seen.append(given[0].shape[1]))
    out = call(network, keep=Keep(PATCHES, way))
    assert seen == lengths and out.shape == (3, 6, 8, 8)
    lit = torch.zeros(3, 16).scatter(1, PATCHES, 1.0).bool() | (not blank)
    assert torch.equal(cut(out, 2).any(dim=2), lit)


@cases("way", [Way.NAIVE, Way.DEFERRED])
def test_hidden_pixels_reach_what_is_kept_through_the_mixer_alone(way):
    network, x = small(), images().requires_grad_()
    call(network, x=x, keep=Keep(PATCHES, way)).square().sum().backward()  # zero where hidden
    hidden = torch.ones(3, 16).scatter(1, PATCHES, 0.0).bool()
    reached = cut(x.grad, 2)[hidden].any(dim=1)
    assert reached.all() if way is Way.DEFERRED else not reached.any()


def test_hidden_tokens_reach_the_loss_only_through_the_mixer_of_the_kept():
    """Cut the kept tokens off behind the mixer, and no pixel has a gradient left."""
    network, x = small(), images().requires_grad_()
    network.mixer.register_forward_hook(
        lambda mixer, given, tokens: tokens.scatter(1, PATCHES[:, :, None].expand(-1, -1, 8), 0.0)
    )
    call(network, x=x, keep=DEFERRED).square().sum().backward()
    assert not x.grad.any()


@cases("experts", [0, 4])
@cases("way", Way)
def test_to_keep_all_patches_in_any_order_changes_nothing(experts, way):
    network, everything = small(experts=experts), torch.stack([torch.randperm(16) for _ in range(3)])
    torch.testing.assert_close(call(network, keep=Keep(everything, way)), call(network), rtol=1e-4, atol=1e-4)


@cases("spec", [TextSpec(5, words=7), TextSpec(5, width=6)], ids=["words", "features"])
def test_the_null_text_is_features_times_zero_whatever_the_tokens(spec):
    network = small(spec)
    values = [TOKENS, TOKENS.flip(0)] if spec.words else [torch.randn(3, 5, 6), torch.randn(3, 5, 6)]
    nothing, real = torch.zeros(3, 5, dtype=torch.bool), torch.ones(3, 5, dtype=torch.bool)
    null, other = (call(network, Condition(LABELS, Text(value, nothing))) for value in values)
    assert torch.equal(null, other) and torch.equal(call(network, Condition(LABELS)), null)
    assert not torch.allclose(call(network, Condition(LABELS, Text(values[0], real))), null)
    network.read.features = torch.nn.Identity()
    zero = Text(torch.zeros(3, 5, spec.width or 8), real)
    torch.testing.assert_close(call(network, Condition(LABELS, zero)), null)


def test_to_forget_is_to_be_told_nothing():
    network, gone = small(), torch.tensor([True, False, True])
    forgetful, nothing, said = (call(network, c) for c in (network.forget(SAID, gone), Condition(), SAID))
    torch.testing.assert_close(forgetful, torch.where(gone[:, None, None, None], nothing, said))


def test_words_are_heard_in_their_order_and_all_of_them():
    network = small()
    for changed in ([2, 1, 3, 0, 0], [1, 2, 6, 0, 0]):
        text = Text(torch.tensor([changed, *TOKENS[1:].tolist()]), TEXT.mask)
        apart = (call(network, Condition(LABELS, text)) - call(network)).abs().amax(dim=(1, 2, 3))
        assert apart[0] > 1e-3 and not apart[1:].any()


@cases("pad, apart", [("heard", True), ("masked", False)])
def test_padding_is_heard_as_published_unless_it_is_masked(pad, apart):
    network = small(pad=pad)
    other = Text(torch.where(TEXT.mask, TOKENS, 6), TEXT.mask)
    assert torch.allclose(call(network, Condition(LABELS, other)), call(network), atol=1e-6) is not apart


def test_masked_padding_is_as_good_as_a_shorter_text():
    network = small(pad="masked")
    long, short = (Condition(LABELS[2:], Text(TOKENS[2:, :n], TEXT.mask[2:, :n])) for n in (5, 1))
    found, expected = (network(images()[2:], torch.ones(1), c) for c in (long, short))
    torch.testing.assert_close(found, expected)


def test_label_minus_one_is_a_zero_embedding_and_an_unconditional_network_hears_none():
    network = small(None)
    nothing = call(network, Condition(torch.full((3,), -1)))
    assert not torch.allclose(call(network), nothing)
    torch.testing.assert_close(call(network, Condition()), nothing)
    network.embed.label.weight.data.zero_()
    torch.testing.assert_close(call(network), nothing)
    network = small(None, class_conditional=False)
    assert network.classes == 0 and torch.equal(call(network, Condition(LABELS.flip(0))), call(network))


def test_without_a_text_there_is_no_cross_attention():
    network = fresh(None)
    assert network.text is None and not [part for part in network.modules() if isinstance(part, Reader)]
    attentions = [part for part in network.modules() if isinstance(part, NormedAttention)]
    assert len(attentions) == len(network.blocks) + len(network.mixer.blocks)


def test_the_clock_is_heard():
    network = small(None)
    out = network(images()[:1].expand(3, -1, -1, -1), torch.tensor([-1.0, 0.1, 1.0]), Condition())
    assert (out[1:] - out[:1]).abs().amax(dim=(1, 2, 3)).min() > 1e-3


def test_queries_and_keys_are_normed_over_all_heads_together():
    torch.manual_seed(0)
    layer, tokens, memory = NormedAttention(6, 8, 4, Start(0.5, 0.5)), torch.randn(2, 5, 6), torch.randn(2, 3, 6)
    q, (k, v) = layer.q(tokens), layer.kv(memory).chunk(2, dim=2)
    q, k = ((x - x.mean(2, keepdim=True)) / (x.var(2, correction=0, keepdim=True) + 1e-6).sqrt() for x in (q, k))
    heads = [(q[..., e] @ k[..., e].mT / 2).softmax(2) @ v[..., e] for e in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close(layer(tokens, memory), layer.out(torch.cat(heads, dim=2)))


def test_a_block_is_the_published_sum():
    part, tokens, told = small().blocks[0], torch.randn(3, 16, 8), torch.randn(3, 8)
    memory = Memory(torch.randn(3, 5, 8), None)
    shift, scale, gate, *late = part.says(told)[:, None].chunk(6, dim=2)
    heard = part.norm_attention(tokens) * (1 + scale) + shift
    tokens, before = tokens + gate * part.attention(heard, heard), tokens
    tokens = tokens + part.hears.attention(part.hears.norm(tokens), memory.tokens)
    worked = part.feed_forward(part.norm_feed_forward(tokens) * (1 + late[1]) + late[0])
    torch.testing.assert_close(part(before, told, memory), tokens + late[2] * worked)


def test_without_positions_permuted_patches_give_permuted_outputs_and_with_them_not():
    network, order = small(), torch.randperm(16, generator=torch.Generator().manual_seed(0))
    shuffled = join(cut(images(), 2)[:, order], 2, 4)
    assert not torch.allclose(cut(call(network, x=shuffled), 2), cut(call(network), 2)[:, order], atol=1e-3)
    network.positions.zero_()
    found, expected = (cut(call(network, x=x), 2) for x in (shuffled, images()))
    torch.testing.assert_close(found, expected[:, order], rtol=1e-4, atol=1e-5)


def test_a_finer_grid_lies_where_the_coarser_one_did():
    fine = positions(8, 16, scale=2.0).view(8, 8, 16)
    torch.testing.assert_close(fine[::2, ::2].reshape(16, 16), positions(4, 16))
    network = fresh(position_scale=2.0)
    assert torch.equal(network.positions, positions(4, 8, 2.0)) and "positions" not in network.state_dict()


def test_bfloat16_agrees_with_float32_also_where_patches_are_hidden():
    """With as many experts per token as there are, so that no rounding changes who takes what."""
    network = small(capacity=4.0)
    for keep in (None, DEFERRED):
        expected = call(network, keep=keep)
        with torch.autocast("cpu", torch.bfloat16):
            found = call(network, keep=keep).float()
        torch.testing.assert_close(found, expected, rtol=0.1, atol=0.1 * expected.std().item())


@cases(
    "changes, message",
    [
        ({"patch": 3}, r"network.patch=3 does not divide the image size 8: use one of \[1, 2, 4, 8\]"),
        ({"head_width": 3}, r"network.head_width=3 does not divide network.width 8: use one of \[1, 2, 4, 8\]"),
        ({"head_width": 8}, r"network.head_width=8 does not divide network.mixer_width 4: use one of \[1, 2, 4\]"),
        ({"width": 6, "head_width": 2}, "width=6 must be a multiple of 4"),
        ({"decoder": 4}, "decoder=4 from 0 to below depth=4"),
        ({"experts": -1}, "experts=-1 at least 0"),
        ({"mixer_depth": 0}, "mixer_depth=0 must be above 0"),
        ({"mlp_ratio": [4]}, r"network.mlp_ratio=\[4\] must be two numbers above 0"),
        ({"attention_ratio": [0, 1]}, r"network.attention_ratio=\[0, 1\] must be two numbers above 0"),
        ({"capacity": 0}, "capacity=0 must be above 0"),
        ({"init_std": 0}, "init_std=0 must be above 0"),
        ({"capacity": 5.0}, "more seats than tokens, 16: use at most 4"),
        ({"experts": 64}, "leaves no seat at 16 tokens: it takes at least 32"),
        ({"pad": "skipped"}, "network.pad='skipped' is not known: use one of heard, masked"),
    ],
)
def test_a_wrong_argument_is_named_with_its_remedy(changes, message):
    with pytest.raises(UserError, match=message):
        fresh(**changes)
