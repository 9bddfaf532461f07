"""Results of an evaluation on disk: rows in Parquet parts, the call that made them, their summary.

A folder of results holds ``rows/part-NNNNNN.parquet``, each written whole or not at all and all rows of an image in one
part, so that the images that a killed run has finished can be read off; ``run.json``, the call, versions and machine;
``summary.json``; and ``thumbnails/`` of the images that the page shows.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from reconstruct.errors import CallError
from reconstruct.files import write_atomically

SCHEMA = pyarrow.schema(
    [
        pyarrow.field("index", pyarrow.int64(), nullable=False),
        pyarrow.field("image", pyarrow.string(), nullable=False),
        pyarrow.field("model", pyarrow.string(), nullable=False),
        *(pyarrow.field(name, pyarrow.string()) for name in ("layer", "method")),
        *(pyarrow.field(name, pyarrow.float64()) for name in ("psnr", "ssim", "relative_error", "feature_residual")),
        pyarrow.field("status", pyarrow.string()),
        *(
            pyarrow.field(name, pyarrow.float64())
            for name in ("seconds", "forward_passes", "prepare_seconds", "prepare_passes", "noise")
        ),
        *(pyarrow.field(name, pyarrow.string()) for name in ("device", "output", "error")),
    ]
)
"""A row an image, layer and method; an image that could not be read has one row, with neither, and ``error``."""

HUGE = 1e300
"""Stands for an infinite PSNR where values are interpolated between."""


class Key(NamedTuple):
    """What a distribution is of; a failure may be of a model alone."""

    model: str
    layer: str
    method: str


def write_part(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One more part with these rows, whole or not at all."""
    table = pyarrow.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA)
    numbers = [int(path.stem.removeprefix("part-")) for path in _parts(folder)]
    _write(table, folder / "rows" / f"part-{max(numbers, default=-1) + 1:06d}.parquet")


def read_rows(folder: Path, columns: Sequence[str] | None = None) -> pyarrow.Table:
    """All rows, in the order of their images.

    Raises
    ------
    CallError : a part that cannot be read, or holds other columns.
    """
    tables = [_read(path, columns) for path in _parts(folder)]
    schema = SCHEMA if columns is None else pyarrow.schema([SCHEMA.field(name) for name in columns])
    table = pyarrow.concat_tables(tables) if tables else schema.empty_table()
    # A stable sort: an image's rows stay as they were written, layer by layer.
    return table.take(numpy.argsort(table["index"].to_numpy(), kind="stable"))


def drop_failures(folder: Path) -> None:
    """Take the rows of images that failed out of the parts, so that a run tries them again."""
    for path in _parts(folder):
        table = _read(path, None)
        errors = table["error"].is_valid().to_numpy()
        kept = table.filter(~numpy.isin(table["index"].to_numpy(), table["index"].to_numpy()[errors]))
        if not len(kept):
            path.unlink()
        elif len(kept) < len(table):
            _write(kept, path)


def _parts(folder: Path) -> list[Path]:
    return sorted((folder / "rows").glob("part-[0-9]*.parquet"))


def _read(path: Path, columns: Sequence[str] | None) -> pyarrow.Table:
    try:
        # Not by memory map: a part may be replaced while it is read.
        table = pyarrow.parquet.read_table(path, memory_map=False)
        return table.select(SCHEMA.names if columns is None else list(columns)).cast(
            SCHEMA if columns is None else pyarrow.schema([SCHEMA.field(name) for name in columns])
        )
    except (pyarrow.ArrowException, OSError, KeyError, ValueError) as error:
        raise CallError(f"{path} does not hold rows of an evaluation: {error}") from error


