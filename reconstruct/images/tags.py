"""How many bytes the tags of TIFF files and of EXIF claim, counted before Pillow copies each tag's."""

from __future__ import annotations

import os
import struct
from typing import IO

_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a number of each type."""
_DIRECTORIES = (0x8769, 0x8825, 0xA005)
"""Tags that say where further tags are: of EXIF, GPS and interoperability."""
_SLACK = 1 << 16


def overlap(file: IO[bytes]) -> bool:
    """Whether the tags of a TIFF file, or of EXIF, hold more bytes than it has: some lie over each other, to no use.

    A thousand tags of the same megabyte would take a gigabyte. Other files have no tags.
    """
    end = file.seek(0, os.SEEK_END)
    try:
        return _claimed(file, end) > end + _SLACK
    except struct.error:  # cut off, as Pillow will say
        return False
    finally:
        file.seek(0)


def _claimed(file: IO[bytes], end: int) -> int:
    file.seek(0)
    head = file.read(16)
    if head[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return 0
    order = "<" if head[:2] == b"II" else ">"
    # BigTIFF has eight bytes where TIFF has four.
    count, entry, start = ("Q", "HHQQ", 8) if b"+" in head[:4] else ("H", "HHII", 4)
    (first,) = struct.unpack_from(f"{order}{entry[-1]}", head, start)
    total, waiting, seen = 0, [first], set()
    while waiting:
        place = waiting.pop()
        if place in seen or place >= end:
            continue
        seen.add(place)
        file.seek(place)
        (number,) = struct.unpack(order + count, file.read(struct.calcsize(order + count)))
        width = struct.calcsize(order + entry)
        table = file.read(min(number * width, end))
        for tag, kind, length, value in struct.iter_unpack(order + entry, table[: len(table) // width * width]):
            total += min(_BYTES.get(kind, 0) * length, end)
            if tag in _DIRECTORIES:
                waiting.append(value)
    return total
