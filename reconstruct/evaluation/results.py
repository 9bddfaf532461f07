"""Results of an evaluation on disk: rows in Parquet parts, the call that made them, their summary.

A folder of results holds ``rows/part-NNNNNN.parquet``, each written whole or not at all and all rows of an image in one
part, so that the images that a killed run has finished can be read off; ``run.json``, the call, versions and machine;
``summary.json``; and ``thumbnails/`` of the images that the page shows.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import pyarrow
import pyarrow.compute
import pyarrow.parquet
from filelock import FileLock, Timeout

from reconstruct.errors import CallError
from reconstruct.evaluation.check_results import MOST_BYTES, MOST_KEYS, check_rows, check_size, checked_run
from reconstruct.evaluation.perceptual import BACKBONES
from reconstruct.images.atomic import write_atomically
from reconstruct.images.names import file_name, method_part

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
        *(pyarrow.field(name, pyarrow.float64()) for name in BACKBONES),
    ]
)
"""Columns of the rows, one for each image, layer and method. An image that could not be read has one row, with an error
and neither layer nor method. Perceptual measures are null where they were not asked for."""

HUGE = 1e300
"""The number that stands for an infinite PSNR where one interpolates between values."""


class Key(NamedTuple):
    """The model, layer and method that a distribution belongs to; a failure may belong to a model alone."""

    model: str
    layer: str
    method: str


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let nobody else write into the folder meanwhile. A process that is killed lets go of it.

    Raises
    ------
    CallError : another process is writing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise CallError(f"another run is writing into {folder}: wait for it, or give another --output") from None


def begin(folder: Path, run: Mapping[str, Any], chosen: Iterable[int], *, retry: bool = False) -> None:
    """Make a folder of results, or go on with one whose rows the same settings made.

    Parameters
    ----------
    run : the content of ``run.json``: ``settings`` decide the rows; ``sessions`` has this session alone.
    chosen : numbers of the images to evaluate: all that are there already must be among them.
    retry : whether images that failed are tried again.

    Raises
    ------
    CallError : the folder has rows of other settings or other images.
    """
    began: dict[str, Any] = {"sessions": []}
    if (folder / "run.json").exists():
        began = read_run(folder)
        if changes := differences(began.get("settings") or {}, run["settings"]):
            raise CallError(
                f"{folder} holds results of another call: {'; '.join(changes)}. Give another --output, or that call"
            )
        if others := finished(folder) - set(chosen):
            raise CallError(
                f"{folder} holds {len(others)} images that this call does not evaluate (--limit, --sample, --seed): "
                "give another --output"
            )
    elif _parts(folder):
        raise CallError(f"{folder} holds rows and no run.json that tells whose: give another --output")
    for half_written in ("rows/.part-*", "thumbnails/.*.webp.*", ".run.json.*"):
        for left in folder.glob(half_written):
            left.unlink()  # by a run that was killed
    if retry:
        _drop_failures(folder)
    write_json(folder / "run.json", {**run, "sessions": [*(began.get("sessions") or []), *run["sessions"]]})


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In words, which settings are not the same; where the images lie may differ."""
    found = []
    for name in sorted({*before, *now} - {"path"}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new)
        elif old != new:
            found.append(f"{name.replace('_', ' ')} was {_said(old)}, is {_said(new)}")
    return found


def _said(value: Any) -> str:
    return "not given" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def update_session(folder: Path, session: Mapping[str, Any]) -> None:
    """Write down how far this session has come."""
    run = read_run(folder)
    write_json(folder / "run.json", {**run, "sessions": [*(run.get("sessions") or [])[:-1], dict(session)]})


def finished(folder: Path) -> set[int]:
    """Numbers of the images that have rows."""
    return set(read_rows(folder, ["index"])["index"].to_pylist())


def first_error(folder: Path) -> str | None:
    """The first image that failed and its error, None where none failed."""
    rows = read_rows(folder, ["index", "image", "error"])
    failed = rows.filter(rows["error"].is_valid()).slice(0, 1).to_pylist()
    return f"{failed[0]['image']}: {failed[0]['error']}" if failed else None


