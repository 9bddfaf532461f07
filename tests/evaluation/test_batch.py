from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from reconstruct import quality
from reconstruct.errors import ReconstructError
from reconstruct.evaluation import batch as evaluation
from reconstruct.evaluation import results
from reconstruct.evaluation.batch import evaluate_batch, read
from reconstruct.images.files import load_image
from reconstruct.images.sources import open_source
from reconstruct.inversion.invert import invert
from reconstruct.network.network import Network
from reconstruct.network.read_points import Point
from tests.builders.jobs import job


def without_times(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    times = {"seconds", "prepare_seconds", "prepare_passes"}
    return sorted(
        ({name: value for name, value in row.items() if name not in times} for row in rows),
        key=lambda row: (row["index"], row["layer"] or "", row["method"] or ""),
    )


def test_rows_are_what_inverting_an_image_alone_gives(small: Network, folder: Path) -> None:
    source = open_source(str(folder))
    items = read(source, [3, 7], small, job())
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
    rows = evaluate_batch(small, read(source, range(5), small, chosen), chosen)
    errors = {row["image"]: row["error"] for row in rows}
    assert {name for name, error in errors.items() if error is None} == {"a.png", "e.png"}
    assert "is not a picture" in errors["b.jpg"]
    assert "cannot be read" in errors["c.png"]
    assert "1 x 1" in errors["d.png"]
    for row in rows:
        assert (row["layer"] is None) == (row["error"] is not None) == (row["psnr"] is None)
        assert row["model"] == small.name


def test_a_picture_that_memory_does_not_hold_is_a_row(small: Network) -> None:
    class Large:
        kind, path, names = "large", "large", ("a", "b")

        def picture(self, index: int) -> Image.Image:
            if index:
                raise MemoryError
            return Image.new("RGB", (32, 32), "teal")

    items = read(Large(), [0, 1], small, job())  # type: ignore[arg-type]
    (row,) = [row for row in evaluate_batch(small, items, job()) if row["error"]]
    assert (row["index"], row["error"]) == (1, "there is not enough memory to read it and make it fit")


@pytest.mark.parametrize(
    "trouble", [RuntimeError("not enough memory"), MemoryError(), ReconstructError("odd features")]
)
def test_a_batch_that_fails_is_done_in_halves_down_to_what_alone_fails(
    small: Network, folder: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    source = open_source(str(folder))
    items = read(source, range(7), small, job())
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
        evaluate_batch(small, read(open_source(str(folder)), [0], small, job()), job())


def test_images_of_their_own_sizes(small: Network, tmp_path: Path) -> None:
    """Never resized: images of one size go together, whatever lies between them."""
    for number, size in enumerate([(40, 36), (50, 41), (40, 36), (33, 60)]):
        Image.effect_noise(size, 40).convert("RGB").save(tmp_path / f"{number}.png")
    chosen = job(methods={"conv2": ["linear"]}, native=True)
    items = read(open_source(str(tmp_path)), range(4), small, chosen)
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
    evaluate_batch(small, read(open_source(str(folder)), range(7), small, chosen), chosen)
    assert seen == [3, 3, 1]


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
