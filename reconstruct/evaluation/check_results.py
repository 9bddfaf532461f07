"""What a folder of results may hold: it is sent around, and whoever made it may have made anything of it.

Pages and summaries are made of numbers in their ranges. Everything is checked once, where it is read, and refused in
a sentence that names the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.compute

from reconstruct.errors import CallError

MOST_BYTES = 1 << 26
"""Bytes of a ``run.json``."""
MOST_ROWS = 1 << 20
"""Rows of a part, where its file has fewer bytes: a billion equal rows take a kilobyte."""
MOST_KEYS = 1_000
"""Models, layers and methods of a run, each of which is a row of every chart."""
MOST_PICTURES = 10_000
"""Images of a kind that a page shows."""
_DEEPEST = 12
_MOST_SETTINGS = 20_000
_MEASURES = {
    "psnr": (-1e4, 1e4), "ssim": (-2.0, 2.0), "relative_error": (0.0, 1e60), "feature_residual": (0.0, 1e60),
    "seconds": (0.0, 1e12), "forward_passes": (0.0, 1e15), "prepare_seconds": (0.0, 1e12),
    "prepare_passes": (0.0, 1e15), "noise": (0.0, 1e60), "lpips": (-1e-3, 1e4), "dists": (-1e-3, 2.0),
}  # fmt: skip
"""Between what the finite numbers of a column lie."""
_NEEDED = ("layer", "method", "psnr", "seconds", "forward_passes", "prepare_seconds", "prepare_passes")
"""Columns in which a row without an error has a value, and no NaN."""
_FINITE = ("ssim", "lpips", "dists", "seconds", "forward_passes", "prepare_seconds", "prepare_passes")


def checked_run(path: Path, run: Any) -> dict[str, Any]:
    """The content of a ``run.json``, which lies at this path, if it can be used.

    Raises
    ------
    CallError : it is not what evaluate writes; the message says where.
    """
    if not isinstance(run, dict):
        raise CallError(f"{path} is not what evaluate writes")
    size = _size(run, 0)
    if size > _MOST_SETTINGS:
        raise CallError(f"{path} is not what evaluate writes: it is nested too deeply, or says too much")
    for name in ("settings", "selection", "versions", "machine"):
        if not isinstance(run.get(name), dict | None):
            raise CallError(f"{path} is not what evaluate writes: {name} is no object")
    sessions = run.get("sessions")
    if not isinstance(sessions, list | None) or not all(isinstance(each, dict) for each in sessions or []):
        raise CallError(f"{path} is not what evaluate writes: sessions is no list of objects")
    for session in sessions or []:
        for name in ("seconds", "images"):
            if not _is_count(session.get(name)):
                raise CallError(f"{path} is not what evaluate writes: {name} of a session is a number, 0 or above")
    gallery = run.get("gallery", 0)
    if type(gallery) is not int or not 0 <= gallery <= MOST_PICTURES:
        raise CallError(f"{path} is not what evaluate writes: gallery is a whole number, 0 to {MOST_PICTURES:,}")
    return run


def _size(value: Any, depth: int) -> int:
    """How many values there are in a value; more than any that is meant, where they are nested deeply."""
    if depth > _DEEPEST:
        return _MOST_SETTINGS + 1
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return 1 + sum(_size(each, depth + 1) for each in inside)


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15


def check_size(path: Path, rows: int) -> None:
    """Refuse a part that claims more rows than its file can hold.

    Raises
    ------
    CallError : it does.
    """
    if rows > max(MOST_ROWS, path.stat().st_size):
        raise CallError(f"{path} does not hold rows of an evaluation: it claims {rows:,}")


def check_rows(path: Path, table: pyarrow.Table) -> None:
    """Refuse rows of which nothing can be made, or which are no measurements.

    Parameters
    ----------
    table : rows of the part at ``path``, with all columns or some.

    Raises
    ------
    CallError : a row is one of these; the message says which column.
    """
    table.validate(full=True)
    names = table.schema.names
    for field in table.schema:
        if not field.nullable and table[field.name].null_count:
            raise CallError(f"{path} does not hold rows of an evaluation: a row has no {field.name}")
    if "index" in names and len(table) and pyarrow.compute.min(table["index"]).as_py() < 0:
        raise CallError(f"{path} does not hold rows of an evaluation: an index is below 0")
    for name in set(_MEASURES) & set(names):
        low, high = _MEASURES[name]
        values = table[name].to_numpy()
        finite = values[numpy.isfinite(values)]
        if (len(finite) and not (low <= finite.min() and finite.max() <= high)) or (values == -math.inf).any():
            raise CallError(f"{path} does not hold rows of an evaluation: {name} lies between {low:g} and {high:g}")
    if "error" not in names:
        return
    done = table.filter(table["error"].is_null())
    for name in set(_NEEDED) & set(names):
        column = done[name]
        missing = column.null_count or (pyarrow.types.is_floating(column.type) and numpy.isnan(column.to_numpy()).any())
        if missing:
            raise CallError(f"{path} does not hold rows of an evaluation: a row has neither an error nor its {name}")
    for name in set(_FINITE) & set(names):
        if numpy.isinf(done[name].to_numpy()).any():
            raise CallError(f"{path} does not hold rows of an evaluation: {name} is infinite")
