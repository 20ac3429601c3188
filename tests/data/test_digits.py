import pytest
import torch

from smallbatch.data.digits import Digits
from smallbatch.errors import UserError
from smallbatch.notation import ImageSpec


def digits(size=8):
    return Digits(batch=8, seed=0, size=size)


def test_the_parts_share_no_image_and_lose_none():
    data = digits(16)
    stores = data.train_store, data.held_out_store
    train, held_out = ({image.numpy().tobytes() for image in store.pixels} for store in stores)
    assert len(data.train_store) + len(data.held_out_store) == 1797
    assert not train & held_out


def test_fifteen_percent_of_every_class_is_held_out():
    data = digits()
    held_out, train = data.held_out_store.labels.bincount(), data.train_store.labels.bincount()
    share = held_out / (held_out + train)
    torch.testing.assert_close(share, torch.full((10,), 0.15), atol=0.005, rtol=0)


def test_the_split_does_not_depend_on_the_seed():
    one, other = Digits(batch=8, seed=0), Digits(batch=8, seed=1)
    assert torch.equal(one.held_out_store.pixels, other.held_out_store.pixels)
    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize("size", [8, 16, 24])
def test_digits_are_bright_on_dark_and_fill_the_frame(size):
    data = digits(size)
    pixels, edge = data.train_store.pixels.float(), size // 8
    assert data.spec == ImageSpec(1, size, 10)
    assert pixels.shape[1:] == (1, size, size)
    assert pixels.max() == 255 and pixels.min() == 0
    assert pixels[..., :, :edge].mean() < 20 and pixels[..., :, -edge:].mean() < 20
    assert pixels.amax(dim=(1, 2, 3)).min() > 200
    assert (pixels[..., :edge, :].amax(dim=(1, 2, 3)) > 64).float().mean() > 0.95
    assert (pixels[..., -edge:, :].amax(dim=(1, 2, 3)) > 64).float().mean() > 0.95


def test_enlarged_digits_keep_their_ink():
    small, large = (digits(size).train_store.pixels.float().mean(dim=(1, 2, 3)) for size in (8, 16))
    torch.testing.assert_close(small, large, atol=3, rtol=0.05)


def test_the_fingerprint_follows_the_pixels():
    assert digits(8).fingerprint == digits(8).fingerprint != digits(16).fingerprint


def test_a_size_that_is_no_multiple_of_eight_is_refused():
    with pytest.raises(UserError, match=r"data\.size=12"):
        digits(12)
