"""Print on pictures, by Pillow alone: matplotlib gives its font, and is not imported for that.

A comparison is drawn after every inversion, and to import matplotlib takes longer than to draw it.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from reconstruct.errors import cut
from reconstruct.images.names import escaped, shown

SHORTEST = 8
"""Characters that a text keeps at least, however little room there is."""
NO_CHARACTER = "\uffff"
"""A code point that no font has a sign for."""


@cache
def font(pixels: float, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings and draws with, in a size of so many pixels."""
    matplotlib = find_spec("matplotlib")
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    folder = Path((matplotlib and matplotlib.origin) or "").parent
    path = folder / "mpl-data" / "fonts" / "ttf" / name
    if not path.is_file():  # a system's own matplotlib has its fonts elsewhere, and finds them itself
        from matplotlib.font_manager import FontProperties, findfont

        path = Path(findfont(FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")))
    return ImageFont.truetype(path, pixels, layout_engine=ImageFont.Layout.BASIC)


def write(picture: Image.Image, text: str, centre: float, top: float, room: float, print_: ImageFont.FreeTypeFont,
          colour: str = "black") -> None:  # fmt: skip
    """Write a line of text on a picture; of one that needs more room, in pixels, the middle is left out."""
    ImageDraw.Draw(picture).text((centre, top), fitting(text, room, print_), colour, print_, anchor="ma")


def fitting(text: str, room: float, print_: ImageFont.FreeTypeFont) -> str:
    """The text as it fits into so many pixels: printable, and with signs that the font has."""
    legible = "".join(each if _has(print_, each) else escaped(each) for each in shown(text))
    length = len(legible)
    while length > SHORTEST and print_.getlength(cut(legible, length)) > room:
        length -= 1
    return cut(legible, length)


@cache
def _has(print_: ImageFont.FreeTypeFont, character: str) -> bool:
    """Whether a font has a sign for a character, and would not draw the box that stands for one it lacks."""
    return character.isascii() or _drawn(print_, character) != _drawn(print_, NO_CHARACTER)


def _drawn(print_: ImageFont.FreeTypeFont, character: str) -> bytes:
    side = 2 * round(print_.size)
    picture = Image.new("L", (side, side))
    ImageDraw.Draw(picture).text((side / 4, 0), character, 255, print_)
    return picture.tobytes()
