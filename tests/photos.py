"""A folder of images with captions, as one's own might be."""

import torch
from PIL import Image

from smallbatch.data.shapes import Shapes

COUNT, SIZE = 45, 16


def save_photos(folder):
    drawn = Shapes(batch=1, seed=0, size=SIZE).parts.train
    numbers = torch.arange(COUNT)
    pixels, captions = drawn.take(numbers).pixels.permute(0, 2, 3, 1).numpy(), drawn.captions(numbers)
    for number, (image, caption) in enumerate(zip(pixels, captions, strict=True)):
        Image.fromarray(image).save(folder / f"{number:02}.png")
        (folder / f"{number:02}.txt").write_text(caption)
