"""What Pillow is told before and after it opens a file: formats, limits, and what it would else do wrong or aloud."""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import warnings
from functools import cache
from importlib import import_module
from importlib.util import find_spec

from PIL import Image, ImageFile, features

from reconstruct.errors import ImageError, ReconstructWarning
from reconstruct.extras import install_hint
from reconstruct.images.limits import MOST_PIXELS, too_large
from reconstruct.images.names import reason
from reconstruct.images.tags import overlap

# Decoders for pictures only: Pillow would also hand an EPS file to Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")

_BEGINNINGS = {
    b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"RIFF": "WebP", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"GIF8": "GIF",
    b"BM": "BMP",
}  # fmt: skip
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_PLANES = {"RGB": "RGB", "RGBA": "RGBA", "CMYK": "CMYK", "I;16": "I", "I;16B": "I"}
"""Modes of TIFF files whose channels may lie one after the other, and what libtiff gives of them."""
_ORIENTATION = 0x0112
_PLANAR, _EXTRA, _TILE_WIDTH, _TILE_LENGTH = 284, 338, 322, 323
"""Tags of TIFF."""


# Without a handler of the user's, Python would write what Pillow logs of damaged files to standard error.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@cache
def formats() -> tuple[str, ...]:
    """The formats that are read here: ``FORMATS``, and what this Pillow and its plug-ins can besides."""
    found = list(FORMATS)
    if find_spec("PIL.AvifImagePlugin") is not None and features.check("avif"):
        found.append("AVIF")
    if find_spec("pillow_heif") is not None:
        import pillow_heif

        pillow_heif.register_heif_opener()
        found.append("HEIF")
    return tuple(found)


def what_it_is(head: bytes) -> str:
    """What a file is that no decoder here takes, by its first bytes, as the end of a sentence."""
    if head[4:8] == b"ftyp":
        brands = [head[start : start + 4] for start in (8, *range(16, len(head), 4))]
        if any(each in brands for each in (b"avif", b"avis")):
            if "AVIF" in formats():
                return _damaged("an AVIF")
            return "is an AVIF picture, which Pillow 11.3 or newer reads: pip install --upgrade pillow"
        if any(each in brands for each in _HEIC_BRANDS):
            if "HEIF" in formats():
                return _damaged("a HEIC")
            return f"is a HEIC picture, which the package pillow-heif reads: {install_hint('heic')}"
    for begins, kind in _BEGINNINGS.items():
        if head.startswith(begins):
            return _damaged(f"a {kind}")
    return f"is not a picture in {', '.join(FORMATS)}"


def _damaged(kind: str) -> str:
    return f"begins as {kind} file does, and what follows is damaged, or of a kind that Pillow does not read"


def check_opened(image: ImageFile.ImageFile, name: str) -> None:
    """Refuse what would take too much to decode, and put right what Pillow would read wrongly; nothing is decoded yet.

    Raises
    ------
    ImageError : the picture, or a tile of it, has more than ``MOST_PIXELS``.
    """
    if why := too_large(image.height, image.width):
        raise ImageError(f"{name} is too large: {why}")
    if image.format == "TIFF":
        _check_tiff(image, name)


def _check_tiff(image: ImageFile.ImageFile, name: str) -> None:
    hush_libtiff()
    tags = image.tag_v2  # type: ignore[attr-defined]
    sides = [tags.get(tag, 1) for tag in (_TILE_WIDTH, _TILE_LENGTH)]
    if not all(isinstance(side, int) for side in sides) or sides[0] * sides[1] > MOST_PIXELS:
        raise ImageError(f"{name} is cut into tiles of {sides[1]} x {sides[0]} pixels, which cannot be")
    tile = image.tile[0] if image.tile else None
    deep = tags.get(258, (1,))[0] == 16
    if tile is not None and tile[0] == "raw" and deep and tags.get(_PLANAR) == 2 and image.mode in _PLANES:
        # Pillow takes the two bytes of a number for two pixels, or refuses them; its libtiff does not.
        mode = "RGBa" if image.mode == "RGBA" and tags.get(_EXTRA) == (1,) else _PLANES[image.mode]
        box = (0, 0, tags[256], tags[257])
        image.tile = [ImageFile._Tile("libtiff", box, 0, (f"{mode};16N", "raw", False, tags.offset))]
        image.use_load_libtiff = True  # type: ignore[attr-defined]


@cache
def hush_libtiff() -> None:
    """Keep libtiff from writing about damaged files to standard error, past Python, in this process.

    Pillow says by its exceptions what matters. Where its libtiff cannot be reached, as on Windows, it goes on writing.
    """
    with contextlib.suppress(OSError, AttributeError):
        # Pillow's own library, by which those that it was linked with are found.
        library = ctypes.CDLL(import_module("PIL._imaging").__file__)
        for what in (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler):
            what.argtypes, what.restype = [ctypes.c_void_p], ctypes.c_void_p
            what(None)


def turned(image: Image.Image, name: str) -> Image.Transpose | None:
    """How a decoded picture has to be turned to stand upright, by its EXIF; None where it does already.

    EXIF that cannot be read is warned of: the picture beside it is sound, and stays as it lies.
    """
    try:
        if overlap(io.BytesIO(_exif_of(image).removeprefix(b"Exif\0\0"))):
            raise ValueError("its tags lie over each other")
        said = image.getexif().get(_ORIENTATION, 1)
    except Exception as error:  # damaged EXIF may raise nearly any
        said_why = f"{name} has EXIF that cannot be read ({reason(error)}): it is taken as it lies"
        warnings.warn(said_why, ReconstructWarning, stacklevel=2)
        return None
    return _TURNS.get(said) if isinstance(said, int) else None


def _exif_of(image: Image.Image) -> bytes:
    """A picture's EXIF as ``getexif`` takes it: PNG has it as text, too."""
    text: str | None = image.info.get("Raw profile type exif")
    found: bytes = bytes.fromhex("".join(text.split("\n")[3:])) if text else b""
    return image.info.get("exif") or found


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each of EXIF's orientations."""
