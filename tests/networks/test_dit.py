"""The transformer has the published sizes, starts at zero, knows where a patch lies and never sees a hidden one."""

from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from smallbatch.errors import UserError
from smallbatch.networks.dit import DiT
from smallbatch.networks.layers import Attention
from smallbatch.networks.patches import cut, join, kept, positions, put_back
from smallbatch.notation import Condition, ImageSpec, Keep, Way

CONF = Path(__file__).parents[2] / "conf"
SMALL = {"patch": 2, "width": 8, "depth": 4, "heads": 2, "mixer": 1, "decoder": 1}
LABELS = torch.tensor([0, -1, 2])
PATCHES = torch.tensor([[0, 5, 9, 15], [1, 2, 3, 4], [12, 3, 7, 8]])  # of 16
KEEP = Keep(PATCHES, Way.NAIVE)
HIDDEN = torch.ones(3, 16).scatter(1, PATCHES, 0.0).bool()


@cache
def configured(name: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose(f"network/{name}").network, _convert_="all")


def fresh(**changes) -> DiT:
    """On 8 x 8 images of 3 classes, as training starts."""
    torch.manual_seed(0)
    return DiT(ImageSpec(3, 8, 3), 2, **{**SMALL, **changes})


def small(**changes) -> DiT:
    """The same, with none of its weights at zero."""
    network = fresh(**changes).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


def images() -> torch.Tensor:
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def call(network: DiT, label: torch.Tensor | None = LABELS, x: torch.Tensor | None = None, **keep) -> torch.Tensor:
    return network(images() if x is None else x, torch.tensor([0.0, 10.0, 999.0]), Condition(label), **keep)


class Given(list):
    """What each block is given, call after call."""

    def of(self, network: DiT) -> DiT:
        for block in network.blocks:
            block.register_forward_pre_hook(lambda block, given: self.append(given[0].detach()))
        return network


def told_of(network: DiT) -> torch.Tensor:
    return network.embed(torch.tensor([0.0, 10.0, 999.0]), LABELS)


def weights(width: int, depth: int) -> int:
    """At patch 2 on 4 channels, 2 x 4 maps, 1,000 classes; written out from section 3 of the paper."""
    block = 12 * width**2 + 9 * width + 6 * (width**2 + width)  # attention, MLP, what the embedding says
    clock = (256 + 1) * width + (width + 1) * width
    return depth * block + clock + 1000 * width + 17 * width + 2 * (width + 1) * width + (width + 1) * 32


@pytest.mark.parametrize(
    "name, width, depth, millions, published",
    [
        ("dit_s", 384, 12, 32.865, 33),
        ("dit_b", 768, 12, 130.315, 130),
        ("dit_l", 1024, 24, 457.840, 458),
        ("dit_xl", 1152, 28, 674.834, 675),
    ],
)
def test_parameters_are_as_many_as_published(name, width, depth, millions, published):
    with torch.device("meta"):
        network = configured(name)(ImageSpec(4, 32, 1000), 2)
    count = sum(p.numel() for p in network.parameters())
    assert count == weights(width, depth) and round(count / 1e6, 3) == millions
    assert round(count / 1e6) == published


def test_output_is_zero_at_initialisation():
    network = configured("dit_digits")(ImageSpec(1, 16, 10), 3)
    out = network(torch.randn(2, 1, 16, 16), torch.rand(2), Condition(torch.tensor([3, -1])))
    assert torch.equal(out, torch.zeros(2, 3, 16, 16))


def test_blocks_are_the_identity_at_initialisation():
    tokens, told = torch.randn(3, 16, 8), torch.randn(3, 8)
    for block in fresh().blocks:
        assert torch.equal(block(tokens, told), tokens)


