"""Evaluation of image sets: what is done with a batch, and the engine of one machine.

``evaluate_batch`` turns a batch of images into rows, one an image, layer and method. An engine yields the rows of one
batch after another: ``local`` here, and ``cluster.on_ray``, which calls the same functions on other machines.
``evaluate`` writes them down so that a run may be killed at any moment and goes on where it was.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image

from reconstruct.errors import ReconstructError
from reconstruct.evaluation import results
from reconstruct.images.atomic import write_atomically
from reconstruct.images.files import model_input, quiet_pillow, to_pixels, webp
from reconstruct.images.quality import quality
from reconstruct.images.sources import Source
from reconstruct.inversion.disturb import disturb
from reconstruct.inversion.invert import invert
from reconstruct.inversion.result import Result
from reconstruct.network.architecture import Architecture, Size
from reconstruct.network.network import Network
from reconstruct.network.read_points import Point, point
from reconstruct.operators import arrays

FAILURES = (ReconstructError, MemoryError, RuntimeError, ArithmeticError, numpy.linalg.LinAlgError)
"""What the inversion of one image may end in (torch says RuntimeError for want of memory); anything else is a fault."""

CPU_PIXELS = 450_000
"""Of the images inverted together on a CPU: eight of 227 x 227. More are no faster, fewer lose a third."""

GPU_PIXELS = 8 * CPU_PIXELS
"""On a GPU, where memory allows. Never measured."""

COPIES = 12
"""Times the values of an image and all its features that a method holds: measured 0.6 (linear, conv4 of the default
model) to 9.6 (gradient, conv1 of a small one)."""

SHARE = 0.4
"""Of the memory, for a batch."""

THUMBNAIL = 224

Rows = list[dict[str, Any]]
Batches = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Item:
    """An image of a set: H x W x 3 bytes as they go in, or the reason why there are none."""

    index: int
    name: str
    pixels: numpy.ndarray | None
    error: str | None = None


@dataclass(frozen=True)
class Job:
    """What is done with every image; it can be sent to another process.

    Attributes
    ----------
    methods : those that are run at each layer or split point, by name (``taps.point``).
    size, native : see ``images.model_input``.
    options : of ``inversion.invert``.
    disturbance : of the features, ``inversion.disturb``'s arguments.
    pixels : of the images inverted together, at most.
    thumbnails : small pictures go with the rows: ``original`` and ``reconstruction``, WebP files.
    tap : what is read of every layer; None: what its own activation gives.
    """

    methods: Mapping[str, Sequence[str]]
    size: int | None = None
    native: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    disturbance: Mapping[str, Any] = field(default_factory=dict)
    pixels: int = CPU_PIXELS
    thumbnails: bool = False
    tap: str | None = None


def read(source: Source, indices: Sequence[int], architecture: Architecture, job: Job) -> list[Item]:
    """Images of a source as they go into the network; those that cannot say why."""
    items = []
    for index in indices:
        name = source.names[index]
        try:
            picture = source.picture(index)
            fitted = model_input(picture, name, architecture, list(job.methods), job.size, job.native)
            items.append(Item(index, name, numpy.asarray(fitted)))
        except ReconstructError as error:
            items.append(Item(index, name, None, str(error)))
        except Exception as error:  # a decoder may raise anything over a broken file
            items.append(Item(index, name, None, f"{type(error).__name__}: {error}"))
    return items


def evaluate_batch(net: Network, items: Sequence[Item], job: Job) -> Rows:
    """The rows of a batch: ``measure``'s of every image, layer and method, or ``error``.

    Images of one size are inverted together. Where that fails, as for want of memory, they are in halves, down to the
    image, layer and method that alone cannot be.
    """
    rows: Rows = [_failed(net, item, item.error) for item in items if item.pixels is None]
    for group in _together(items, job.pixels):
        for layer, methods in job.methods.items():
            rows += _attempt(net, group, layer, methods, job)
    return rows


def measure(
    at: Point, names: Sequence[str], images: torch.Tensor | None, features: torch.Tensor, method: str,
    *, size: Size | None = None, noise: float = 0.0, **options: Any,
) -> tuple[Result, Rows]:  # fmt: skip
    """Invert a batch, and the record of each image: its quality, and what it cost.

    Parameters
    ----------
    at : where the features were read; its name is the record's ``layer``.
    names : of the images.
    images : N x 3 x H x W in [0, 1], on the network's device; None where nobody has them, and the records' quality is
        None.
    features : of theirs, as they are to be inverted.
    size : of the images, where there are none.
    noise, options : of ``inversion.invert``.
    """
    area = size if images is None else (images.shape[2], images.shape[3])
    result = invert(at.net, features, at.layer, method, size=area, noise=noise, **options)
    judged = None if images is None else quality(images, result.image)
    return result, [
        {
            "image": name,
            "model": at.net.name,
            "layer": at.name,
            "method": method,
            "psnr": None if judged is None else judged.psnr[i],
            "ssim": None if judged is None else judged.ssim[i],
            "relative_error": None if judged is None else judged.relative_error[i],
            "feature_residual": result.feature_residual[i],
            "status": result.status[i],
            "seconds": result.seconds / len(names),
            "forward_passes": result.forward_passes[i],
            # What a batch prepares is there already for all but its first image.
            "prepare_seconds": 0.0 if i else result.prepare_seconds,
            "prepare_passes": 0.0 if i else result.prepare_passes,
            "noise": noise,
            "device": str(features.device),
        }
        for i, name in enumerate(names)
    ]


def local(net: Network, source: Source, batches: Batches, job: Job, workers: int = 2) -> Generator[Rows, None, None]:
    """The engine of one machine: ``workers`` threads read and decode the next batches while one is inverted."""
    ahead: deque[Future[list[Item]]] = deque()
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        quiet_pillow()
        try:
            for batch in batches:
                ahead.append(pool.submit(read, source, batch, net.architecture, job))
                if len(ahead) > workers:
                    yield evaluate_batch(net, ahead.popleft().result(), job)
            while ahead:
                yield evaluate_batch(net, ahead.popleft().result(), job)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def evaluate(
    folder: Path,
    chosen: Sequence[int],
    engine: Callable[[Batches], Generator[Rows, None, None]],
    *,
    batch_size: int,
    session: dict[str, Any],
    save_seconds: float = 30.0,
    strict: bool = False,
    advance: Callable[[int], None] = lambda images: None,
) -> None:
    """Evaluate the images that the folder of results has no rows of yet, and write their rows.

    Parameters
    ----------
    folder : as ``results.begin`` has left it.
    chosen : numbers of the images.
    engine : from batches of numbers to the rows of each batch, all rows of an image together.
    session : what ``run.json`` says of this session; its ``images``, ``seconds`` and ``finished`` are kept up.
    save_seconds : from one part to the next. What a kill costs.
    strict : an image that fails ends the run.
    advance : told how many images have been done.

    Raises
    ------
    ReconstructError : under ``strict``, of the first image that fails; what was done is written.
    """
    done = results.finished(folder)
    # Batches of all images, those done taken out: a run that is resumed has the very batches of one that was not.
    batches = (
        [index for index in chosen[start : start + batch_size] if index not in done]
        for start in range(0, len(chosen), batch_size)
    )
    waiting: Rows = []
    began = saved = time.monotonic()

    def save() -> None:
        nonlocal saved
        if waiting:
            results.write_part(folder, waiting)
            session["images"] += len({row["index"] for row in waiting})
            waiting.clear()
        session["seconds"] = time.monotonic() - began
        results.update_session(folder, session)
        saved = time.monotonic()

    try:
        with closing(engine([batch for batch in batches if batch])) as evaluated:
            for rows in evaluated:
                for row in rows:
                    _keep_thumbnails(folder, row)
                waiting += rows
                advance(len({row["index"] for row in rows}))
                failed = next((row for row in rows if row["error"] is not None), None)
                if failed is not None and strict:
                    raise ReconstructError(f"{failed['image']}: {failed['error']}")
                if time.monotonic() - saved >= save_seconds:
                    save()
        session["finished"] = True
    finally:
        # Also when it is interrupted: what is done is done.
        save()


def finish(
    net: Network, source: Source, job: Job, folder: Path, gallery: int,
    advance: Callable[[int], None] = lambda pictures: None,
) -> dict[str, Any]:  # fmt: skip
    """The pictures for the page, and ``summary.json``, which is returned (``results.summarise``).

    The page shows the worst, the middle and the best images of each layer and method, and which they are is known when
    all rows are there: those whose pictures did not come with the rows are inverted once more. Other pictures are
    deleted.

    Parameters
    ----------
    gallery : how many images of each kind.
    advance : told how many pictures have been made.
    """
    table = results.read_rows(folder)
    wanted: dict[Path, tuple[int, str, str]] = {}
    for key, rows in results.by_key(table).items():
        for index in chain.from_iterable(results.gallery(rows, gallery).values()):
            wanted[results.thumbnail(folder, index, key.layer, key.method)] = (index, key.layer, key.method)
    originals = {results.thumbnail(folder, index) for index, _, _ in wanted.values()}
    for path in set((folder / "thumbnails").glob("*.webp")) - set(wanted) - originals:
        path.unlink()
    missing = sorted(
        (each for path, each in wanted.items() if not path.exists() or not results.thumbnail(folder, each[0]).exists()),
        key=lambda each: (each[1], each[2], each[0]),
    )
    for (layer, method), group in groupby(missing, key=lambda each: each[1:]):
        indices = [index for index, _, _ in group]
        again = replace(job, methods={layer: [method]}, thumbnails=True)
        with warnings.catch_warnings():
            quiet_pillow()
            items = read(source, indices, net.architecture, again)
        # An image that fails this time has no picture, and the page says so.
        for row in evaluate_batch(net, items, again):
            _keep_thumbnails(folder, row)
        advance(len(indices))
    summary = results.summarise(table, results.read_run(folder))
    results.write_json(folder / "summary.json", summary)
    return summary


def batch_size(net: Network, job: Job, workers: int = 1) -> int:
    """How many images of the job's size are inverted together, by the memory that the device has for each worker."""
    side = net.input_size if job.size is None else job.size
    device = net.mean.device
    deepest = max(job.methods, key=net.architecture.index)
    areas = net.architecture.response_sizes((side, side), deepest)
    values = 3 * side**2 + sum(net.layer(name).channels * height * width for name, (height, width) in areas.items())
    room = SHARE * arrays.memory(device) / workers / (4 * COPIES * values)
    most = (CPU_PIXELS if device.type == "cpu" else GPU_PIXELS) / side**2
    return max(1, int(min(room, most)))


