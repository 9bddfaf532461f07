"""Pages of a run: what they say."""

import math
import re
from pathlib import Path

import numpy
import pytest

from reconstruct.evaluation import results
from reconstruct.report.pages.run import galleries
from reconstruct.report.pages.thumbnails import Album
from tests.builders.page_reader import number, page_of
from tests.builders.results_folder import (
    add_thumbnails,
    failure,
    random_rows,
    row,
    run_json,
    save,
    save_many,
)


def test_the_table_says_what_the_rows_do(tmp_path: Path) -> None:
    rows = random_rows(40, ["conv1", "conv2"], ["linear", "map"], seed=3)
    rows[0]["psnr"] = math.inf
    rows += [failure(40, "cannot be read"), row(41, "conv2", "map", error="diverged", psnr=None, ssim=None)]
    found = page_of(save(tmp_path / "run", rows))
    body = [line for line in found.tables["summary"] if line[0].strip() in ("conv1", "conv2")]
    assert len(body) == 4
    for cells in body:
        layer, method = cells[0].strip(), cells[1].strip()
        held = [each for each in rows if each.get("layer") == layer and each.get("method") == method]
        done = [each for each in held if "error" not in each]
        psnr, ssim = (numpy.array([each[name] for each in done]) for name in ("psnr", "ssim"))
        finite = psnr[numpy.isfinite(psnr)]
        assert int(cells[2].split()[0]) == len(done) == 40
        assert ("1 exact" in cells[2]) == (layer == "conv1" and method == "linear")
        assert int(cells[3]) == 1 + len(held) - len(done)
        assert [number(each) for each in cells[4].split(" ± ")] == pytest.approx(
            [finite.mean(), finite.std(ddof=1)], abs=0.005
        )
        median, low, high = map(number, re.findall(r"[\d.]+", cells[5]))
        ordered = numpy.sort(psnr)
        assert median == pytest.approx((ordered[19] + ordered[20]) / 2, abs=0.005)
        assert low == pytest.approx(ordered[1] + 0.95 * (ordered[2] - ordered[1]), abs=0.05)
        assert high == pytest.approx(ordered[37] + 0.05 * (ordered[38] - ordered[37]), abs=0.05)
        assert [number(each) for each in cells[6].split(" ± ")] == pytest.approx(
            [ssim.mean(), ssim.std(ddof=1)], abs=0.0005
        )
        assert number(cells[10]) == {"linear": 3, "map": 53}[method]
        assert number(cells[11]) == {"conv1": 100, "conv2": 200}[layer]
        budget = sum(each["status"] == "budget" for each in done)
        assert " ".join(cells[13].split()) == f"{budget} budget spent, {40 - budget} converged"


def test_first_sentences(folder: Path) -> None:
    words = page_of(folder).words()
    assert "40 images of 44 were rebuilt without a failure; 4 failed at least once." in words
    rows = results.read_rows(folder).to_pylist()
    means = {
        (layer, method): numpy.mean([r["psnr"] for r in rows if (r["layer"], r["method"]) == (layer, method)])
        for layer in ("conv1", "conv2")
        for method in ("linear", "map")
    }
    worst, best = min(means, key=lambda key: means[key]), max(means, key=lambda key: means[key])
    assert f"Worst on average: {worst[0]} by {worst[1]} with a PSNR of {means[worst]:.1f} dB" in words
    assert f"Best: {best[0]} by {best[1]} with a PSNR of {means[best]:.1f} dB" in words


def test_a_run_that_is_not_finished_says_so(tmp_path: Path) -> None:
    found = page_of(save(tmp_path / "run", random_rows(10, ["conv1"], ["map"], seed=1)))
    assert "10 of 40 images so far" in found.words()


def test_galleries_hold_the_worst_median_and_best(folder: Path) -> None:
    rows = results.by_key(results.read_rows(folder))
    for found, table in zip(galleries(folder, rows, Album()), rows.values(), strict=True):
        ordered = sorted(table["psnr"].to_pylist())
        assert [pair.psnr for pair in found.groups["worst"]] == ordered[:4]
        assert [pair.psnr for pair in found.groups["best"]] == ordered[:-5:-1]
        assert [pair.psnr for pair in found.groups["median"]] == ordered[18:22]


