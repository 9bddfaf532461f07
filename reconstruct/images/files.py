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
from PIL import Image, UnidentifiedImageError

from reconstruct.errors import CallError, ImageError
from reconstruct.images.atomic import write_atomically
from reconstruct.images.colour import srgb
from reconstruct.images.limits import too_large
from reconstruct.images.names import reason, told
from reconstruct.images.pillow import check_opened, formats, turned, what_it_is
from reconstruct.images.png_texts import without_texts
from reconstruct.images.prepare import prepare
from reconstruct.images.tags import overlap
from reconstruct.network.architecture import Size, as_area
from reconstruct.network.preprocessing import Preprocessing
from reconstruct.network.protocol import AnyNetwork

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm",
    ".pbm", ".pnm", ".avif", ".heic", ".heif",
)  # fmt: skip
"""Endings of the names of picture files, where a folder is searched for them."""
_MODES = {1: "L", 3: "RGB"}
"""Pillow's modes of pictures as they go into networks, by channels."""


def load_image(path: str | Path, size: Size | int | Preprocessing | None = None, channels: int = 3) -> torch.Tensor:
    """Read a picture as 3 x H x W, float32, sRGB in [0, 1]; or as 1 x H x W, its grey (ITU-R 601 luma).

    The camera's rotation (EXIF) and the colour profile are applied; grey, palette, CMYK and 16-bit pictures become
    8-bit RGB, transparency is laid on white, and the first frame of an animation is taken.

    Parameters
    ----------
    path : JPEG, PNG, WebP, TIFF, BMP, GIF or PPM; AVIF and HEIC where Pillow or its plug-in reads them.
    size : height and width, or one number for a square: the largest centred part of that shape is resized to it
        by antialiased bicubic. Or a network's ``preprocessing``, as its publisher does it. None: as large as it is.
    channels : 3, or 1 for a network of grey images.

    Raises
    ------
    ImageError : there is no such file, or it is no picture, damaged, or of more than 67 million pixels.
    CallError : another number of channels, or a size of more pixels than that.

    Warns
    -----
    UserWarning : a colour profile or EXIF is damaged, and is left out.

    Examples
    --------
    >>> import reconstruct, tempfile, torch
    >>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
    ...     reconstruct.save_image(torch.rand(3, 40, 60), file.name)
    ...     image = reconstruct.load_image(file.name, size=32)
    >>> image.shape, image.dtype
    (torch.Size([3, 32, 32]), torch.float32)
    """
    mode = picture_mode(channels, "load_image")
    image = read_image(path).convert(mode)
    return to_tensor(image if size is None else fit(image, size))


def read_image(path: str | Path) -> Image.Image:
    """Read a picture, upright and in 8-bit RGB, at its own size; arguments and errors are those of ``load_image``."""
    with quiet_pillow():
        return decode_file(Path(path))


def decode_file(path: Path) -> Image.Image:
    """``read_image`` for threads, which leaves Pillow's warnings to its caller; see ``quiet_pillow``."""
    name = told(path)
    try:
        if not path.is_file():
            # Only regular files: opening a FIFO would wait for ever.
            what = "is not a file" if path.exists() else "does not exist"
            if path.is_dir():
                what = "is a folder: 'reconstruct evaluate' takes the pictures in it"
            raise ImageError(f"{name} {what}")
        with path.open("rb") as file:
            return decode(file, name)
    except OSError as error:  # a name that is too long, a folder that nobody may look into
        raise ImageError(f"{name} cannot be read: {error.strerror or error}") from error


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings: it warns of much that it then reads without harm, as of pictures of half its limit.

    Python's warning filters belong to the process, and two threads that change them at once leave them wrong. Whoever
    starts threads that decode enters this context around them; the threads do not (``decode_file``).
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        yield


def decode(file: IO[bytes], name: str) -> Image.Image:
    """A picture file's content, upright and in 8-bit RGB, at its own size.

    Raises
    ------
    ImageError : the file is no picture, damaged, or beyond ``MOST_PIXELS``; the message calls it ``name``.
    """
    name = told(name)
    try:
        if overlap(file):
            raise ImageError(f"{name} is a TIFF file whose tags lie over each other, which cannot be")
        with Image.open(without_texts(file), formats=formats()) as image:
            check_opened(image, name)
            image.load()
            upright = turned(image, name)
            colours = srgb(image, name)
            return colours if upright is None else colours.transpose(upright)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        file.seek(0)
        raise ImageError(f"{name} {what_it_is(file.read(64))}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is too large: {error}") from error
    except MemoryError as error:
        raise ImageError(f"{name} is too large for the memory that there is") from error
    except Exception as error:  # Pillow's decoders report broken files by nearly any
        raise ImageError(f"{name} cannot be read: {reason(error)}") from error


