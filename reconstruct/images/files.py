"""Images in and out: any ordinary picture file to a float tensor in [0, 1], and back to a PNG."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from reconstruct.errors import CallError, ImageError
from reconstruct.images.atomic import write_atomically
from reconstruct.images.prepare import prepare
from reconstruct.network.architecture import Size
from reconstruct.network.preprocessing import Preprocessing
from reconstruct.network.protocol import AnyNetwork

# Decoders for pictures only: Pillow would also hand an EPS file to Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm")
"""Endings of the names of picture files, where a folder is searched for them."""


def load_image(path: str | Path, size: Size | int | Preprocessing | None = None) -> torch.Tensor:
    """Read a picture as 3 x H x W, float32, sRGB in [0, 1].

    The camera's rotation (EXIF) is applied; grey, palette, CMYK and 16-bit pictures become 8-bit RGB, transparency is
    laid on white, and the first frame of an animation is taken.

    Parameters
    ----------
    path : JPEG, PNG, WebP, TIFF, BMP, GIF or PPM.
    size : height and width, or one number for a square: the largest centred part of that shape is resized to it
        by antialiased bicubic. Or a network's ``preprocessing``, as its publisher does it. None: as large as it is.

    Raises
    ------
    ImageError : there is no such file, or it is no picture, truncated, or beyond Pillow's limit on pixels (about 179
        million).

    Examples
    --------
    >>> import reconstruct, tempfile, torch
    >>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
    ...     reconstruct.save_image(torch.rand(3, 40, 60), file.name)
    ...     image = reconstruct.load_image(file.name, size=32)
    >>> image.shape, image.dtype
    (torch.Size([3, 32, 32]), torch.float32)
    """
    image = read_image(path)
    return to_tensor(image if size is None else fit(image, size))


def read_image(path: str | Path) -> Image.Image:
    """Read a picture, upright and in 8-bit RGB, at its own size; arguments and errors are those of ``load_image``."""
    with quiet_pillow():
        return decode_file(Path(path))


def decode_file(path: Path) -> Image.Image:
    """``read_image`` for threads, which leaves Pillow's warnings to its caller; see ``quiet_pillow``."""
    if not path.is_file():
        # Only regular files: opening a FIFO would wait for ever.
        what = "is not a file" if path.exists() else "does not exist"
        raise ImageError(f"{path} {what}")
    return decode(path, str(path))


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings: it warns of much that it then reads without harm, as of pictures of half its limit.

    Python's warning filters belong to the process, and two threads that change them at once leave them wrong. Whoever
    starts threads that decode enters this context around them; the threads do not (``decode_file``).
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        yield


def decode(file: Path | IO[bytes], name: str) -> Image.Image:
    """A picture file's content, upright and in 8-bit RGB, at its own size.

    Raises
    ------
    ImageError : the file is no picture, truncated, or beyond Pillow's limit on pixels; the message calls it ``name``.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            upright = ImageOps.exif_transpose(image)
            return _rgb(upright, name)
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not a picture in {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is too large: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        # Pillow's decoders report broken files by all of these.
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{name} cannot be read: {error}") from error


def _rgb(image: Image.Image, name: str) -> Image.Image:
    mode = image.mode
    if mode.startswith("I"):
        values = numpy.asarray(image)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise ImageError(f"{name} holds whole numbers from {low} to {high}; 0 to 65535 (16-bit) can be shown")
        return Image.fromarray(((values.astype(numpy.uint32) + 128) // 257).astype(numpy.uint8)).convert("RGB")
    if mode == "F":
        raise ImageError(f"{name} holds floating-point values, whose range is anybody's guess; save it as 8 or 16 bit")
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return image.convert("RGB")


def fit(image: Image.Image, size: Size | int | Preprocessing) -> Image.Image:
    """The largest centred part of a shape, resized to it by antialiased bicubic; or as a publisher does it."""
    if isinstance(size, Preprocessing):
        return prepare(image, size)
    height, width = (size, size) if isinstance(size, int) else size
    # Whole pixels: a crop at half a pixel would blur a picture that needs no resizing.
    tall = min(image.height, max(1, round(image.width * height / width)))
    wide = min(image.width, max(1, round(image.height * width / height)))
    left, top = (image.width - wide) // 2, (image.height - tall) // 2
    part = image.crop((left, top, left + wide, top + tall))
    return part if part.size == (width, height) else part.resize((width, height), Image.Resampling.BICUBIC)


def model_input(
    picture: Image.Image,
    name: str,
    net: AnyNetwork,
    layers: Sequence[str],
    size: Size | int | None,
    native: bool,
) -> Image.Image:
    """The part of a picture that goes into a network, resized as asked.

    Parameters
    ----------
    name : what messages call the picture.
    layers : the layers that are read; the deepest decides how small a picture may be.
    size : side of the centred square, or height and width of the centred part; default the model's own, prepared as
        its publisher does it where that is known.
    native : never resized, trimmed on the right and below to what the strides cover.

    Raises
    ------
    ImageError : the picture is too small for the deepest layer.
    """
    area = (picture.height, picture.width)
    deepest = max(layers, key=net.index)
    try:
        net.shapes(area, deepest)
    except CallError as error:
        raise ImageError(f"{name}: {error}") from error
    if native:
        height, width = net.covered_size(area, deepest)
        return picture.crop((0, 0, width, height))
    return fit(picture, (net.preprocessing or net.input_size) if size is None else size)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """8-bit RGB to 3 x H x W, float32 in [0, 1]."""
    values = numpy.asarray(image, dtype=numpy.float32) / 255
    return torch.from_numpy(values.transpose(2, 0, 1).copy())


def to_pixels(image: torch.Tensor) -> numpy.ndarray:
    """3 x H x W to H x W x 3 bytes, clipped to [0, 1]."""
    clipped = image.detach().cpu().float().nan_to_num(0.0).clamp(0, 1)
    pixels: numpy.ndarray = (clipped * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return pixels


def save_image(image: torch.Tensor, path: str | Path) -> None:
    """Write 3 x H x W in [0, 1] (clipped) as a PNG, whole or not at all.

    Raises
    ------
    OSError : the file cannot be written.

    Examples
    --------
    >>> import reconstruct, tempfile, torch
    >>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
    ...     reconstruct.save_image(torch.full((3, 8, 12), 0.2), file.name)
    ...     round(float(reconstruct.load_image(file.name).mean()), 3)
    0.2
    """
    write_png(Image.fromarray(to_pixels(image)), Path(path))


def webp(image: Image.Image) -> bytes:
    """A picture file for the eye: small, not exact."""
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=80, method=4)
    return buffer.getvalue()


def write_png(image: Image.Image, path: Path) -> None:
    """Write a picture as a PNG, whole or not at all."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    write_atomically(path, buffer.getvalue())
