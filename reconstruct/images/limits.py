"""How large pictures may be: what is decoded, and what they are resized to."""

from __future__ import annotations

MOST_PIXELS = 1 << 26
"""Pixels of a picture, 8192 x 8192: some 800 MB as float32 in three channels. A file of a hundred bytes may claim any
number, so it is compared before anything is decoded."""

MOST_UNPACKED, MOST_TIMES_UNPACKED = 1 << 28, 100
"""Bytes that a packed file may have unpacked, and how many times its own length, whichever is more: a megabyte of gzip
can hold a gigabyte of zeros."""


def too_large(height: int, width: int) -> str | None:
    """Why a picture of this height and width is not made or read, as the end of a sentence; None where it is."""
    if height * width <= MOST_PIXELS:
        return None
    return f"{height} x {width} is {height * width:,} pixels, and at most {MOST_PIXELS:,} are read at once"
