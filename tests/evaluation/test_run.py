import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image

from reconstruct.errors import ReconstructError
from reconstruct.evaluation import results
from reconstruct.evaluation import run as evaluation
from reconstruct.evaluation.batch import Item, Job, evaluate_batch, read
from reconstruct.evaluation.run import evaluate, local
from reconstruct.images.files import load_image, to_pixels
from reconstruct.images.sources import open_source
from reconstruct.inversion.invert import invert
from reconstruct.network.network import Network
from tests.builders.jobs import job

SESSION = {"images": 0, "seconds": 0.0, "finished": False}
RUN: dict[str, Any] = {"settings": {}, "sessions": [SESSION]}


def test_reading_goes_on_while_a_batch_is_inverted(
    small: Network, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inversion of the first batch waits until the second has been read: without reading ahead, for ever."""
    source = open_source(str(folder))
    second = threading.Event()
    real = evaluation.read

    def reading(source: Any, indices: Sequence[int], *rest: Any) -> list[Item]:
        items = real(source, indices, *rest)
        if indices == [1]:
            second.set()
        return items

    def inverting(net: Network, items: Sequence[Item], job: Job) -> list[dict[str, Any]]:
        assert second.wait(20)
        return [{"index": item.index} for item in items]

    monkeypatch.setattr(evaluation, "read", reading)
    monkeypatch.setattr(evaluation, "evaluate_batch", inverting)
    batches = [[number] for number in range(12)]
    rows = list(local(small, source, batches, job(), workers=1))
    assert [row["index"] for batch in rows for row in batch] == list(range(12))


def test_pillows_warnings_are_left_alone_by_threads(
    small: Network, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``catch_warnings`` is not for threads: two that overlap leave the process with the filters of one of them."""
    entered: list[str] = []
    real = warnings.catch_warnings.__enter__

    def enter(self: Any) -> Any:
        entered.append(threading.current_thread().name)
        return real(self)

    monkeypatch.setattr(warnings.catch_warnings, "__enter__", enter)
    before = list(warnings.filters)
    results.begin(tmp_path, RUN, range(3))
    engine = partial(local, small, open_source(str(folder)), job=job(methods={"conv1": ["linear"]}))
    evaluate(tmp_path, range(3), engine, batch_size=2, session=dict(SESSION))
    assert warnings.filters == before
    assert set(entered) == {threading.main_thread().name}


def test_an_engine_leaves_the_warnings_of_its_caller_as_they_are(small: Network, folder: Path) -> None:
    """Between two batches the caller's code runs, with the caller's filters."""
    before = list(warnings.filters)
    rows = local(small, open_source(str(folder)), [[0], [1]], job(methods={"conv1": ["linear"]}))
    next(rows)
    assert warnings.filters == before
    rows.close()
    assert warnings.filters == before


def engine(batches: Sequence[Sequence[int]], stop: int | None = None) -> Iterator[list[dict[str, Any]]]:
    """Rows without work; the image ``stop`` ends it as a kill by the user does."""
    for batch in batches:
        if stop in batch:
            raise KeyboardInterrupt
        yield [results_row(index) for index in batch]


def results_row(index: int, **changes: Any) -> dict[str, Any]:
    empty: dict[str, Any] = dict.fromkeys(results.SCHEMA.names)
    return (
        empty
        | {"index": index, "image": f"{index}", "model": "m", "layer": "l", "method": "map", "psnr": 1.0}
        | dict.fromkeys(("seconds", "forward_passes", "prepare_seconds", "prepare_passes"), 0.0)
        | changes
    )


def test_what_was_done_is_written_when_a_run_is_stopped(tmp_path: Path) -> None:
    results.begin(tmp_path, RUN, range(10))
    session = dict(SESSION)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path, range(10), lambda batches: engine(batches, 7), batch_size=3, session=session)  # type: ignore[arg-type,return-value]
    assert results.finished(tmp_path) == {0, 1, 2, 3, 4, 5}
    kept = results.read_run(tmp_path)["sessions"][-1]
    assert (kept["images"], kept["finished"]) == (6, False)
    given: list[list[int]] = []

    def noting(batches: Sequence[Sequence[int]]) -> Iterator[list[dict[str, Any]]]:
        given.extend(map(list, batches))
        return engine(batches)

    results.begin(tmp_path, RUN, range(10))
    evaluate(tmp_path, range(10), noting, batch_size=3, session=dict(SESSION))  # type: ignore[arg-type]
    # The very batches that an undisturbed run has.
    assert given == [[6, 7, 8], [9]]
    assert results.read_rows(tmp_path)["index"].to_pylist() == list(range(10))
    assert results.read_run(tmp_path)["sessions"][-1]["finished"]