def write_part(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one more part with these rows, whole or not at all."""
    table = pyarrow.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA)
    numbers = [int(path.stem.removeprefix("part-")) for path in _parts(folder)]
    _write(table, folder / "rows" / f"part-{max(numbers, default=-1) + 1:06d}.parquet")


def read_rows(folder: Path, columns: Sequence[str] | None = None) -> pyarrow.Table:
    """All rows, in the order of their images.

    Raises
    ------
    CallError : a part cannot be read, or holds other columns.
    """
    tables = [_read(path, columns) for path in _parts(folder)]
    table = pyarrow.concat_tables(tables) if tables else _schema(columns).empty_table()
    # A stable sort: an image's rows stay as they were written, layer by layer.
    return table.take(numpy.argsort(table["index"].to_numpy(), kind="stable"))


def _drop_failures(folder: Path) -> None:
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


def _schema(columns: Sequence[str] | None) -> pyarrow.Schema:
    return SCHEMA if columns is None else pyarrow.schema([SCHEMA.field(name) for name in columns])


def _read(path: Path, columns: Sequence[str] | None) -> pyarrow.Table:
    schema = _schema(columns)
    try:
        check_size(path, pyarrow.parquet.read_metadata(path).num_rows)
        # Not by memory map: a part may be replaced while it is read.
        there = pyarrow.parquet.read_schema(path).names
        # Rows of before there were perceptual measures have none.
        lacking = [name for name in schema.names if name in BACKBONES and name not in there]
        names = [name for name in schema.names if name not in lacking]
        table = pyarrow.parquet.read_table(path, columns=names, memory_map=False)
        for name in lacking:
            table = table.append_column(schema.field(name), pyarrow.nulls(len(table), schema.field(name).type))
        table = table.select(schema.names).cast(schema)
        check_rows(path, table)
    except CallError:
        raise
    except Exception as error:  # of a damaged file's columns and types, nearly any
        raise CallError(f"{path} does not hold rows of an evaluation: {error}") from error
    return table


def _write(table: pyarrow.Table, path: Path) -> None:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, compression="zstd")
    write_atomically(path, sink.getvalue().to_pybytes())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, indented, whole or not at all."""
    write_atomically(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_run(folder: Path) -> dict[str, Any]:
    """The content of ``run.json``.

    Raises
    ------
    CallError : the folder holds no results, or its ``run.json`` cannot be read.
    """
    path = folder / "run.json"
    try:
        if path.stat().st_size > MOST_BYTES:
            raise CallError(f"{path} is not what evaluate writes: it has more than {MOST_BYTES:,} bytes")
        run = json.loads(path.read_text())
    except FileNotFoundError:
        raise CallError(f"{folder} holds no results of an evaluation: it has no run.json") from None
    except CallError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise CallError(f"{path} cannot be read: {error}") from error
    return checked_run(path, run)


def by_key(table: pyarrow.Table) -> dict[Key, pyarrow.Table]:
    """The rows of each model, layer and method that succeeded, in the order of their first appearance.

    Raises
    ------
    CallError : there are more than ``MOST_KEYS`` of them.
    """
    found: dict[Key, pyarrow.Table] = {}
    done = table.filter(table["error"].is_null())
    keys = done.group_by(Key._fields, use_threads=False).aggregate([]).to_pylist()
    _check_count(len(keys))
    for row in keys:
        key = Key(**row)
        same = [pyarrow.compute.equal(done[name], value).to_numpy() for name, value in key._asdict().items()]
        found[key] = done.filter(pyarrow.array(numpy.logical_and.reduce(same)))
    return found


def _check_count(keys: int) -> None:
    if keys > MOST_KEYS:
        raise CallError(f"rows of {keys:,} models, layers and methods are no evaluation: at most {MOST_KEYS:,}")


def summarise(table: pyarrow.Table, run: Mapping[str, Any]) -> dict[str, Any]:
    """What ``summary.json`` holds: counts, rates, and the distributions of each model, layer and method.

    ``images_per_second`` is by the clock for the whole run; for a method at a layer it is by its own work in one
    process. Standard deviations are the sample's. A perfect image has an infinite PSNR: ``exact`` counts those, means
    and deviations leave them out, and a percentile that is infinite is null.
    """
    failed = table.filter(table["error"].is_valid())
    failures = Counter(Key(*each) for each in zip(*(failed[name].to_pylist() for name in Key._fields), strict=True))
    unread = sum(count for key, count in failures.items() if key.layer is None)
    keys = by_key(table)
    for key in failures:
        if key.layer is not None:
            keys.setdefault(key, table.schema.empty_table())
    _check_count(len(keys))
    sessions = run.get("sessions") or []
    seconds = sum(session["seconds"] for session in sessions)
    worked = sum(session["images"] for session in sessions)
    return {
        "images": len(set(table["index"].to_pylist())),
        "failed": len(set(failed["index"].to_pylist())),
        "seconds": seconds,
        "images_per_second": worked / seconds if seconds > 1e-9 else None,
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
                **{
                    name: distribution(rows[name].drop_null().to_numpy())
                    for name in BACKBONES
                    if name in rows.column_names and rows[name].null_count < len(rows)
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
    return len(rows) / seconds if seconds > 1e-9 else None


def distribution(values: numpy.ndarray) -> dict[str, float | None]:
    """Mean and sample standard deviation of the finite values; median, 5th and 95th percentile of all.

    NaN is no value: the SSIM of an image that is too small for it.
    """
    values = values[~numpy.isnan(values)]
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
    """Numbers of the images with the lowest PSNR (lowest first), nearest its median, and with the highest (first).

    Parameters
    ----------
    rows : rows of one model, layer and method.
    count : how many images of each kind at most; no image comes twice.
    """
    indices = rows["index"].to_numpy()
    order = indices[numpy.lexsort((indices, rows["psnr"].to_numpy()))].tolist()
    number = len(order)
    if number < 3:
        shown = order if count else []
        return {"worst": shown[:1], "median": [], "best": shown[1:]}
    each = min(count, number // 3)
    middle = (number - each) // 2
    return {
        "worst": order[:each],
        "median": order[middle : middle + each],
        "best": order[number - each :][::-1],
    }


def thumbnail(folder: Path, index: int, layer: str | None = None, method: str | None = None) -> Path:
    """Where the small picture of an image lies, or of its reconstruction."""
    parts = () if layer is None else (layer, method_part(str(method)))
    return folder / "thumbnails" / file_name(str(index), *parts, "webp")
