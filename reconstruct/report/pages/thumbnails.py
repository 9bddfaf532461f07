"""Thumbnails in a report: which are shown, each embedded once, never more than fit."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

MOST_CHARACTERS = 3_300_000
"""How many characters all pictures of a page may be, as the page holds them."""
SMALL = 100
"""Pictures narrower than this are shown with square pixels."""


@dataclass(frozen=True)
class Picture:
    """A thumbnail: its name in the page, its size in pixels, and its bytes as a data URI."""

    name: str
    width: int
    height: int
    data: str

    @property
    def small(self) -> bool:
        """Whether it is so small that its pixels should stay square."""
        return self.width < SMALL


class Album:
    """The pictures of a page; whatever shows one refers to it by name."""

    def __init__(self, most: int = MOST_CHARACTERS) -> None:
        self.left = most
        self._read: dict[Path, Picture | None] = {}
        self._taken: dict[str, Picture] = {}

    @property
    def pictures(self) -> list[Picture]:
        """The pictures that were taken, in that order."""
        return list(self._taken.values())

    def find(self, path: Path) -> Picture | None:
        """The picture in a file; None where there is none, or none that can be shown."""
        if path not in self._read:
            self._read[path] = _picture(path, f"p{len(self._read)}")
        return self._read[path]

    def take(self, pictures: Iterable[Picture]) -> bool:
        """Embed these, all or none: False if they do not fit."""
        new = {each.name: each for each in pictures if each.name not in self._taken}
        needed = sum(len(each.data) for each in new.values())
        if needed > self.left:
            return False
        self.left -= needed
        self._taken |= new
        return True


def _picture(path: Path, name: str) -> Picture | None:
    try:
        if not path.is_file() or path.stat().st_size > MOST_CHARACTERS:
            return None
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=("WEBP", "PNG", "JPEG")) as image:
            (width, height), kind = image.size, image.get_format_mimetype()
    except Exception:  # Pillow may raise nearly any over a broken file
        return None
    return Picture(name, width, height, f"data:{kind};base64,{base64.b64encode(content).decode()}")
