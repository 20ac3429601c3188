"""How features are kept: what a round trip costs in accuracy, and what it takes on disk."""

import pytest
import torch

from smallbatch.notation import Text, TextSpec
from smallbatch.text.clip import Clip
from smallbatch.text.storage import Float16, Int8, Pooled

CAPTIONS = ["a red cat", "red", "cat left of", "blue"]
ALL = [Float16(), Int8(), Pooled()]


@pytest.fixture
def heard(clip_folder):
    """What a CLIP of random weights hears, on two scales as real ones have them, and a caption that says nothing."""
    encoder = Clip(str(clip_folder), length=12)
    value, mask = encoder.features(encoder.tokens(CAPTIONS))
    scale = torch.where(torch.arange(32) == 5, 20.0, 1.0)
    return Text(value * scale, mask & (torch.arange(4) < 3)[:, None])


def test_float16_is_off_by_its_rounding(heard):
    back = Float16().unpack(Float16().pack(*heard))
    torch.testing.assert_close(back.value, heard.value, rtol=2**-11, atol=2**-25)
    assert torch.equal(back.mask, heard.mask)


def test_int8_is_off_by_half_a_step_at_most_and_has_as_fine_steps_as_it_can(heard):
    arrays = Int8().pack(*heard)
    back = Int8().unpack(arrays)
    step = torch.from_numpy(arrays["step"])[..., None]
    assert ((back.value - heard.value).abs() <= step * (0.5 + 1e-4)).all()
    assert (abs(arrays["features"]).max(axis=2) == 127).all()
    assert torch.equal(back.mask, heard.mask)


def test_int8_keeps_zeros_and_the_features_of_a_small_clip_to_half_a_percent(clip_folder):
    encoder = Clip(str(clip_folder), length=12)
    value, mask = encoder.features(encoder.tokens(CAPTIONS))
    back = Int8().unpack(Int8().pack(value, mask)).value
    assert 1e-3 < (back - value).norm() / value.norm() < 1e-2
    silent = Int8().unpack(Int8().pack(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool)))
    assert torch.equal(silent.value, torch.zeros(2, 3, 4))


def test_pooled_is_the_mean_over_the_real_tokens_and_silence_stays_silent(heard):
    back = Pooled().unpack(Pooled().pack(*heard))
    for row in range(3):
        expected = heard.value[row][heard.mask[row]].mean(dim=0)
        torch.testing.assert_close(back.value[row, 0], expected, rtol=2**-10, atol=1e-6)
    assert back.mask.tolist() == [[True], [True], [True], [False]]
    assert not back.value[3].any()


@pytest.mark.parametrize("storage", ALL, ids=lambda one: type(one).__name__)
def test_bytes_and_spec_are_those_of_what_is_kept(storage, heard):
    arrays = storage.pack(*heard)
    spec = TextSpec(length=12, width=32)
    assert all(len(array) == 4 for array in arrays.values())
    assert sum(array.nbytes for array in arrays.values()) == 4 * storage.bytes(spec)
    back = storage.unpack(arrays)
    assert back.value.shape == (4, storage.spec(spec).length, storage.spec(spec).width)
    assert back.mask.shape == back.value.shape[:2]
    assert back.value.dtype == torch.float32


def test_a_caption_of_the_published_encoder_takes_158_79_or_2_kilobytes():
    assert [one.bytes(TextSpec(length=77, width=1024)) for one in ALL] == [157_773, 79_233, 2_049]


def test_what_float16_cannot_hold_is_no_feature():
    with pytest.raises(AssertionError, match="too large"):
        Float16().pack(torch.full((1, 1, 1), 7e4), torch.ones(1, 1, dtype=torch.bool))