def _attempt(net: Network, items: Sequence[Item], layer: str, methods: Sequence[str], job: Job) -> Rows:
    try:
        images = _tensor(items).to(net.mean.device)
        at = point(net, layer, job.tap)
        features, noise = disturb(at.features(images), **job.disturbance)
        names = [item.name for item in items]
        rows: Rows = []
        for method in methods:
            result, records = measure(at, names, images, features, method, noise=noise, **job.options)
            for i, (item, record) in enumerate(zip(items, records, strict=True)):
                row = {"index": item.index, **record, "output": None, "error": None}
                if job.thumbnails:
                    row |= {"original": _small(images[i]), "reconstruction": _small(result.image[i])}
                rows.append(row)
        return rows
    except FAILURES as error:
        # Not the error itself, whose frames hold the batch in memory.
        reason = str(error) or type(error).__name__
    if len(items) > 1:
        half = len(items) // 2
        return [row for part in (items[:half], items[half:]) for row in _attempt(net, part, layer, methods, job)]
    if len(methods) > 1:
        return [row for method in methods for row in _attempt(net, items, layer, [method], job)]
    return [_failed(net, items[0], reason, layer, methods[0])]


def _failed(
    net: Network, item: Item, error: str | None, layer: str | None = None, method: str | None = None
) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(results.SCHEMA.names)
    reason = " ".join((error or "").split())
    return row | {
        "index": item.index, "image": item.name, "model": net.name, "layer": layer, "method": method, "error": reason,
    }  # fmt: skip


