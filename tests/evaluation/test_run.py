import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image

from reconstruct import load_model, quality
from reconstruct.errors import ReconstructError
from reconstruct.evaluation import run as evaluation
from reconstruct.evaluation.run import Item, Job, evaluate, evaluate_batch, local, read, results
from reconstruct.images.files import load_image, to_pixels
from reconstruct.images.sources import open_source
from reconstruct.inversion.invert import invert
from reconstruct.network.network import Network
from reconstruct.network.read_points import Point
from tests.conftest import ROOT

SESSION = {"images": 0, "seconds": 0.0, "finished": False}
RUN: dict[str, Any] = {"settings": {}, "sessions": [SESSION]}


@pytest.fixture(scope="module")
def small() -> Network:
    """A network for 32 x 32 images."""
    return load_model("convpool_cnn_c_crelu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve parts of the samples, 48 x 40, as PNG."""
    where = tmp_path_factory.mktemp("images")
    for number in range(12):
        with Image.open(sorted((ROOT / "samples").glob("*.jpg"))[number % 5]) as image:
            image.crop((20 * number, 60, 20 * number + 40, 108)).save(where / f"{number:02d}.png")
    return where


def job(**changes: Any) -> Job:
    options = {"budget": 20.0, "tolerance": None, "seed": 0}
    return Job(**({"methods": {"conv1": ["linear", "map"], "conv2": ["gradient"]}, "options": options} | changes))


def without_times(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    times = {"seconds", "prepare_seconds", "prepare_passes"}
    return sorted(
        ({name: value for name, value in row.items() if name not in times} for row in rows),
        key=lambda row: (row["index"], row["layer"] or "", row["method"] or ""),
    )


def test_rows_are_what_inverting_an_image_alone_gives(small: Network, folder: Path) -> None:
    source = open_source(str(folder))
    items = read(source, [3, 7], small.architecture, job())
    rows = evaluate_batch(small, items, job())
    assert [(row["index"], row["layer"], row["method"]) for row in rows] == [
        (index, layer, method)
        for layer, method in (("conv1", "linear"), ("conv1", "map"), ("conv2", "gradient"))
        for index in (3, 7)
    ]
    for row in rows:
        image = load_image(folder / row["image"], small.input_size)[None]
        alone = invert(small, small.features(image, row["layer"]), row["layer"], row["method"], budget=20.0)
        judged = quality(image, alone.image)
        assert row["psnr"] == pytest.approx(judged.psnr[0], abs=1e-3)
        assert row["ssim"] == pytest.approx(judged.ssim[0], abs=1e-4)
        assert row["feature_residual"] == pytest.approx(alone.feature_residual[0], rel=1e-2)
        assert (row["status"], row["forward_passes"]) == (alone.status[0], alone.forward_passes[0])
        assert set(row) == set(results.SCHEMA.names)


def test_what_cannot_be_read_is_a_row_and_no_more(small: Network, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes((folder / "00.png").read_bytes())
    (tmp_path / "b.jpg").write_text("no picture")
    (tmp_path / "c.png").write_bytes((folder / "00.png").read_bytes()[:900])
    Image.new("RGB", (1, 1)).save(tmp_path / "d.png")
    (tmp_path / "e.png").write_bytes((folder / "01.png").read_bytes())
    source = open_source(str(tmp_path))
    chosen = job(methods={"conv2": ["linear"]})
    rows = evaluate_batch(small, read(source, range(5), small.architecture, chosen), chosen)
    errors = {row["image"]: row["error"] for row in rows}
    assert {name for name, error in errors.items() if error is None} == {"a.png", "e.png"}
    assert "is not a picture" in errors["b.jpg"]
    assert "cannot be read" in errors["c.png"]
    assert "1 x 1" in errors["d.png"]
    for row in rows:
        assert (row["layer"] is None) == (row["error"] is not None) == (row["psnr"] is None)
        assert row["model"] == small.name


def test_a_decoder_that_fails_in_its_own_way_is_a_row(small: Network) -> None:
    class Odd:
        kind, path, names = "odd", "odd", ("a", "b")

        def picture(self, index: int) -> Image.Image:
            if index:
                raise KeyError("quantisation\ntable")
            return Image.new("RGB", (32, 32), "teal")

    items = read(Odd(), [0, 1], small.architecture, job())  # type: ignore[arg-type]
    (row,) = [row for row in evaluate_batch(small, items, job()) if row["error"]]
    assert (row["index"], row["error"]) == (1, "KeyError: 'quantisation\\ntable'")


@pytest.mark.parametrize(
    "trouble", [RuntimeError("not enough memory"), MemoryError(), ReconstructError("odd features")]
)
def test_a_batch_that_fails_is_done_in_halves_down_to_what_alone_fails(
    small: Network, folder: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    source = open_source(str(folder))
    items = read(source, range(7), small.architecture, job())
    bad = torch.from_numpy(items[4].pixels.copy()).permute(2, 0, 1) / 255  # type: ignore[union-attr]
    expected = evaluate_batch(small, items, job())
    seen: list[int] = []
    real = evaluation.measure

    def measure(
        at: Point, names: list[str], images: torch.Tensor, features: torch.Tensor, method: str, **options: Any
    ) -> Any:
        seen.append(len(images))
        if len(images) > 4 or (method == "map" and any(torch.equal(image, bad) for image in images)):
            raise trouble
        return real(at, names, images, features, method, **options)

    monkeypatch.setattr(evaluation, "measure", measure)
    rows = evaluate_batch(small, items, job())
    failed = [row for row in rows if row["error"] is not None]
    assert [(row["index"], row["layer"], row["method"]) for row in failed] == [(4, "conv1", "map")]
    assert failed[0]["error"] == (str(trouble) or "MemoryError")
    kept = without_times([row for row in rows if row["error"] is None])
    wanted = without_times([row for row in expected if (row["index"], row["method"]) != (4, "map")])
    assert [(row["index"], row["layer"], row["method"]) for row in kept] == [
        (row["index"], row["layer"], row["method"]) for row in wanted
    ]
    assert [row["psnr"] for row in kept] == pytest.approx([row["psnr"] for row in wanted], abs=1e-2)
    assert max(seen) == 7


def test_a_fault_of_ours_is_not_hidden_in_rows(small: Network, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*_: Any, **__: Any) -> Any:
        raise TypeError("a fault")

    monkeypatch.setattr(evaluation, "measure", measure)
    with pytest.raises(TypeError, match="a fault"):
        evaluate_batch(small, read(open_source(str(folder)), [0], small.architecture, job()), job())


def test_images_of_their_own_sizes(small: Network, tmp_path: Path) -> None:
    """Never resized: images of one size go together, whatever lies between them."""
    for number, size in enumerate([(40, 36), (50, 41), (40, 36), (33, 60)]):
        Image.effect_noise(size, 40).convert("RGB").save(tmp_path / f"{number}.png")
    chosen = job(methods={"conv2": ["linear"]}, native=True)
    items = read(open_source(str(tmp_path)), range(4), small.architecture, chosen)
    rows = evaluate_batch(small, items, chosen)
    assert [row["error"] for row in rows] == [None] * 4
    assert sorted(row["index"] for row in rows) == [0, 1, 2, 3]
    shapes = {item.index: item.pixels.shape for item in items if item.pixels is not None}
    assert shapes == {0: (36, 40, 3), 1: (41, 50, 3), 2: (36, 40, 3), 3: (60, 33, 3)}


def test_no_more_pixels_together_than_the_job_allows(
    small: Network, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = evaluation.measure

    def measure(at: Point, names: list[str], images: torch.Tensor, *rest: Any, **options: Any) -> Any:
        seen.append(len(images))
        return real(at, names, images, *rest, **options)

    monkeypatch.setattr(evaluation, "measure", measure)
    chosen = job(methods={"conv1": ["linear"]}, pixels=3 * 32 * 32 + 5)
    evaluate_batch(small, read(open_source(str(folder)), range(7), small.architecture, chosen), chosen)
    assert seen == [3, 3, 1]


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
    small: Network, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``catch_warnings`` is not for threads: two that overlap leave the process with the filters of one of them."""
    entered: list[str] = []
    real = warnings.catch_warnings.__enter__

    def enter(self: Any) -> Any:
        entered.append(threading.current_thread().name)
        return real(self)

    monkeypatch.setattr(warnings.catch_warnings, "__enter__", enter)
    before = list(warnings.filters)
    list(local(small, open_source(str(folder)), [[0, 1], [2]], job(methods={"conv1": ["linear"]})))
    assert warnings.filters == before
    assert set(entered) == {threading.main_thread().name}


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
    results.write_part(tmp_path, evaluate_batch(small, read(source, range(12), small.architecture, chosen), chosen))
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


def test_batches_by_the_memory(small: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = job(methods={"conv1": ["map"]})
    assert evaluation.batch_size(small, chosen) == evaluation.CPU_PIXELS // 32**2
    # 3 x 32 x 32 pixels and 192 x 32 x 32 features, 4 bytes each and 12 times.
    each = 4 * 12 * (3 + small.layer("conv1").channels) * 32**2
    monkeypatch.setattr(evaluation.arrays, "memory", lambda device: 10.5 * each / evaluation.SHARE)
    assert evaluation.batch_size(small, chosen) == 10
    assert evaluation.batch_size(small, chosen, workers=2) == 5
    monkeypatch.setattr(evaluation.arrays, "memory", lambda device: 1)
    assert evaluation.batch_size(small, chosen) == 1
