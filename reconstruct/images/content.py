"""What a file holds, by its first bytes: names of files tell what somebody called them. And how much of it is read."""

from __future__ import annotations

import io
import re
from typing import Any, Literal

HEAD = 512
"""How many bytes it takes."""
GZIP, ZIP, EMPTY_ZIP = b"\x1f\x8b", b"PK\x03\x04", b"PK\x05\x06"
Kind = Literal["picture", "tar", "packed", "other"]

_PICTURES = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|II\*\0|MM\0\*|RIFF....WEBP|P[1-6][ \t\r\n]+(#|\d)"
    rb"|BM....\0\0\0\0....[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"
    rb"|....ftyp(avi[fs]|hei[cxms]|hev[cx]|mif1|msf1)",
    re.DOTALL,
)
_PACKED = (GZIP, ZIP, b"BZh", b"\xfd7zXZ\0", b"7z\xbc\xaf\x27\x1c", b"\x28\xb5\x2f\xfd", b"Rar!")
"""Beginnings of what gzip, zip, bzip2, xz, 7-zip, zstd and rar make."""


def kind_of(head: bytes) -> Kind:
    """A picture, a tar archive, an archive that has to be unpacked, or something else.

    Parameters
    ----------
    head : the first ``HEAD`` bytes of the file, or all where it has fewer.
    """
    if _PICTURES.match(head):
        return "picture"
    if head.startswith(_PACKED):
        return "packed"
    return "tar" if _is_tar(head) else "other"


def _is_tar(head: bytes) -> bool:
    """Whether this is a header of tar: its sum, in octal digits, is that of its bytes with the sum blank."""
    digits = head[148:156].split(b"\0")[0].strip()
    if len(head) < HEAD or not digits or not re.fullmatch(rb"[0-7]+", digits):
        return False
    return int(digits, 8) == sum(head) - sum(head[148:156]) + 8 * ord(" ")


class Bounded(io.RawIOBase):
    """A stream that ends in an error after so many bytes, and where it is read on and on behind its end.

    Packed, a gigabyte of zeros takes a megabyte; and tarfile, in a stream, goes to wherever a header says block by
    block.
    """

    def __init__(self, stream: Any, most: int = 1 << 62) -> None:
        self.stream, self.most, self.passed, self.empty = stream, most, 0, 0

    def read(self, size: int = -1) -> bytes:
        content: bytes = self.stream.read(size)
        self.passed += len(content)
        self.empty = 0 if content else self.empty + 1
        if self.passed > self.most:
            raise OSError(f"it has more than {self.most:,} bytes")
        if self.empty > 3:
            raise EOFError("it is shorter than it says")
        return content
