import io

import numpy as np
import pytest
from PIL import Image

from smallbatch.data import decode
from smallbatch.data.files import open_files
from smallbatch.errors import UserError

ramp = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def saved(image: Image.Image, suffix: str = "png") -> Image.Image:
    """As it comes back from disk."""
    file = io.BytesIO()
    image.save(file, suffix)
    return Image.open(file)


def test_an_image_of_the_right_size_is_not_touched():
    image = Image.fromarray(ramp)
    assert decode.shrink(image, 8) is image


def test_twice_the_size_is_one_box_average():
    noise = np.random.default_rng(0).integers(0, 256, (16, 16)).astype(np.uint8)
    means = noise.reshape(8, 2, 8, 2).mean(axis=(1, 3))
    shrunk = np.asarray(decode.shrink(Image.fromarray(noise), 8))
    assert np.abs(shrunk - means).max() <= 1  # PIL rounds after each axis


def test_shrinking_follows_the_published_rule():
    noise = np.random.default_rng(0).integers(0, 256, (45, 70, 3)).astype(np.uint8)
    box, bicubic = Image.Resampling.BOX, Image.Resampling.BICUBIC
    halved = Image.fromarray(noise).resize((35, 22), box).resize((17, 11), box)
    expected = halved.resize((15, 10), bicubic).crop((2, 0, 12, 10))
    assert np.array_equal(np.asarray(decode.shrink(Image.fromarray(noise), 10)), np.asarray(expected))


@pytest.mark.parametrize(("width", "height"), [(8, 8), (9, 8), (8, 31), (17, 16), (33, 100), (64, 11)])
def test_every_shape_becomes_the_square_asked_for(width, height):
    assert decode.shrink(Image.new("RGB", (width, height)), 8).size == (8, 8)


def test_what_is_transparent_shows_black():
    clear = Image.new("RGBA", (2, 1), (255, 255, 255, 0))
    clear.putpixel((1, 0), (200, 100, 50, 255))
    assert np.asarray(decode.plain(saved(clear), "RGB")).tolist() == [[[0, 0, 0], [200, 100, 50]]]


def test_sixteen_bit_grey_keeps_its_range():
    deep = Image.fromarray(ramp.astype(np.uint16) * 257)
    assert np.array_equal(np.asarray(decode.plain(saved(deep), "L")), ramp)
    assert np.array_equal(np.asarray(decode.plain(saved(deep), "RGB"))[..., 0], ramp)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("wanted", ["L", "RGB"])
def test_every_mode_shows_the_same_picture(mode, wanted):
    stripes = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert(mode)
    seen = np.asarray(decode.plain(saved(stripes, "tiff"), wanted))
    assert seen.reshape(2, 2, -1)[..., 0].tolist() == [[0, 255], [255, 0]]


def test_a_palette_with_a_transparent_entry_shows_it_black():
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    file = io.BytesIO()
    palette.save(file, "png", transparency=0)
    assert np.asarray(decode.plain(Image.open(file), "RGB")).tolist() == [[[0, 0, 0], [0, 255, 0]]]


def turned(image, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, suffix, exif=exif)
    return Image.open(io.BytesIO(file.getvalue()))


@pytest.mark.parametrize("suffix", ["png", "tiff", "webp", "jpeg"])
@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_an_image_is_seen_as_the_camera_was_held(suffix, orientation, turn):
    picture = np.zeros((16, 8, 3), np.uint8)
    picture[:8] = (240, 240, 240)  # bright above, dark below
    options = turned(Image.fromarray(np.rot90(picture, -turn).copy()), suffix, orientation)
    seen = np.asarray(decode.plain(decode.upright(options), "RGB")).astype(int)
    assert seen.shape == picture.shape and np.abs(seen - picture).max() < 12


def test_cmyk_and_sixteen_bit_colour_files_keep_their_colours(tmp_path):
    red = Image.new("RGB", (8, 8), (250, 5, 5))
    red.convert("CMYK").save(tmp_path / "a.jpg")
    deep = np.full((8, 8), 250 * 257, np.uint16)
    Image.fromarray(deep).save(tmp_path / "b.png")
    files = open_files(str(tmp_path))
    assert np.abs(np.asarray(decode.decode(files, "a.jpg", 3)).astype(int) - [250, 5, 5]).max() < 12
    assert (np.asarray(decode.decode(files, "b.png", 3)) == 250).all()


def test_an_animation_shows_its_first_picture(tmp_path):
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert np.asarray(decode.decode(open_files(str(tmp_path)), "a.gif", 3))[0, 0].tolist() == [255, 0, 0]


def test_pixels_without_a_known_range_are_refused(tmp_path):
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(tmp_path / "a.tiff")
    with pytest.raises(UserError, match=r"cannot decode a\.tiff.*whose range nobody knows: save it with 8 or 16 bits"):
        decode.decode(open_files(str(tmp_path)), "a.tiff", 3)


def test_the_head_of_a_file_tells_its_extent(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-100])
    assert decode.extent_of(open_files(str(tmp_path)), "a.jpg") == (30, 20)
