"""Checks of what a file of the zoo says. A complaint begins with the file's name."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from reconstruct.errors import ModelError
from reconstruct.network.architecture import LARGEST

LONGEST_NAME = 100
"""Characters of a name that stands in names of files."""


def expect(condition: bool, path: Path, complaint: str) -> None:
    """Refuse the file at ``path`` unless the condition holds.

    Raises
    ------
    ModelError : the condition does not hold; the message is the path and the complaint.
    """
    if not condition:
        raise ModelError(f"{path}: {complaint}")


def table_of(value: object, path: Path, complaint: str) -> dict[str, Any]:
    """The value itself, which has to be a table; errors as in ``expect``."""
    if not isinstance(value, dict):
        raise ModelError(f"{path}: {complaint}")
    return value


def hint(word: str, known: Iterable[str]) -> str:
    """The end of a complaint about an unknown word: the nearest known one, or nothing where none is near."""
    near = get_close_matches(word[:LONGEST_NAME], list(known), n=1)
    return f", did you mean '{near[0]}'?" if near else ""


def are_numbers(values: Iterable[object]) -> bool:
    """Whether all values are numbers. True and False are none."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def are_finite(values: Iterable[Any]) -> bool:
    """Whether all values are numbers, and float32 holds what is made of them (``LARGEST``)."""
    values = list(values)
    # A whole number of a file may have a thousand digits, and no float is that large: compared, not converted.
    return are_numbers(values) and all(-LARGEST < value < LARGEST for value in values)


def are_positive(values: Iterable[Any], zero: bool = False) -> bool:
    """Whether all values are numbers above 0 that float32 holds (``LARGEST``); ``zero`` allows 0 as well."""
    values = list(values)
    return are_numbers(values) and all(1 / LARGEST < value < LARGEST or (zero and value == 0) for value in values)


def is_whole(value: object, least: int, most: int = 1 << 40) -> bool:
    """Whether a value is a whole number of ``least`` or above, and no more than ``most``."""
    return type(value) is int and least <= value <= most


def is_there(path: Path) -> bool:
    """Whether there is such a file; a name that is too long for one, or has a zero in it, is nobody's."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
