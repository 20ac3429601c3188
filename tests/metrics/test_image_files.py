"""Images to be judged: read as they are, or refused in one line."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from smallbatch.data.images import to_float
from smallbatch.errors import UserError
from smallbatch.metrics.files import open_images
from smallbatch.notation import ImageSpec

cases = pytest.mark.parametrize


def noise(n=6, size=8, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, channels), dtype=np.uint8)


def npz(path, *arrays, **named):
    np.savez(path / "a.npz", *arrays, **named)
    return path / "a.npz"


def folder(path, images, suffix=".png", **options):
    path.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image.squeeze()).save(path / f"{number:04}{suffix}", **options)
    return path


def refused(path):
    with pytest.raises(UserError) as error:
        open_images(path, "samples")
    assert "\n" not in str(error.value)
    return str(error.value)


def everything(source):
    return source.take(torch.arange(len(source))).pixels.permute(0, 2, 3, 1).numpy()


@cases("channels", [1, 3])
def test_a_file_and_a_folder_hold_the_same_images(channels, tmp_path):
    images = noise(channels=channels)
    for path in (npz(tmp_path, images, np.arange(6)), folder(tmp_path / "f", images)):
        found = open_images(path, "samples")
        assert found.spec == ImageSpec(channels, 8, 0) and found.marks == [] and len(found.source) == 6
        assert np.array_equal(everything(found.source), images)


def test_a_compressed_file_is_the_same(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", noise())
    assert np.array_equal(everything(open_images(tmp_path / "a.npz", "samples").source), noise())


def test_a_folder_is_sorted_by_name_however_deep(tmp_path):
    first, second = noise(n=2)
    folder(tmp_path / "00000", [second])
    folder(tmp_path / "00000" / "0", [first])
    (tmp_path / "notes.txt").write_text("not an image")
    assert np.array_equal(everything(open_images(tmp_path, "samples").source), [first, second])


def test_one_colour_image_makes_all_colour(tmp_path):
    folder(tmp_path, [*noise(n=3, channels=1), noise()[0]])
    found = open_images(tmp_path, "samples")
    assert found.spec.channels == 3
    assert np.array_equal(everything(found.source)[0], noise(n=3, channels=1)[0].repeat(3, axis=2))


def test_lossy_images_are_read_and_marked(tmp_path):
    folder(tmp_path, noise(n=4))
    folder(tmp_path, noise(n=2), ".jpg")
    folder(tmp_path, noise(n=1), ".webp")
    assert open_images(tmp_path, "samples").marks == [
        "2 of 7 images are JPEG, whose artefacts change the distance",
        "1 of 7 images are WebP, whose artefacts change the distance",
    ]


def test_pixels_of_0_and_1_are_marked(tmp_path):
    (mark,) = open_images(npz(tmp_path, noise() // 200), "samples").marks
    assert "no pixel is above 1" in mark
    assert open_images(npz(tmp_path, noise()), "samples").marks == []


def unit():
    return noise() / 255


@cases(
    "broken, restored",
    [
        (unit(), unit()),
        (unit().astype(np.float32), unit()),
        (to_float(torch.from_numpy(noise())).numpy(), unit()),
        (noise().astype(np.float32), unit()),
        (noise().astype(np.int64), unit()),
        (noise() > 128, (noise() > 128) * 1.0),
        (noise().transpose(0, 3, 1, 2), unit()),
        (noise(channels=1)[..., 0], noise(channels=1) / 255),
        (np.concatenate([noise(), noise(channels=1)], axis=3), unit()),
    ],
    ids=["0..1", "float32", "-1..1", "0..255", "int64", "bool", "n,c,h,w", "n,h,w", "rgba"],
)
def test_the_fix_that_is_named_works(broken, restored, tmp_path):
    """What the line names is run as it stands."""
    line = refused(npz(tmp_path, broken))
    fix = re.search(r"\(*images\b.*", line)[0].removesuffix(" makes grey images of it")
    mended = eval(fix, {"images": broken})
    found = open_images(npz(tmp_path, mended), "samples")
    assert np.array_equal(everything(found.source), (restored * 255).round())


@cases(
    "images, line",
    [
        (noise()[:0], "holds no images"),
        (noise()[0, 0, 0], "is not n,h,w,c"),
        (noise()[:, :, :5], "(6, 8, 5, 3): the images must be square"),
        (noise(channels=2), "with 1 or 3 channels"),
        (unit() * 3 - 2, "its values reach from -2 to 1"),
        (noise().astype(complex), "holds complex128, not uint8: save numbers"),
        (noise().astype(str), "not uint8: save numbers"),
        (noise().astype(object), "holds Python objects): copy it or write it"),
    ],
)
def test_other_arrays_are_refused(images, line, tmp_path):
    assert line in refused(npz(tmp_path, images))


@cases("value", [np.nan, np.inf])
def test_images_that_are_not_finite_are_counted(value, tmp_path):
    images = unit()
    images[2:4, 0, 0, 0] = value
    assert "image 2 is not finite, as 2 of 6 are: draw them again" in refused(npz(tmp_path, images))


def test_a_file_with_other_arrays_is_refused(tmp_path):
    assert "samples, labels lack arr_0" in refused(npz(tmp_path, samples=noise(), labels=np.arange(6)))
    assert "mu, sigma are statistics: give them as reference=" in refused(npz(tmp_path, mu=np.ones(3), sigma=np.eye(3)))


@cases("content", [b"", b"PK\x03\x04", b"hello"])
def test_a_file_that_is_no_npz_is_refused(content, tmp_path):
    (tmp_path / "a.npz").write_bytes(content)
    assert "a.npz cannot be read" in refused(tmp_path / "a.npz")


def test_a_truncated_or_damaged_file_is_refused(tmp_path):
    whole = npz(tmp_path, noise(n=50)).read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[:-300])
    assert "a.npz cannot be read" in refused(tmp_path / "a.npz")
    (tmp_path / "a.npz").write_bytes(whole[:500] + bytes(50) + whole[550:])
    assert "a.npz cannot be read" in refused(tmp_path / "a.npz")


def test_an_npy_array_that_was_renamed_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", noise())
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    assert "it is one .npy array" in refused(tmp_path / "a.npz")


def test_a_path_that_is_neither_is_refused(tmp_path):
    assert refused(tmp_path / "nowhere") == (
        f"samples={tmp_path / 'nowhere'} does not exist: give FILE.npz or a folder of PNG files"
    )
    (tmp_path / "a.zip").write_bytes(b"PK")
    assert "a.zip is neither a folder nor FILE.npz: unpack it" in refused(tmp_path / "a.zip")


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    assert "holds no images" in refused(tmp_path)


def test_images_of_several_sizes_are_named(tmp_path):
    folder(tmp_path, noise(n=3))
    Image.fromarray(noise(size=9)[0]).save(tmp_path / "0001.png")
    assert "0000.png is 8x8, 0001.png 9x9: all images must have one size" in refused(tmp_path)
    Image.fromarray(noise(size=9)[0, :5]).save(tmp_path / "0000.png")
    assert "0000.png is 9x5: the images must be square" in refused(tmp_path)


def test_an_image_that_cannot_be_decoded_is_named(tmp_path):
    folder(tmp_path, noise(n=4, size=32))
    whole = (tmp_path / "0002.png").read_bytes()
    (tmp_path / "0002.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cannot decode 0002\.png: repair or remove it") as error:
        everything(open_images(tmp_path, "samples").source)
    assert "\n" not in str(error.value)
    for name in ("0001.png", "0003.png"):
        (tmp_path / name).write_bytes(b"nothing")
    assert "cannot decode 0001.png: repair or remove it (not an image) (and 1 more of 4 images)" in refused(tmp_path)