@pytest.mark.parametrize("qk_norm", [True, False])
def test_every_weight_learns_from_the_third_step_on(qk_norm):
    """First only the last layer does, for it is zero; then the gates; nothing may stay between two zeros."""
    network = fresh(qk_norm=qk_norm)
    for _ in range(3):
        network.zero_grad()
        (call(network) - torch.randn(3, 6, 8, 8)).square().mean().backward()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter -= parameter.grad
    assert not [name for name, p in network.named_parameters() if not 0 < p.grad.norm() < torch.inf]


def test_cut_and_join_are_inverse_and_patches_run_row_by_row():
    x = images()
    tokens = cut(x, 2)
    assert torch.equal(join(tokens, 2, 4), x)
    assert torch.equal(tokens[:, 1 * 4 + 3].view(3, 3, 2, 2), x[:, :, 2:4, 6:8])


def test_put_back_is_the_transpose_of_kept():
    tokens, few = torch.randn(3, 16, 5), torch.randn(3, 4, 5)
    torch.testing.assert_close(
        (kept(tokens, KEEP) * few).sum(), (tokens * put_back(few, KEEP, torch.zeros(3, 16, 5))).sum()
    )


def test_every_patch_has_a_position_of_its_own_and_neighbours_are_alike():
    where = positions(16, 64)
    apart = torch.cdist(where, where)
    assert where.shape == (256, 64) and apart.fill_diagonal_(torch.inf).min() > 0.5
    centre, beside = 8 * 16 + 8, (-16, -1, 1, 16)
    assert sorted(apart[centre].topk(4, largest=False).indices.tolist()) == [centre + step for step in beside]


def test_without_positions_permuted_patches_give_permuted_outputs_and_with_them_not():
    network, order = small(), torch.randperm(16, generator=torch.Generator().manual_seed(0))
    shuffled = join(cut(images(), 2)[:, order], 2, 4)
    assert not torch.allclose(cut(call(network, x=shuffled), 2), cut(call(network), 2)[:, order], atol=1e-3)
    network.positions.zero_()
    torch.testing.assert_close(cut(call(network, x=shuffled), 2), cut(call(network), 2)[:, order])


def test_what_is_kept_does_not_see_what_is_hidden_and_the_rest_is_zero():
    network, x = small(), images().requires_grad_()
    out = call(network, x=x, keep=KEEP)
    assert torch.equal(cut(out, 2).any(dim=2), ~HIDDEN)
    out.square().sum().backward()
    assert torch.equal(cut(x.grad, 2).any(dim=2), ~HIDDEN)


def test_what_is_kept_sees_what_is_hidden_through_the_mixer():
    network, x = small(), images().requires_grad_()
    out = call(network, x=x, keep=Keep(PATCHES, Way.DEFERRED))
    assert torch.equal(cut(out, 2).any(dim=2), ~HIDDEN)
    out.square().sum().backward()
    assert cut(x.grad, 2).any(dim=2).all()


@pytest.mark.parametrize("way", Way)
def test_to_keep_all_patches_in_any_order_changes_nothing(way):
    network, everything = small(), torch.stack([torch.randperm(16) for _ in range(3)])
    torch.testing.assert_close(call(network, keep=Keep(everything, way)), call(network))


@pytest.mark.parametrize(
    "way, lengths",
    [
        (Way.NAIVE, [4, 4, 4, 4]),
        (Way.DEFERRED, [16, 4, 4, 4]),
        (Way.MASKDIT, [4, 4, 4, 16]),
        (Way.ROUTED, [16, 4, 4, 16]),
    ],
)
def test_no_block_works_on_a_patch_that_is_hidden_from_it(way, lengths):
    network, seen = small(), Given()
    call(seen.of(network), keep=Keep(PATCHES, way))
    call(network)
    assert [tokens.shape[1] for tokens in seen] == [*lengths, 16, 16, 16, 16]


