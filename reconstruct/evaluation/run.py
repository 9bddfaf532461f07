"""Evaluation of image sets: the run over all batches, which may be killed at any moment and goes on where it was.

An engine yields the rows of one batch after another: ``local`` here, the engine of one machine, and
``ray_engine.on_ray``, which calls the same functions on other machines. ``evaluate`` writes the rows down, ``finish``
makes what the page shows.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from reconstruct.errors import ReconstructError
from reconstruct.evaluation import results
from reconstruct.evaluation.batch import Item, Job, Rows, evaluate_batch, read
from reconstruct.images.atomic import write_atomically
from reconstruct.images.files import quiet_pillow
from reconstruct.images.sets import Source
from reconstruct.network.protocol import AnyNetwork

Batches = Sequence[Sequence[int]]
"""Numbers of images, batch by batch."""

Engine = Callable[[Batches], Generator[Rows, None, None]]
"""A function from batches to the rows of each, all rows of an image together, in whatever order batches are done."""


def local(net: AnyNetwork, source: Source, batches: Batches, job: Job, workers: int = 2) -> Generator[Rows, None, None]:
    """The engine of one machine: ``workers`` threads read and decode the next batches while one is inverted.

    Its caller is to be in ``quiet_pillow``, as ``evaluate`` is: Python's warning filters belong to the process, so no
    thread may change them, and a generator that did would leave them changed in its caller's code between two batches.
    """
    ahead: deque[Future[list[Item]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for batch in batches:
                ahead.append(pool.submit(read, source, batch, net, job))
                if len(ahead) > workers:
                    yield evaluate_batch(net, ahead.popleft().result(), job)
            while ahead:
                yield evaluate_batch(net, ahead.popleft().result(), job)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def evaluate(
    folder: Path,
    chosen: Sequence[int],
    engine: Engine,
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
    folder : the folder of results, as ``results.begin`` has left it.
    chosen : numbers of the images.
    engine : makes the rows.
    batch_size : how many images are inverted together.
    session : what ``run.json`` says of this session; its ``images``, ``seconds`` and ``finished`` are kept up.
    save_seconds : the time from one part to the next, which is what a kill costs.
    strict : whether an image that fails ends the run.
    advance : told how many images have been done.

    Raises
    ------
    ReconstructError : ``strict`` is set, and an image fails; what was done is written.
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
        with quiet_pillow(), closing(engine([batch for batch in batches if batch])) as evaluated:
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
    net: AnyNetwork, source: Source, job: Job, folder: Path, gallery: int,
    advance: Callable[[int], None] = lambda pictures: None,
) -> dict[str, Any]:  # fmt: skip
    """Make the pictures for the page and ``summary.json``, which is returned (``results.summarise``).

    The page shows the worst, the middle and the best images of each layer and method, and which they are is known when
    all rows are there: those whose pictures did not come with the rows are inverted once more. Other pictures are
    deleted.

    Parameters
    ----------
    gallery : how many images of each kind the page shows.
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
        with quiet_pillow():
            items = read(source, indices, net, again)
        # An image that fails this time has no picture, and the page says so.
        for row in evaluate_batch(net, items, again):
            _keep_thumbnails(folder, row)
        advance(len(indices))
    summary = results.summarise(table, results.read_run(folder))
    results.write_json(folder / "summary.json", summary)
    return summary


def _keep_thumbnails(folder: Path, row: dict[str, Any]) -> None:
    """Write the pictures that come with a row, before the row itself is written."""
    original, reconstruction = row.pop("original", None), row.pop("reconstruction", None)
    if original is not None:
        path = results.thumbnail(folder, row["index"])
        if not path.exists():
            write_atomically(path, original)
        write_atomically(results.thumbnail(folder, row["index"], row["layer"], row["method"]), reconstruction)
