"""A decoded picture's colours: 8-bit sRGB of whatever mode and colour profile it has."""

from __future__ import annotations

import io
import warnings

import numpy
from PIL import Image, ImageCms

from reconstruct.errors import ImageError, ReconstructWarning
from reconstruct.images.names import reason

PHOTOMETRIC, BITS = 262, 258
"""Tags of TIFF: whether 0 is white, and how many bits a number has."""

_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
"""Pillow's modes by the colour space that a profile is for."""
_LAYERED = ("RGBA", "LA", "PA", "RGBa")


def srgb(image: Image.Image, name: str) -> Image.Image:
    """The picture in 8-bit RGB, its colour profile applied, transparency laid on white.

    A profile that cannot be used is warned of, and the picture's numbers are then taken as sRGB.

    Raises
    ------
    ImageError : its numbers are floating point, or whole ones beyond 16 bits.
    """
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        image = _eight_bit(image, name)
    if image.mode == "F":
        raise ImageError(f"{name} holds floating-point values, whose range is anybody's guess; save it as 8 or 16 bit")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode not in _LAYERED and "transparency" not in image.info:
        return _converted(image, profile, name)
    layered = image.convert("RGBA")
    colours = image.convert("L") if image.mode == "LA" else layered.convert("RGB")
    white = Image.new("RGB", image.size, "white")
    white.paste(_converted(colours, profile, name), mask=layered.getchannel("A"))
    return white


def _eight_bit(image: Image.Image, name: str) -> Image.Image:
    """A grey picture of whole numbers, which 16 bits hold, in 8 bits."""
    values = numpy.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ImageError(f"{name} holds whole numbers from {low} to {high}; 0 to 65535 (16-bit) can be shown")
    tags = getattr(image, "tag_v2", {})
    most = 4095 if tags.get(BITS) == (12,) else 65535
    scaled = ((values.astype(numpy.uint32) * 255 + most // 2) // most).astype(numpy.uint8)
    # Pillow turns 8-bit pictures whose 0 is white, and leaves deeper ones as they are.
    return Image.fromarray(255 - scaled if tags.get(PHOTOMETRIC) == 0 else scaled)


def _converted(image: Image.Image, profile: bytes | None, name: str) -> Image.Image:
    """A picture without transparency in 8-bit RGB; without a profile its numbers are sRGB already."""
    if image.mode == "LAB":
        return _through(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    if profile:
        try:
            given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            space = given.profile.xcolor_space.strip()
            wanted = _SPACES[space]
            if wanted == "RGB" and image.mode != "CMYK":
                image = image.convert("RGB")
            elif image.mode in ("1", "P") and wanted == "L":
                image = image.convert("L")
            if image.mode != wanted:
                raise ValueError(f"it is for {space}, and the picture is {image.mode}")
            return _through(image, given)
        except Exception as error:  # a damaged profile may raise nearly any
            why = f"{name} has a colour profile that cannot be used ({reason(error)}): its numbers are taken as sRGB"
            warnings.warn(why, ReconstructWarning, stacklevel=2)
    return image.convert("RGB")


def _through(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    turned = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert turned is not None
    return turned