def test_routed_patches_come_back_as_they_were_left_and_the_others_as_they_became():
    network, seen = small(), Given()
    out = call(seen.of(network), keep=Keep(PATCHES, Way.ROUTED))
    assert torch.equal(seen[3][HIDDEN], network.blocks[0](seen[0], told_of(network))[HIDDEN])
    assert torch.equal(kept(seen[3], KEEP), network.blocks[2](seen[2], told_of(network)))
    assert cut(out, 2).any(dim=2).all()


def test_the_decoder_of_maskdit_sees_an_empty_token_in_every_hidden_place():
    network, seen, x = small(), Given(), images().requires_grad_()
    out = call(seen.of(network), x=x, keep=Keep(PATCHES, Way.MASKDIT))
    assert torch.equal(seen[3][HIDDEN], network.positions.expand(3, -1, -1)[HIDDEN])
    assert torch.equal(kept(seen[3], KEEP), network.blocks[2](seen[2], told_of(network)))
    out[HIDDEN.view(3, 1, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3).expand_as(out)].sum().backward()
    assert torch.equal(cut(x.grad, 2).any(dim=2), ~HIDDEN)  # what it restores it knows from the kept ones alone


def test_each_map_of_the_output_has_rows_of_its_own_in_the_last_layer():
    network = small()
    before = call(network)
    with torch.no_grad():
        network.leave.weight[:4] += 1  # 2 x 2 pixels of the first of 6 maps
    changed = (call(network) != before).flatten(2).any(dim=2)
    assert changed[:, 0].all() and not changed[:, 1:].any()


def test_label_minus_one_is_a_zero_embedding():
    network = small()
    nothing = call(network, torch.full((3,), -1))
    torch.testing.assert_close(call(network, None), nothing)
    assert not torch.allclose(call(network), nothing)
    network.embed.label.weight.data.zero_()
    torch.testing.assert_close(call(network), nothing)


def test_an_unconditional_network_hears_no_label():
    network = small(class_conditional=False)
    torch.testing.assert_close(call(network), call(network, LABELS.flip(0)))


def test_the_clock_is_heard():
    network = small()
    out = network(images()[:1].expand(3, -1, -1, -1), torch.tensor([0.0, 10.0, 999.0]), Condition())
    assert (out[1:] - out[:1]).abs().amax(dim=(1, 2, 3)).min() > 1e-2


def test_normed_queries_and_keys_ignore_the_scale_of_their_projection():
    torch.manual_seed(0)
    for norm, same in {torch.nn.RMSNorm: True, torch.nn.Identity: False}.items():
        layer, tokens = Attention(8, 2, qk_norm=norm), torch.randn(2, 5, 8)
        before = layer(tokens)
        with torch.no_grad():
            layer.qkv.weight[:16] *= 30  # all of the queries and keys
            layer.qkv.bias[:16] *= 30
        assert torch.allclose(layer(tokens), before, atol=1e-4) is same


def test_bfloat16_agrees_with_float32_also_where_patches_are_hidden():
    network = small()
    for keep in (None, *(Keep(PATCHES, way) for way in Way)):
        expected = call(network, keep=keep)
        with torch.autocast("cpu", torch.bfloat16):
            found = call(network, keep=keep).float()
        torch.testing.assert_close(found, expected, rtol=0.1, atol=0.05 * expected.std().item())


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"patch": 3}, r"network.patch=3 does not divide the image size 8: use one of \[1, 2, 4, 8\]"),
        ({"patch": 0}, "patch=0 does not divide"),
        ({"heads": 3}, r"network.heads=3 does not divide network.width 8: use one of \[1, 2, 4, 8\]"),
        ({"width": 6}, "width=6 a multiple of 4"),
        ({"depth": 0}, "depth=0 must be at least 1"),
        ({"mixer": -1}, "mixer=-1 and decoder=1 must be at least 0"),
        ({"mlp_ratio": 0}, "mlp_ratio=0 above 0"),
    ],
)
def test_a_wrong_argument_is_named_with_its_remedy(changes, message):
    with pytest.raises(UserError, match=message):
        fresh(**changes)
