"""The U-Net has the published sizes, starts at zero, and attends as written."""

from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from smallbatch.errors import UserError
from smallbatch.networks.convolutions import SpatialAttention
from smallbatch.networks.layers import Attention, sinusoid
from smallbatch.networks.unet import UNet
from smallbatch.notation import Condition, ImageSpec, Keep, Way

CONF = Path(__file__).parents[2] / "conf"
SMALL = {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention_at": [4], "heads": 2}
LOW_SIZES = {"upsampler_64_256": 64, "upsampler_128_512": 128}
LABELS = torch.tensor([0, -1, 2])


@cache
def configured(name: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose(f"network/{name}").network, _convert_="all")


def small(low_size=None, **changes) -> UNet:
    """A U-Net on 8 x 8 images of 3 classes, with none of its weights at zero."""
    torch.manual_seed(0)
    network = UNet(ImageSpec(3, 8, 3, low_size), 2, **{**SMALL, **changes}).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


def call(network: UNet, label: torch.Tensor | None = LABELS) -> torch.Tensor:
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return network(x, torch.tensor([0.0, 10.0, 999.0]), Condition(label))


@pytest.mark.parametrize(
    "name, size, classes, millions",
    [
        ("unet_imagenet64", 64, 1000, 295.904),
        ("unet_imagenet128", 128, 1000, 421.530),
        ("unet_imagenet256", 256, 1000, 553.838),
        ("unet_imagenet256", 256, 0, 552.814),
        ("unet_imagenet512", 512, 1000, 558.998),
        ("unet_cifar", 32, 10, 52.546),
        ("upsampler_64_256", 256, 1000, 311.796),
        ("upsampler_128_512", 512, 1000, 308.835),
    ],
)
def test_parameters_are_as_many_as_published(name, size, classes, millions):
    with torch.device("meta"):
        network = configured(name)(ImageSpec(3, size, classes, LOW_SIZES.get(name)), 2)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 3) == millions


@pytest.mark.parametrize("name, size", [("unet", 32), ("unet_digits", 16)])
def test_output_is_zero_at_initialisation(name, size):
    network = configured(name)(ImageSpec(1, size, 10), 3, width=32)
    out = network(torch.randn(2, 1, size, size), torch.rand(2), Condition(torch.tensor([3, -1])))
    torch.testing.assert_close(out, torch.zeros(2, 3, size, size))


def test_attention_is_the_identity_at_initialisation():
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(SpatialAttention(8, 2, "qkv_first")(x, torch.randn(2, 5)), x)


def test_label_minus_one_is_a_zero_embedding():
    network = small()
    nothing = call(network, torch.full((3,), -1))
    torch.testing.assert_close(call(network, None), nothing)
    network.embed.label.weight.data.zero_()
    torch.testing.assert_close(call(network), nothing)


def test_forgetting_makes_a_label_minus_one():
    forget = small().forget
    mask = torch.tensor([True, True, False])
    assert forget(Condition(LABELS), mask).label.tolist() == [-1, -1, 2]
    assert forget(Condition(), mask).label is None


def test_an_unconditional_network_hears_no_label():
    network = small(class_conditional=False)
    torch.testing.assert_close(call(network), call(network, LABELS.flip(0)))


def test_an_upsampler_sees_the_small_image_enlarged_four_times():
    network, small_image = small(low_size=2), torch.randn(3, 3, 2, 2, requires_grad=True)
    x, clock = torch.randn(3, 3, 8, 8), torch.rand(3)
    network(x, clock, Condition(LABELS, image=small_image)).square().sum().backward()
    assert small_image.grad.flatten(1).any(dim=1).all() and network.stem.weight.grad.any()
    large = F.interpolate(small_image.detach(), scale_factor=4, mode="bilinear")
    assert torch.equal(network.beside_enlarged(x, small_image), torch.cat([x, large], dim=1))


def test_an_upsampler_without_its_image_is_refused():
    with pytest.raises(AssertionError, match=r"needs Condition.image, \(2, 2\) pixels"):
        call(small(low_size=2))
    with pytest.raises(AssertionError, match=r"low_size=2, but Condition.image is \(3, 3, 4, 4\)"):
        small(low_size=2).beside_enlarged(torch.zeros(3, 3, 8, 8), torch.zeros(3, 3, 4, 4))


@pytest.mark.parametrize("scale_shift", [True, False])
@pytest.mark.parametrize("resample_in_block", [True, False])
def test_every_weight_is_used(scale_shift, resample_in_block):
    network = small(scale_shift=scale_shift, resample_in_block=resample_in_block)
    call(network).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_bfloat16_and_channels_last_agree_with_float32():
    network = small()
    expected = call(network)
    network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(call(network), expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(call(network).float(), expected, rtol=0.1, atol=0.05 * expected.std().item())


def test_the_clock_is_heard_as_cosines_then_sines():
    angle = 7 * 10_000 ** -torch.tensor([0.0, 0.5])
    torch.testing.assert_close(sinusoid(torch.tensor([7.0]), 4)[0], torch.cat([angle.cos(), angle.sin()]))


def attentions(*orders: str) -> list[Attention]:
    torch.manual_seed(0)
    layers = [Attention(8, 2, order) for order in orders]
    for layer in layers:
        torch.nn.init.normal_(layer.qkv.weight)
        torch.nn.init.normal_(layer.out.weight)
    return layers


def test_the_two_head_orders_are_a_permutation_of_the_projection():
    old, new = attentions("heads_first", "qkv_first")
    rows = rearrange(torch.arange(24), "(h s e) -> (s h e)", h=2, s=3)
    new.load_state_dict(old.state_dict())
    tokens = torch.randn(2, 5, 8)
    assert not torch.allclose(new(tokens), old(tokens))
    new.qkv.weight.data, new.qkv.bias.data = old.qkv.weight.data[rows], old.qkv.bias.data[rows]
    torch.testing.assert_close(new(tokens), old(tokens))


def test_attention_is_a_softmax_of_scaled_products():
    (layer,), tokens = attentions("heads_first"), torch.randn(2, 5, 8)
    heads = []
    for qkv in layer.qkv(tokens).split(12, dim=2):
        q, k, v = qkv.split(4, dim=2)
        heads.append((q @ k.mT / 4**0.5).softmax(dim=2) @ v)
    torch.testing.assert_close(layer(tokens), layer.out(torch.cat(heads, dim=2)))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"multipliers": [1, 2, 2, 2, 2]}, "size 8 cannot be halved 4 times: use 16"),
        ({"attention_at": [5]}, r"attention_at=5: .*\[4, 8\]"),
        ({"heads": 3}, "heads=3 does not divide the 16"),
        ({"head_width": 12}, "head_width=12 does not divide the 16 .* use 8"),
        ({"head_order": "new"}, "'new' is not known: use one of heads_first, qkv_first"),
        ({"width": 33}, "width=33 is odd"),
    ],
)
def test_a_wrong_argument_is_named_with_its_remedy(changes, message):
    with pytest.raises(UserError, match=message):
        small(**changes)


def test_a_masked_image_is_refused():
    with pytest.raises(AssertionError, match="sees every pixel"):
        small()(
            torch.randn(1, 3, 8, 8),
            torch.rand(1),
            Condition(),
            keep=Keep(torch.zeros(1, 1, dtype=torch.long), Way.NAIVE),
        )
