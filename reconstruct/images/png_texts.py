"""A PNG file without its texts, of which Pillow refuses long ones, sound as the picture may be.

Workflows and scripts of a megabyte are common in them. What may say how the picture is turned is kept.
"""

from __future__ import annotations

import io
import os
import struct
from bisect import bisect_right
from itertools import accumulate
from typing import IO

_PNG = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_ORIENTED = (b"XML:com.adobe.xmp", b"Raw profile type exif")
"""The texts that may say how a picture is turned."""


def without_texts(file: IO[bytes]) -> IO[bytes]:
    """The file without its texts; one that has none, or is no PNG, as it is. Nothing else of it is read yet."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    kept, left_out = [(0, len(_PNG))], False
    at = len(_PNG) if file.read(len(_PNG)) == _PNG else end
    while at < end:
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8).ljust(8, b"\0"))
        following = min(at + length + 12, end)
        if kind in _TEXTS and file.read(80).partition(b"\0")[0] not in _ORIENTED:
            left_out = True
        elif kept[-1][1] == at:
            kept[-1] = (kept[-1][0], following)
        else:
            kept.append((at, following))
        at = following
    file.seek(0)
    return io.BufferedReader(_Parts(file, kept)) if left_out else file


class _Parts(io.RawIOBase):
    """Parts of a file one after the other, each from a place up to another."""

    def __init__(self, file: IO[bytes], parts: list[tuple[int, int]]) -> None:
        self._file, self._parts, self._at = file, parts, 0
        # Where each ends among the parts.
        self._ends = list(accumulate(end - start for start, end in parts))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._ends[-1]}[whence]
        self._at = begin + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        part = bisect_right(self._ends, self._at)
        if part == len(self._ends):
            return 0
        ahead = self._ends[part] - self._at
        self._file.seek(self._parts[part][1] - ahead)
        found = self._file.read(min(ahead, len(buffer)))
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)
