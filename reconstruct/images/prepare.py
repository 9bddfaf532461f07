"""Pictures as published weights want them: resized and cut as torchvision and timm do it."""

from __future__ import annotations

from PIL import Image

from reconstruct.errors import ImageError
from reconstruct.images.limits import too_large
from reconstruct.network.preprocessing import Preprocessing


def prepare(image: Image.Image, how: Preprocessing) -> Image.Image:
    """The middle square of a picture that has been resized, pixel for pixel what the publisher's own code gives.

    Their rounding, too: the longer side is rounded down, and half a pixel of the crop's place to the even one. What is
    cut out of a smaller picture is black around it.

    Raises
    ------
    ImageError : resized like this the picture would have more than ``MOST_PIXELS``: it is far longer than wide.
    """
    wide, tall = image.size
    if how.squashed:
        wide = tall = how.resize
    elif wide <= tall:
        wide, tall = how.resize, int(how.resize * tall / wide)
    else:
        wide, tall = int(how.resize * wide / tall), how.resize
    if why := too_large(tall, wide):
        raise ImageError(f"it cannot be resized as {how.stated_by} asks: {why}")
    if (wide, tall) != image.size:
        image = image.resize((wide, tall), Image.Resampling[how.interpolation.upper()])
    left, top = _middle(wide, how.size), _middle(tall, how.size)
    return image.crop((left, top, left + how.size, top + how.size))


def _middle(length: int, size: int) -> int:
    """Where the middle part of a side begins; before the side itself if that is the shorter."""
    return round((length - size) / 2) if length >= size else -((size - length) // 2)