def _write(table: pyarrow.Table, path: Path) -> None:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, compression="zstd")
    write_atomically(path, sink.getvalue().to_pybytes())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Indented, whole or not at all."""
    write_atomically(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_run(folder: Path) -> dict[str, Any]:
    """``run.json``.

    Raises
    ------
    CallError : the folder holds no results.
    """
    path = folder / "run.json"
    try:
        run = json.loads(path.read_text())
    except FileNotFoundError:
        raise CallError(f"{folder} holds no results of an evaluation: it has no run.json") from None
    except (OSError, ValueError) as error:
        raise CallError(f"{path} cannot be read: {error}") from error
    if not isinstance(run, dict):
        raise CallError(f"{path} is not what evaluate writes")
    return run


def by_key(table: pyarrow.Table) -> dict[Key, pyarrow.Table]:
    """The rows of each model, layer and method that succeeded, in the order of their first appearance."""
    found: dict[Key, pyarrow.Table] = {}
    done = table.filter(table["error"].is_null())
    for row in done.group_by(Key._fields, use_threads=False).aggregate([]).to_pylist():
        key = Key(**row)
        same = [pyarrow.compute.equal(done[name], value).to_numpy() for name, value in key._asdict().items()]
        found[key] = done.filter(pyarrow.array(numpy.logical_and.reduce(same)))
    return found


def summarise(table: pyarrow.Table, run: Mapping[str, Any]) -> dict[str, Any]:
    """What ``summary.json`` holds: counts, rates, and of each model, layer and method the distributions.

    ``images_per_second``: of the whole run, by the clock; of a method at a layer, by its own work in one process.
    Standard deviations are the sample's. A perfect image has an infinite PSNR: ``exact`` counts those, means and
    deviations leave them out, and a percentile that is infinite is null.
    """
    failed = table.filter(table["error"].is_valid())
    failures = Counter(Key(*each) for each in zip(*(failed[name].to_pylist() for name in Key._fields), strict=True))
    unread = sum(count for key, count in failures.items() if key.layer is None)
    keys = by_key(table)
    for key in failures:
        if key.layer is not None:
            keys.setdefault(key, table.schema.empty_table())
    seconds = sum(session["seconds"] for session in run["sessions"])
    worked = sum(session["images"] for session in run["sessions"])
    return {
        "images": len(set(table["index"].to_pylist())),
        "failed": len(set(failed["index"].to_pylist())),
        "seconds": seconds,
        "images_per_second": worked / seconds if seconds else None,
        "results": [
            {
                **key._asdict(),
                "count": len(rows),
                "failures": unread + failures[key],
                "exact": int(numpy.isinf(rows["psnr"].to_numpy()).sum()),
                **{
                    name: distribution(rows[name].to_numpy())
                    for name in ("psnr", "ssim", "relative_error", "feature_residual", "forward_passes")
                },
                "status": dict(Counter(rows["status"].to_pylist())),
                "seconds": float(numpy.mean(rows["seconds"])) if len(rows) else None,
                "prepare_seconds": float(numpy.sum(rows["prepare_seconds"])),
                "prepare_passes": float(numpy.sum(rows["prepare_passes"])),
                "images_per_second": _rate(rows),
            }
            for key, rows in keys.items()
        ],
    }


def _rate(rows: pyarrow.Table) -> float | None:
    seconds = float(numpy.sum(rows["seconds"]))
    return len(rows) / seconds if seconds else None


def distribution(values: numpy.ndarray) -> dict[str, float | None]:
    """Mean and sample standard deviation of the finite values; median, 5th and 95th percentile of all."""
    finite = values[numpy.isfinite(values)]
    found = {
        "mean": float(finite.mean()) if len(finite) else None,
        "std": float(finite.std(ddof=1)) if len(finite) > 1 else None,
    }
    for name, share in (("median", 0.5), ("p5", 0.05), ("p95", 0.95)):
        value = float(numpy.quantile(numpy.minimum(values, HUGE), share)) if len(values) else math.inf
        found[name] = value if value < HUGE * 1e-6 else None
    return found


def gallery(rows: pyarrow.Table, count: int) -> dict[str, list[int]]:
    """Indices of the images with the lowest PSNR (lowest first), nearest its median, and with the highest (first).

    ``rows`` are of one model, layer and method; up to ``count`` images each, and no image twice.
    """
    indices = rows["index"].to_numpy()
    order = indices[numpy.lexsort((indices, rows["psnr"].to_numpy()))].tolist()
    number = len(order)
    if number < 3:
        return {"worst": order[:1], "median": [], "best": order[1:]}
    each = min(count, number // 3)
    middle = (number - each) // 2
    return {
        "worst": order[:each],
        "median": order[middle : middle + each],
        "best": order[number - each :][::-1],
    }


def thumbnail(folder: Path, index: int, layer: str | None = None, method: str | None = None) -> Path:
    """Where the small picture of an image lies, or of its reconstruction."""
    name = f"{index}" if layer is None else f"{index}.{layer}.{method}"
    return folder / "thumbnails" / f"{name}.webp"