def fit(image: Image.Image, size: Size | int | Preprocessing) -> Image.Image:
    """The largest centred part of a shape, resized to it by antialiased bicubic; or as a publisher does it.

    Raises
    ------
    CallError : the shape has no pixels, or more than ``MOST_PIXELS``.
    ImageError : the picture is far longer than wide, and resized as its publisher does it, it would have more.
    """
    if isinstance(size, Preprocessing):
        return prepare(image, size)
    height, width = as_area(size)
    if min(height, width) < 1:
        raise CallError(f"a picture's height and width are at least 1 pixel, not {height} x {width}")
    if why := too_large(height, width):
        raise CallError(f"a picture cannot be resized to that: {why}")
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
    """The part of a picture that goes into a network, resized as asked; grey for a network of grey images.

    Parameters
    ----------
    name : what messages call the picture.
    layers : the layers that are read; the deepest decides how small a picture may be.
    size : side of the centred square, or height and width of the centred part; default the model's own, prepared as
        its publisher does it where that is known.
    native : never resized, trimmed on the right and below to what the strides cover.

    Raises
    ------
    ImageError : the picture is too small for the deepest layer, or far longer than wide.
    CallError : the network takes images of another number of channels than 1 or 3.
    """
    picture = picture.convert(picture_mode(net.channels, net.name))
    deepest = max(layers, key=net.index)
    # Only a chain of the zoo's has split points, and takes their names here.
    chain = net if native or deepest in net.splits else net.as_chain(deepest)
    own, resized = (picture.height, picture.width), net.input_area if size is None else size
    try:
        if chain is not None:
            # Enlarged, a picture below the receptive field would say nothing of the layer.
            chain.shapes(own, deepest)
        else:
            # A module may take images of its own size alone.
            net.shapes(as_area(resized), deepest)
        if native:
            height, width = net.covered_size(own, deepest)
            return picture.crop((0, 0, width, height))
        return fit(picture, net.preprocessing if net.preprocessing is not None and size is None else resized)
    except (CallError, ImageError) as error:
        raise ImageError(f"{name}: {error}") from error


def picture_mode(channels: int, taker: str) -> str:
    """Pillow's mode of pictures that a network takes, ``RGB`` or ``L``.

    Raises
    ------
    CallError : a picture file does not have so many channels; the message calls whoever takes them ``taker``.
    """
    if channels not in _MODES:
        raise CallError(
            f"{taker} takes images of {channels} channels, and a picture file gives 1 or 3: give such images as a "
            "tensor in Python, or their features as --features FILE"
        )
    return _MODES[channels]


def pixels_of(image: Image.Image) -> numpy.ndarray:
    """A picture in 8-bit RGB or grey as H x W x C bytes, C being 3 or 1."""
    return numpy.atleast_3d(numpy.asarray(image))


def to_tensor(image: Image.Image) -> torch.Tensor:
    """8-bit RGB or grey to C x H x W, float32 in [0, 1], C being 3 or 1."""
    return torch.from_numpy(pixels_of(image).transpose(2, 0, 1).copy()).float().div_(255)


def to_pixels(image: torch.Tensor) -> numpy.ndarray:
    """C x H x W to H x W x 3 bytes, clipped to [0, 1]: what ``to_picture`` shows."""
    return numpy.asarray(to_picture(image).convert("RGB"))


def to_picture(image: torch.Tensor) -> Image.Image:
    """C x H x W, clipped to [0, 1], as a picture: RGB of 3 channels, grey of 1.

    Of any other number the channels stand side by side in grey, the first on the left: H x CW.
    """
    clipped = image.detach().cpu().float().nan_to_num(0.0).clamp(0, 1)
    bytes_of = (clipped * 255).round().to(torch.uint8)
    if len(bytes_of) == 3:
        return Image.fromarray(bytes_of.permute(1, 2, 0).numpy())
    return Image.fromarray(torch.cat(list(bytes_of), dim=1).numpy())


def save_image(image: torch.Tensor, path: str | Path) -> None:
    """Write C x H x W in [0, 1] (clipped) as a PNG, whole or not at all.

    Three channels are RGB and one is grey. Of any other number, which no picture has, the channels stand side by side
    in grey, the first on the left.

    Raises
    ------
    CallError : it is not C x H x W.
    OSError : the file cannot be written.

    Examples
    --------
    >>> import reconstruct, tempfile, torch
    >>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
    ...     reconstruct.save_image(torch.full((3, 8, 12), 0.2), file.name)
    ...     round(float(reconstruct.load_image(file.name).mean()), 3)
    0.2
    """
    if image.ndim != 3 or not image.numel():
        shape = " x ".join(map(str, image.shape)) or "a single number"
        raise CallError(f"an image is C x H x W, not {shape}")
    write_png(to_picture(image), Path(path))


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
