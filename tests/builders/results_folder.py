"""Folders of results that tests of reports read: synthetic rows and pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet
from PIL import Image

from reconstruct.evaluation import results

HOSTILE = ["<script>alert(1)</script>.jpg", "\"onload='alert(1)' x=\".png", "画像 bäd\u202e.png", "n" * 3000 + ".jpg"]


def run_json(**changes: Any) -> dict[str, Any]:
    """What evaluate writes beside rows."""
    return {
        "call": "reconstruct evaluate pictures --model small --layer all --output results",
        "settings": {
            "source": {"path": "pictures", "kind": "folder", "images": 40, "digest": "ab12"},
            "model": {"name": "small", "source": "Table 4", "weights": "small.safetensors", "digest": "cd34"},
            "methods": {"conv1": ["linear", "map"], "conv2": ["linear", "map"]},
            "size": 32,
            "options": {"damping": "auto", "budget": None, "seed": 0},
        },
        "selection": {"limit": None, "sample": None, "seed": 0, "images": 40},
        "trained_on": "1,305 pictures & nothing else",
        "versions": {"reconstruct": "0.1.0", "python": "3.11.7"},
        "machine": {"system": "Linux", "cores": 2, "gpu": None},
        "sessions": [
            {
                "started": "2026-11-24T13:20:00+00:00", "engine": "local", "workers": 2, "batch_size": 8,
                "device": "cpu", "images": 30, "seconds": 30.0, "finished": False,
            },
            {
                "started": "2026-11-24T14:20:00+00:00", "engine": "local", "workers": 2, "batch_size": 8,
                "device": "cpu", "images": 10, "seconds": 10.0, "finished": True,
            },
        ],
    } | changes  # fmt: skip


def row(index: int, layer: str | None, method: str | None, **changes: Any) -> dict[str, Any]:
    """One row: 25 dB unless something else is said."""
    return {
        "index": index, "image": f"{index:05d}.jpg", "model": "small", "layer": layer, "method": method, "psnr": 25.0,
        "ssim": 0.75, "relative_error": 0.1, "feature_residual": 0.01, "status": "converged", "seconds": 0.1,
        "forward_passes": 30.0, "prepare_seconds": 0.0, "prepare_passes": 0.0, "device": "cpu",
    } | changes  # fmt: skip


def failure(index: int, error: str, **changes: Any) -> dict[str, Any]:
    """The row of an image that could not be read."""
    return {"index": index, "image": f"{index:05d}.jpg", "model": "small", "error": error} | changes


def random_rows(
    count: int, layers: Sequence[str], methods: Sequence[str], seed: int, names: Mapping[int, str] | None = None
) -> list[dict[str, Any]]:
    """Rows of every image, layer and method: PSNR near 25 dB, and lower deeper."""
    random = numpy.random.default_rng(seed)
    found = []
    for index in range(count):
        name = (names or {}).get(index, f"{index:05d}.jpg")
        for deep, layer in enumerate(layers):
            for number, method in enumerate(methods):
                psnr, ssim = float(random.normal(25 - deep, 3)), float(random.uniform(0.4, 1))
                preparing = 100.0 * (index == 0) * (deep + 1)
                found.append(
                    row(
                        index, layer, method, image=name, psnr=psnr, ssim=ssim, prepare_passes=preparing,
                        forward_passes=3.0 + 50 * number, status="budget" if index % 3 == 0 else "converged",
                    )
                )  # fmt: skip
    return found


def save(folder: Path, rows: Sequence[Mapping[str, Any]], **changes: Any) -> Path:
    """A folder with these rows in two parts."""
    results.write_json(folder / "run.json", run_json(**changes))
    middle = rows[len(rows) // 2]["index"] if rows else 0
    results.write_part(folder, [each for each in rows if each["index"] < middle])
    results.write_part(folder, [each for each in rows if each["index"] >= middle])
    return folder


def picture(path: Path, seed: int, side: int = 32) -> None:
    """A thumbnail that no other seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = numpy.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype="uint8")
    Image.fromarray(pixels).resize((side, side)).save(path, lossless=True)


def add_thumbnails(folder: Path, count: int = 4, side: int = 32) -> None:
    """The pictures that evaluate keeps."""
    rows = results.by_key(results.read_rows(folder))
    for number, (key, table) in enumerate(rows.items()):
        for index in {each for group in results.gallery(table, count).values() for each in group}:
            picture(results.thumbnail(folder, index), index, side)
            picture(results.thumbnail(folder, index, key.layer, key.method), 10_000 * (number + 1) + index, side)


def save_many(folder: Path, count: int, layers: Sequence[str], methods: Sequence[str]) -> Path:
    """Rows of very many images, column by column: one by one they would take longer than what reads them."""
    random = numpy.random.default_rng(0)
    results.write_json(folder / "run.json", run_json())
    tables = []
    for layer in layers:
        for method in methods:
            columns: dict[str, Any] = {
                field.name: numpy.full(count, 0.1) for field in results.SCHEMA if field.type == pyarrow.float64()
            }
            columns |= {"index": numpy.arange(count), "image": [f"{i:08d}.jpg" for i in range(count)]}
            columns |= dict.fromkeys(("device", "output", "error"), pyarrow.nulls(count, pyarrow.string()))
            columns |= {"model": ["small"] * count, "layer": [layer] * count, "method": [method] * count}
            columns |= {"status": ["converged"] * count, "psnr": random.normal(25, 3, count)}
            tables.append(pyarrow.table(columns, schema=results.SCHEMA))
    (folder / "rows").mkdir()
    pyarrow.parquet.write_table(pyarrow.concat_tables(tables), folder / "rows" / "part-000000.parquet")
    return folder