def test_parts_are_written_as_often_as_asked(tmp_path: Path) -> None:
    for seconds, parts in ((0.0, 4), (3600.0, 1)):
        folder = tmp_path / f"{parts}"
        results.begin(folder, RUN, range(10))
        done: list[int] = []
        evaluate(
            folder, range(10), engine, batch_size=3, session=dict(SESSION), save_seconds=seconds, advance=done.append  # type: ignore[arg-type]
        )  # fmt: skip
        assert len(list((folder / "rows").iterdir())) == parts
        assert done == [3, 3, 3, 1]


def test_strict_ends_at_the_first_failure_and_keeps_what_was_done(tmp_path: Path) -> None:
    def failing(batches: Sequence[Sequence[int]]) -> Iterator[list[dict[str, Any]]]:
        for batch in batches:
            yield [results_row(index, error="broken" if index == 4 else None) for index in batch]

    results.begin(tmp_path, RUN, range(9))
    with pytest.raises(ReconstructError, match="4: broken"):
        evaluate(tmp_path, range(9), failing, batch_size=3, session=dict(SESSION), strict=True)  # type: ignore[arg-type]
    assert results.finished(tmp_path) == {0, 1, 2, 3, 4, 5}


def test_thumbnails_of_the_gallery_and_no_others(small: Network, folder: Path, tmp_path: Path) -> None:
    source = open_source(str(folder))
    chosen = job(methods={"conv1": ["linear"], "conv2": ["linear"]})
    results.begin(tmp_path, RUN, range(12))
    results.write_part(tmp_path, evaluate_batch(small, read(source, range(12), small, chosen), chosen))
    summary = evaluation.finish(small, source, chosen, tmp_path, 2)
    wanted: dict[Path, torch.Tensor] = {}
    for key, rows in results.by_key(results.read_rows(tmp_path)).items():
        for index in (index for group in results.gallery(rows, 2).values() for index in group):
            image = load_image(folder / f"{index:02d}.png", small.input_size)
            wanted[results.thumbnail(tmp_path, index)] = image
            alone = invert(small, small.features(image[None], key.layer), key.layer, key.method, budget=20.0)
            wanted[results.thumbnail(tmp_path, index, key.layer, key.method)] = alone.image[0]
    assert set((tmp_path / "thumbnails").iterdir()) == set(wanted)
    for path, image in wanted.items():
        with Image.open(path) as picture:
            shown = numpy.asarray(picture.convert("RGB"), dtype=float)
        # WebP halves the resolution of colour; another image would be some 60 grey levels away.
        assert numpy.sqrt(((shown - to_pixels(image)) ** 2).mean()) < 12
    assert summary["images"] == 12
    assert (tmp_path / "summary.json").is_file()
    stamps = {path: path.stat().st_mtime_ns for path in wanted}
    evaluation.finish(small, source, chosen, tmp_path, 1)
    left = set((tmp_path / "thumbnails").iterdir())
    assert left < set(wanted)
    assert all(path.stat().st_mtime_ns == stamps[path] for path in left)
    evaluation.finish(small, source, chosen, tmp_path, 0)
    assert not list((tmp_path / "thumbnails").iterdir())


def test_pictures_that_come_with_the_rows_are_not_made_again(
    small: Network, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(str(folder))
    chosen = job(methods={"conv1": ["linear"], "conv2": ["linear"]})
    made: list[dict[str, bytes]] = []
    for with_rows in (True, False):
        output = tmp_path / f"{with_rows}"
        results.begin(output, RUN, range(12))
        own = replace(chosen, thumbnails=with_rows)
        evaluate(
            output, range(12), lambda batches, own=own: local(small, source, batches, own),  # type: ignore[misc]
            batch_size=5, session=dict(SESSION),
        )  # fmt: skip
        with monkeypatch.context() as patch:
            if with_rows:
                patch.setattr(evaluation, "evaluate_batch", lambda *_: pytest.fail("inverted once more"))
                patch.setattr(evaluation, "read", lambda *_: pytest.fail("read once more"))
            evaluation.finish(small, source, own, output, 2)
        made.append({path.name: path.read_bytes() for path in (output / "thumbnails").iterdir()})
    assert made[0].keys() == made[1].keys()
    originals = [name for name in made[0] if name.count(".") == 1]
    assert originals
    assert all(made[0][name] == made[1][name] for name in originals)