def _together(items: Sequence[Item], pixels: int) -> Iterator[list[Item]]:
    """Those with pixels, in groups of one size."""
    there = sorted((item for item in items if item.pixels is not None), key=_shape)
    for (height, width, _), group in groupby(there, key=_shape):
        alike = list(group)
        most = max(1, pixels // (height * width))
        for start in range(0, len(alike), most):
            yield alike[start : start + most]


def _shape(item: Item) -> tuple[int, ...]:
    assert item.pixels is not None
    return item.pixels.shape


def _tensor(items: Sequence[Item]) -> torch.Tensor:
    """N x 3 x H x W, float32 in [0, 1]."""
    stacked = numpy.stack([item.pixels for item in items if item.pixels is not None])
    return torch.from_numpy(stacked.transpose(0, 3, 1, 2).astype(numpy.float32) / 255)


def _keep_thumbnails(folder: Path, row: dict[str, Any]) -> None:
    """Write the pictures that come with a row, before the row itself is written."""
    original, reconstruction = row.pop("original", None), row.pop("reconstruction", None)
    if original is not None:
        path = results.thumbnail(folder, row["index"])
        if not path.exists():
            write_atomically(path, original)
        write_atomically(results.thumbnail(folder, row["index"], row["layer"], row["method"]), reconstruction)


def _small(image: torch.Tensor) -> bytes:
    picture = Image.fromarray(to_pixels(image))
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC)
    return webp(picture)
