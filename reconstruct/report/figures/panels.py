"""Pictures side by side with captions: an original and its reconstructions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from PIL import Image

from reconstruct.images.files import to_pixels
from reconstruct.report.figures.lettering import font, write

CAPTION_PIXELS = 40
GAP_PIXELS = 10
NARROWEST_PIXELS = 150
"""Images smaller than this are magnified by a whole factor, so that captions fit and pixels stay square."""
WIDEST_PIXELS = 2048
"""Images with a longer side than this are reduced by a whole factor, so that a figure of many fits into memory."""

ERRORS = (0.002, 0.5)
"""Expected errors that are drawn black and white, in the image's scale of [0, 1]; between them by their logarithm."""


DIFFERENCE = 5
"""How many times larger differences from the original are drawn than they are."""

TITLE_PIXELS, DETAIL_PIXELS = 12.5, 11.8
"""Sizes of a caption's two lines."""


@dataclass(frozen=True)
class Panel:
    """One picture of a comparison.

    Attributes
    ----------
    image : C x H x W in [0, 1], drawn as ``images.files.to_picture`` shows it.
    title, detail : the two lines below it: what it is, and how good.
    """

    image: torch.Tensor
    title: str
    detail: str = ""


def quality_caption(psnr: float, ssim: float | None) -> str:
    """How good a reconstruction is, as it stands below the picture: PSNR in dB, and SSIM where there is one."""
    return f"{psnr:.1f} dB" if ssim is None or math.isnan(ssim) else f"{psnr:.1f} dB, SSIM {ssim:.3f}"


def error_panel(error: torch.Tensor, title: str) -> Panel:
    """The expected error of an image, 1 x H x W, as a picture: dark where it is small, on one scale for all images.

    Its mean stands below, and in brackets what is drawn black and white.
    """
    from matplotlib import colormaps

    low, high = ERRORS
    share = (error[0].clamp(low, high) / low).log() / math.log(high / low)
    colours = colormaps["magma"](share.cpu().numpy())[..., :3].astype(numpy.float32)
    detail = f"mean {float(error.mean()):.2g} ({low:g} to {high:g})"
    return Panel(torch.from_numpy(colours).movedim(-1, 0), title, detail)


def difference_panel(original: torch.Tensor, image: torch.Tensor, title: str) -> Panel:
    """How a reconstruction differs from the original, both C x H x W, in each channel, enlarged: black where equal."""
    difference = DIFFERENCE * (image.detach().cpu().clamp(0, 1) - original.detach().cpu()).abs()
    return Panel(difference.clamp(0, 1), title, f"|difference| x {DIFFERENCE}")


def comparison(original: Panel | None, rows: Sequence[Sequence[Panel | None]]) -> Image.Image:
    """The original beside its reconstructions, a row a method, a column a layer, as in Figure 5 of Shang et al. 2016.

    ``original`` : None where nobody has it. The reconstructions then stand alone, in one column fewer.
    """
    if original is None:
        return panels(rows)
    return panels([[None if down else original, *row] for down, row in enumerate(rows)])


def panels(rows: Sequence[Sequence[Panel | None]]) -> Image.Image:
    """Rows of pictures of one size with their captions; None leaves a place free.

    Every picture is drawn pixel for pixel, or magnified by a whole factor where it is small, or reduced by one where it
    is large.
    """
    drawings = [[None if panel is None else _reduced(to_pixels(panel.image)) for panel in row] for row in rows]
    height, width, _ = next(pixels.shape for row in drawings for pixels in row if pixels is not None)
    # Channels side by side are each as large as a picture would be.
    alone = next(panel.image.shape[2] for row in rows for panel in row if panel is not None)
    scale = max(1, -(-NARROWEST_PIXELS // alone))
    cell_width, cell_height = width * scale + GAP_PIXELS, height * scale + CAPTION_PIXELS + GAP_PIXELS
    columns = max(len(row) for row in rows)
    full_width, full_height = columns * cell_width + GAP_PIXELS, len(rows) * cell_height + GAP_PIXELS
    page = Image.new("RGB", (full_width, full_height), "white")
    title_font, detail_font = font(TITLE_PIXELS, bold=True), font(DETAIL_PIXELS)
    for down, (row, own) in enumerate(zip(rows, drawings, strict=True)):
        for right, (panel, drawing) in enumerate(zip(row, own, strict=True)):
            if panel is None or drawing is None:
                continue
            left, top = right * cell_width + GAP_PIXELS, down * cell_height + GAP_PIXELS
            pixels = drawing.repeat(scale, axis=0).repeat(scale, axis=1)
            page.paste(Image.fromarray(pixels), (left, top))
            below, centre = top + height * scale, left + width * scale / 2
            write(page, panel.title, centre, below + 4, width * scale, title_font)
            write(page, panel.detail, centre, below + 22, width * scale, detail_font, "#333333")
    return page


def _reduced(pixels: numpy.ndarray) -> numpy.ndarray:
    """H x W x 3 bytes with no side above ``WIDEST_PIXELS``: means of squares of a whole factor's side."""
    factor = -(-max(pixels.shape[:2]) // WIDEST_PIXELS)
    return pixels if factor == 1 else numpy.asarray(Image.fromarray(pixels).reduce(factor))
