"""Folders of results that tests make pages of."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
from PIL import Image

from reconstruct import results
from tests.test_results import failure, row

KEYS = [(layer, method) for layer in ("conv1", "conv2") for method in ("linear", "map")]
RUN: dict[str, Any] = {
    "call": "reconstruct evaluate val --model crelu_conv1_4 --output results",
    "settings": {
        "source": {"path": "val", "kind": "folder", "images": 30, "digest": "x"},
        "model": {"name": "crelu_conv1_4", "source": "Table 4", "weights": "w.safetensors", "digest": "y"},
        "methods": {"conv1": ["linear", "map"]},
        "size": 227,
        "options": {"budget": None},
    },
    "selection": {"limit": None, "sample": None, "seed": 0, "images": 30},
    "gallery": 2,
    "trained_on": "1,305 pictures. Not ImageNet.",
    "versions": {"torch": "2.13.0"},
    "machine": {"cores": 2, "gpu": None},
    "sessions": [
        {
            "started": "2026-11-24T13:20:00+00:00", "engine": "local", "workers": 2, "batch_size": 8, "device": "cpu",
            "images": 30, "seconds": 60.0, "finished": True,
        }
    ],
}  # fmt: skip


def values(count: int, keys: Sequence[tuple[str, str]] = KEYS, seed: int = 0) -> dict[tuple[str, str], numpy.ndarray]:
    """PSNR of each image at each layer by each method."""
    draw = numpy.random.default_rng(seed)
    return {key: draw.normal(40 - 5 * number, 4, count) for number, key in enumerate(keys)}


def made(
    folder: Path, psnr: dict[tuple[str, str], numpy.ndarray], *, names: Sequence[str] | None = None,
    errors: Sequence[dict[str, Any]] = (), thumbnails: bool = True, run: dict[str, Any] = RUN,
) -> Path:  # fmt: skip
    """A folder of results with these rows, failures after them, and thumbnails of the gallery."""
    count = len(next(iter(psnr.values()))) if psnr else 0
    named = [f"{number:05d}.png" for number in range(count)] if names is None else names
    rows = [
        row(
            index, float(psnr[layer, method][index]), layer=layer, method=method, image=named[index],
            ssim=float(min(1.0, abs(psnr[layer, method][index]) / 60)), prepare_passes=40.0 if index == 0 else 0.0,
        )
        for index in range(count)
        for layer, method in psnr
    ]  # fmt: skip
    rows += [failure(count + number, **{"image": f"bad{number}"} | error) for number, error in enumerate(errors)]
    for start in range(0, max(1, len(rows)), 100_000):
        results.write_part(folder, rows[start : start + 100_000])
    results.write_json(folder / "run.json", run)
    if thumbnails:
        draw = numpy.random.default_rng(3)
        for key, table in results.by_key(results.read_rows(folder)).items():
            for group in results.gallery(table, run.get("gallery", 4)).values():
                for index in group:
                    for place in (results.thumbnail(folder, index), results.thumbnail(folder, index, *key[1:])):
                        place.parent.mkdir(exist_ok=True)
                        buffer = io.BytesIO()
                        pixels = draw.integers(0, 256, (28, 28, 3), dtype=numpy.uint8)
                        Image.fromarray(pixels).resize((224, 224)).save(buffer, "WEBP", quality=80)
                        place.write_bytes(buffer.getvalue())
    return folder