def test_missing_thumbnails_are_said(folder: Path) -> None:
    every = sorted((folder / "thumbnails").glob("*.conv1.linear.webp"))
    for path in every[:5]:
        path.unlink()
    every[5].write_bytes(b"not a picture")
    found = page_of(folder)
    assert "6 pictures that would stand here have no thumbnail" in found.words()
    assert len(found.all("input")) == 48 - 6


def test_without_thumbnails(tmp_path: Path) -> None:
    found = page_of(save(tmp_path / "run", random_rows(10, ["conv1"], ["map"], seed=1)))
    assert "This folder holds no thumbnails" in found.words()
    assert not found.all("image")


def test_fewer_pictures_where_they_do_not_fit(folder: Path) -> None:
    rows = results.by_key(results.read_rows(folder))
    whole = Album()
    galleries(folder, rows, whole)
    size = sum(len(each.data) for each in whole.pictures)
    for most in (size // 2, size // 10, 0):
        album = Album(most)
        found = galleries(folder, rows, album)
        assert sum(len(each.data) for each in album.pictures) <= most
        for each in found:
            assert each.left_out
            assert each.left_out + sum(map(len, each.groups.values())) == 12
            assert len(each.groups["worst"]) >= len(each.groups["median"]) >= len(each.groups["best"])
        if most == size // 2:
            assert len({tuple(map(len, each.groups.values())) for each in found}) == 1


def test_all_failed(tmp_path: Path) -> None:
    folder = save(tmp_path / "run", [failure(i, f"cannot be read, {i:03d}.") for i in range(260)], sessions=[])
    found = page_of(folder)
    assert "0 images of 260 were rebuilt" in found.words()
    assert len(found.tables["failures"]) == 1 + 200
    assert "the first 200 of 260 failures are listed" in found.words()
    assert "rows/*.parquet" in found.words()
    assert "cannot be read, 199." in found.words()
    assert "cannot be read, 200." not in found.words()


def test_failures_of_whole_images_come_first(tmp_path: Path) -> None:
    rows = [row(0, "conv1", "map", error="diverged", psnr=None, ssim=None), failure(1, "cannot be read")]
    found = page_of(save(tmp_path / "run", rows))
    assert [line[2].strip() for line in found.tables["failures"]] == ["Error", "cannot be read", "diverged"]


@pytest.mark.parametrize("psnr", [25.0, math.inf])
def test_one_image(tmp_path: Path, psnr: float) -> None:
    folder = save(tmp_path / "run", [row(0, "conv1", "map", psnr=psnr)])
    add_thumbnails(folder)
    found = page_of(folder)
    assert "1 image of 1 was rebuilt" in found.words()
    assert len(found.all("input")) == 1
    assert ("1 reconstruction is exact" in found.words()) == math.isinf(psnr)
    (cells,) = (line for line in found.tables["summary"] if line[0].strip() == "conv1")
    assert cells[4].strip() == ("–" if math.isinf(psnr) else "25.00")
    assert cells[5].split()[0] == ("∞" if math.isinf(psnr) else "25.00")


def test_run_json_that_says_little(tmp_path: Path) -> None:
    folder = save(tmp_path / "run", random_rows(4, ["conv1"], ["map"], seed=1))
    results.write_json(folder / "run.json", {"call": "reconstruct evaluate"})
    assert "The run does not say." in page_of(folder).words()


def test_how_it_was_made(folder: Path) -> None:
    words = page_of(folder).words()
    for said in (run_json()["call"], "1,305 pictures & nothing else", "Resumed 1 time.", "options.damping", "3.11.7"):
        assert said in words


def test_fifty_thousand_images_stay_small(tmp_path: Path) -> None:
    folder = save_many(tmp_path / "run", 50_000, ["conv1", "conv2"], ["linear", "map"])
    add_thumbnails(folder, side=224)
    found = page_of(folder)
    assert "50,000 images of 50,000" in found.words()
    assert len(found.all("input")) == 48
    assert len(found.source) < 5_000_000


def test_as_many_pictures_as_evaluate_kept(folder: Path) -> None:
    results.write_json(folder / "run.json", run_json(gallery=1))
    found = page_of(folder)
    assert len(found.all("input")) == 4 * 3
    assert "have no thumbnail" not in found.words()
