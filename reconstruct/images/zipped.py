"""The members of a zip archive, and one of them unpacked: each is packed by itself, and read in place."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from reconstruct.images.limits import MOST_UNPACKED

_HEADER = struct.Struct("<26xHH")  # before a member; its name and more follow
_ENCRYPTED = 1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Packed(NamedTuple):
    """How a member is packed: zip's number for it, the bytes unpacked, and their sum."""

    method: int
    size: int
    sum: int


class Member(NamedTuple):
    """A file in an archive: where its header lies, and how many packed bytes follow; or why it cannot be read."""

    name: str
    offset: int
    length: int
    packed: Packed
    refused: str


def members(file: Any) -> Iterator[Member]:
    """The files of an archive that can be sought in, in its own order.

    Raises
    ------
    Exception : over a damaged archive zipfile may raise nearly any.
    """
    with zipfile.ZipFile(file) as archive:
        for each in archive.infolist():
            if each.is_dir():
                continue
            mode = each.external_attr >> 16
            refused = ""
            if stat.S_ISLNK(mode):
                refused = "link"
            elif each.flag_bits & _ENCRYPTED:
                refused = "encrypted"
            elif each.compress_type not in _METHODS:
                refused = "packed in a way that is not read"
            packed = Packed(each.compress_type, each.file_size, each.CRC)
            yield Member(each.filename, each.header_offset, each.compress_size, packed, refused)


def content(file: Any, offset: int, length: int, packed: Packed) -> bytes:
    """A member's bytes.

    Raises
    ------
    OSError : it is damaged, cut off or too large.
    """
    if packed.size > MOST_UNPACKED:
        raise OSError(f"unpacked it has {packed.size:,} bytes, and at most {MOST_UNPACKED:,} are read")
    found = _unpacked(file, offset, length, packed, packed.size + 1)
    if len(found) != packed.size or zlib.crc32(found) != packed.sum:
        raise OSError("its bytes are not those that were packed")
    return found


def head(file: Any, member: Member, size: int) -> bytes:
    """The first bytes of a member; none where it is damaged."""
    try:
        return _unpacked(file, member.offset, min(member.length, 4 * size), member.packed, size)
    except OSError:
        return b""


def _unpacked(file: Any, offset: int, length: int, packed: Packed, most: int) -> bytes:
    file.seek(offset)
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise OSError("it is cut off")
    file.seek(offset + _HEADER.size + sum(_HEADER.unpack(header)))
    if packed.method == zipfile.ZIP_STORED:
        stored: bytes = file.read(min(length, most))
        return stored
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(length), most)
    except zlib.error as error:
        raise OSError(f"it is damaged: {error}") from error
