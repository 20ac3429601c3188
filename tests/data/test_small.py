import numpy as np
import pytest
import torch
from PIL import Image
from small_files import draw, pack

from smallbatch.data.images import enlarged, shrunk
from smallbatch.data.small import small_images
from smallbatch.errors import UserError


def grey(path, values):
    Image.fromarray(np.array(values, np.uint8)).save(path)


def test_every_small_pixel_is_the_mean_of_its_area():
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(shrunk(x, 4), x.unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean(dim=(3, 5)))


def test_enlarging_keeps_what_is_even_and_stays_in_range():
    x = torch.full((1, 1, 2, 2), 0.3)
    for how in ("nearest", "bilinear", "bicubic"):
        assert torch.allclose(enlarged(x, 8, how), torch.tensor(0.3))
    assert enlarged(torch.tensor([[[[-1.0, 1.0], [1.0, 1.0]]]]), 8, "bicubic").abs().max() <= 1


def test_images_of_the_size_are_taken_as_they_are_and_of_larger_ones_the_middle_is_shrunk(tmp_path):
    grey(tmp_path / "a.png", [[0, 50], [100, 200]])
    grey(tmp_path / "b.png", [[9, 10, 30, 2, 4, 9], [9, 20, 40, 6, 8, 9], [9, 0, 0, 8, 8, 9], [9, 4, 4, 8, 8, 9]])
    found = small_images(str(tmp_path), 2, 1, "images")
    assert found.pixels.tolist() == [[[[0, 50], [100, 200]]], [[[25, 5], [2, 8]]]] and found.larger == 1


def test_a_folder_its_zip_and_its_files_one_by_one_are_the_same_images(tmp_path):
    for number in range(3):
        draw(tmp_path / "images" / f"{number}.png", number)
    packed = pack(tmp_path / "images", tmp_path / "images.zip")
    whole = small_images(str(tmp_path / "images"), 4, 3, "images")
    assert torch.equal(whole.pixels, small_images(str(packed), 4, 3, "images").pixels) and whole.larger == 3
    alone = [small_images(str(tmp_path / "images" / f"{number}.png"), 4, 3, "images").pixels for number in range(3)]
    assert torch.equal(whole.pixels, torch.cat(alone))


def test_one_line_says_what_is_wrong_with_the_images(tmp_path):
    def refused(path, size=4):
        with pytest.raises(UserError) as error:
            small_images(str(path), size, 3, "images")
        return str(error.value)

    assert "images=nowhere does not exist" in refused("nowhere")
    assert f"images={tmp_path} holds no images" in refused(tmp_path)
    draw(tmp_path / "a.png", 0)
    draw(tmp_path / "b.png", 0, (9, 3))
    assert "b.png is 9x3, smaller than the 4x4 that this run enlarges" in refused(tmp_path)
    assert "(and 1 more of 2 images)" in refused(tmp_path, 10)
