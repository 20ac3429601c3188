"""Pictures of images."""

import numpy as np
import torch

from smallbatch.pictures import GROUND, stacked


def test_what_the_parts_show_of_an_image_stands_in_one_column():
    parts = [
        torch.arange(100 * k, 100 * k + 3, dtype=torch.uint8).reshape(3, 1, 1, 1).expand(3, 1, 6, 6) for k in (0, 1)
    ]
    pixels = np.asarray(stacked(parts, columns=2))
    scale = pixels.shape[1] // 14
    assert pixels[:: 7 * scale, :: 7 * scale].tolist() == [[0, 1], [100, 101], [2, GROUND], [102, GROUND]]
