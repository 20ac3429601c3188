"""One image file, decoded to square pixels of one size."""

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from smallbatch.data.files import Files
from smallbatch.errors import UserError

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # of any name; others may run programs, as EPS does
TURNED = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")  # where an image says how it was held


def decode(files: Files, name: str, channels: int) -> Image.Image:
    try:
        with Image.open(io.BytesIO(files.read(name)), formats=FORMATS) as image:
            return plain(upright(image), "L" if channels == 1 else "RGB")
    except Exception as error:  # a damaged file makes PIL and zipfile raise almost anything
        raise undecodable(files, name, error) from None


def extent_of(files: Files, name: str) -> tuple[int, int]:
    """Width and height as stored, from the head of the file alone."""
    try:
        with files.open(name) as file, Image.open(file, formats=FORMATS) as image:
            return image.size
    except Exception as error:
        raise undecodable(files, name, error) from None


def undecodable(files: Files, name: str, error: Exception) -> UserError:
    if isinstance(error, UserError):
        return error
    reason = "not an image" if isinstance(error, UnidentifiedImageError) else error
    return UserError(f"{files.path}: cannot decode {name}: repair or remove it ({reason})")


def upright(image: Image.Image) -> Image.Image:
    """As it is meant to be seen: a camera notes in EXIF how it was held."""
    if image.format != "TIFF" and not any(key in image.info for key in TURNED):
        return image
    return ImageOps.exif_transpose(image)


def plain(image: Image.Image, mode: str) -> Image.Image:
    """Eight bits a channel; what is transparent shows black."""
    if image.mode == mode and "transparency" not in image.info:
        image.load()
        return image
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose range nobody knows: save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits, also where PIL keeps them in 32
        eight = (np.asarray(image).clip(0, 65535) / 257).round()
        image = Image.fromarray(eight.astype(np.uint8))
    if image.has_transparency_data:
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", above.size, "black"), above).convert("RGB")
    return image.convert(mode)


def shrink(image: Image.Image, size: int) -> Image.Image:
    """Halve while twice too large, bicubic (also up), the middle. Dhariwal & Nichol 2021 (2105.05233), code."""
    if image.size == (size, size):
        return image
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, upper = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, upper, left + size, upper + size))


def said(extent: tuple[int, int]) -> str:
    return f"{extent[0]}x{extent[1]}"
