"""How large images and texts may be that somebody else's file describes: room is made for them before they are seen."""

from smallbatch.notation import ImageSpec, TextSpec

LARGEST = ImageSpec(channels=64, size=4096, classes=1_000_000)
LARGEST_TEXT = TextSpec(length=4096, words=1_000_000, width=16_384)


def believed(spec: ImageSpec) -> ImageSpec:
    """ValueError where it makes no sense."""
    for name, least in {"channels": 1, "size": 1, "classes": 0}.items():
        value, most = getattr(spec, name), getattr(LARGEST, name)
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"spec.{name}={value} must lie in {least}..{most}")
    if type(spec.latents) is not bool:
        raise ValueError(f"spec.latents={spec.latents} must be true or false")
    if spec.low_size is not None and (type(spec.low_size) is not int or not 1 <= spec.low_size < spec.size):
        raise ValueError(f"spec.low_size={spec.low_size} must lie in 1..{spec.size - 1}")
    if spec.text is not None and not (believed_text(spec.text)):
        raise ValueError(f"spec.text={spec.text} must be whole numbers, none below 0 or too large")
    return spec


def believed_text(text: TextSpec) -> bool:
    return all(type(value) is int and 0 <= value <= most for value, most in zip(text, LARGEST_TEXT, strict=True))
