"""What training writes beside its networks in JSON, read as a file that somebody else may have written."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from reconstruct.errors import CallError, words_of

MOST_BYTES = 1 << 24
MOST_FOLDS = 1_000_000


Content = TypeVar("Content")


def read_record(path: Path, meant: Callable[[Any], Content], advice: str = "") -> Content:
    """What ``meant`` makes of the JSON in a file.

    Parameters
    ----------
    meant : raises ValueError, KeyError, TypeError or OverflowError where the content is not what was written.
    advice : the end of the message, as ``delete it``.

    Raises
    ------
    CallError : the file cannot be read, is no JSON or holds something else.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        return meant(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else words_of(error)
        raise CallError(f"{path} cannot be read: {reason}{f'; {advice}' if advice else ''}") from error


def a_number(value: Any) -> float:
    """A finite number as a float.

    Raises
    ------
    ValueError, TypeError, OverflowError : it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(number := float(value)):
        raise ValueError(f"{str(value)[:60]} is no finite number")
    return number


def a_count(value: Any, most: int) -> int:
    """A whole number from 0 to ``most``.

    Raises
    ------
    ValueError : it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"{str(value)[:60]} is no whole number from 0 to {most:,}")
    return value
