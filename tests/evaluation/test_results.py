import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconstruct.errors import CallError
from reconstruct.evaluation import results

SETTINGS = {"model": {"name": "m"}, "options": {"budget": None}, "methods": {"conv1": ["map"]}}
RUN: dict[str, Any] = {
    "call": "reconstruct evaluate",
    "settings": SETTINGS,
    "sessions": [{"started": "now", "images": 0, "seconds": 0.0}],
}


def row(index: int, psnr: float = 30.0, **changes: Any) -> dict[str, Any]:
    """A row as ``evaluate_batch`` makes it."""
    return {
        "index": index, "image": f"{index}.png", "model": "m", "layer": "conv1", "method": "map", "psnr": psnr,
        "ssim": 0.9, "relative_error": 0.1, "feature_residual": 0.01, "status": "budget", "seconds": 2.0,
        "forward_passes": 450.0, "prepare_seconds": 0.0, "prepare_passes": 0.0, "noise": 0.0, "device": "cpu",
        "output": None, "error": None, "lpips": None, "dists": None,
    } | changes  # fmt: skip


def failure(index: int, **changes: Any) -> dict[str, Any]:
    empty: dict[str, Any] = dict.fromkeys(results.SCHEMA.names)
    return empty | {"index": index, "image": f"{index}.png", "model": "m", "error": "truncated"} | changes


def test_rows_come_back_in_the_order_of_their_images(tmp_path: Path) -> None:
    written = [row(4, layer="conv2"), row(4), row(1, math.inf), row(3, method="linear"), failure(2), row(0, -5.5)]
    results.write_part(tmp_path, written[:3])
    results.write_part(tmp_path, written[3:])
    assert [path.name for path in sorted((tmp_path / "rows").iterdir())] == [
        "part-000000.parquet",
        "part-000001.parquet",
    ]
    back = results.read_rows(tmp_path)
    assert back.schema == results.SCHEMA
    # The two rows of image 4 keep their order.
    assert back.to_pylist() == [written[5], written[2], written[4], written[3], written[0], written[1]]
    assert results.read_rows(tmp_path, ["index"])["index"].to_pylist() == [0, 1, 2, 3, 4, 4]
    assert results.finished(tmp_path) == {0, 1, 2, 3, 4}
    assert results.first_error(tmp_path) == "2.png: truncated"
    assert len(results.read_rows(tmp_path / "nothing")) == 0


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    results.write_part(tmp_path, [row(0)])
    part = tmp_path / "rows" / "part-000001.parquet"
    part.write_bytes((tmp_path / "rows" / "part-000000.parquet").read_bytes()[:-50])
    with pytest.raises(CallError, match=r"part-000001\.parquet does not hold rows"):
        results.read_rows(tmp_path)


def test_failures_can_be_taken_out_to_be_tried_again(tmp_path: Path) -> None:
    results.write_part(tmp_path, [row(0), failure(1), row(2), failure(2, layer="conv1", method="linear")])
    results.write_part(tmp_path, [failure(3)])
    results.write_json(tmp_path / "run.json", RUN)
    results.begin(tmp_path, RUN, range(4), retry=True)
    # All rows of an image in which anything failed, so that it is done again whole.
    assert results.read_rows(tmp_path).to_pylist() == [row(0)]
    assert len(list((tmp_path / "rows").iterdir())) == 1


def test_a_run_goes_on_only_with_the_settings_and_images_it_began_with(tmp_path: Path) -> None:
    results.begin(tmp_path, RUN, range(3))
    results.write_part(tmp_path, [row(2)])
    (tmp_path / "thumbnails").mkdir()
    for half_written in ("rows/.part-000001.parquet.x", "thumbnails/.3.webp.x", ".run.json.x"):
        (tmp_path / half_written).write_bytes(b"half")
    results.begin(tmp_path, RUN | {"call": "again"}, range(5))
    assert not list(tmp_path.rglob(".*"))
    run = results.read_run(tmp_path)
    assert (run["call"], len(run["sessions"])) == ("again", 2)
    results.update_session(tmp_path, {"images": 7, "seconds": 2.0})
    assert [session["images"] for session in results.read_run(tmp_path)["sessions"]] == [0, 7]
    other = SETTINGS | {"options": {"budget": 9.0}, "model": {"name": "n"}}
    with pytest.raises(CallError, match=r"another call: name was m, is n; budget was not given, is 9\.0\. Give"):
        results.begin(tmp_path, RUN | {"settings": other}, range(3))
    with pytest.raises(CallError, match="holds 1 images that this call does not evaluate"):
        results.begin(tmp_path, RUN, range(2))
    # Nothing of this has touched what is there.
    assert results.read_run(tmp_path)["call"] == "again"
    (tmp_path / "run.json").unlink()
    with pytest.raises(CallError, match=r"no run\.json"):
        results.begin(tmp_path, RUN, range(3))
    with pytest.raises(CallError, match=r"no run\.json"):
        results.read_run(tmp_path)
    (tmp_path / "run.json").write_text("[")
    with pytest.raises(CallError, match="cannot be read"):
        results.read_run(tmp_path)


def test_where_the_images_lie_may_differ() -> None:
    before = {"source": {"path": "/mnt/a", "digest": "x"}, "methods": {"conv1": ["map"]}, "size": None}
    assert results.differences(before, before | {"source": {"path": "/mnt/b", "digest": "x"}}) == []
    now = before | {"methods": {"conv1": ["map", "linear"], "conv2": ["map"]}, "size": 32}
    assert results.differences(before, now) == [
        "conv1 was map, is map, linear", "conv2 was not given, is map", "size was not given, is 32",
    ]  # fmt: skip


def test_two_processes_do_not_write_into_one_folder(tmp_path: Path) -> None:
    hold = (
        f"from pathlib import Path; from reconstruct.evaluation.results import locked\n"
        f"with locked(Path({str(tmp_path)!r})): print('held', flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(CallError, match="another run is writing"), results.locked(tmp_path):
            pass
        os.kill(other.pid, 9)
    with results.locked(tmp_path):  # whoever was killed holds nothing
        pass


def test_a_full_disk_leaves_whole_parts_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results.write_part(tmp_path, [row(0)])

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        results.write_part(tmp_path, [row(1)])
    assert [path.name for path in (tmp_path / "rows").iterdir()] == ["part-000000.parquet"]
    assert results.finished(tmp_path) == {0}


NESTED: Any = 1
for _ in range(30):
    NESTED = {"a": [NESTED]}
RUNS: dict[str, tuple[Any, str]] = {
    "nested": (RUN | {"settings": {"a": NESTED}}, "nested too deeply"),
    "settings": (RUN | {"settings": [1]}, "settings is no object"),
    "selection": (RUN | {"selection": "all"}, "selection is no object"),
    "sessions": (RUN | {"sessions": {"a": 1}}, "sessions is no list of objects"),
    "a session": (RUN | {"sessions": [3]}, "sessions is no list of objects"),
    "seconds": (RUN | {"sessions": [{"seconds": "1", "images": 1}]}, "seconds of a session is a number"),
    "infinite": (RUN | {"sessions": [{"seconds": math.inf, "images": 1}]}, "seconds of a session is a number"),
    "images": (RUN | {"sessions": [{"seconds": 1.0, "images": 10**400}]}, "images of a session is a number"),
    "gallery": (RUN | {"gallery": 10**9}, "gallery is a whole number, 0 to 10,000"),
    "half a gallery": (RUN | {"gallery": 1.5}, "gallery is a whole number"),
    "too much": (RUN | {"versions": {str(each): each for each in range(30_000)}}, "says too much"),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_json_that_others_made(name: str, tmp_path: Path) -> None:
    run, message = RUNS[name]
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(CallError, match=f"run.json is not what evaluate writes.*{message}"):
        results.read_run(tmp_path)


def test_a_run_json_that_is_nested_beyond_what_python_reads(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[" * 100_000)
    with pytest.raises(CallError, match="cannot be read"):
        results.read_run(tmp_path)


ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "no layer": ({"layer": None}, "neither an error nor its layer"),
    "no PSNR": ({"psnr": None}, "neither an error nor its psnr"),
    "PSNR that is none": ({"psnr": math.nan}, "neither an error nor its psnr"),
    "PSNR beyond drawing": ({"psnr": 1e308}, "psnr lies between"),
    "PSNR below all": ({"psnr": -math.inf}, "psnr lies between"),
    "SSIM": ({"ssim": math.inf}, "ssim is infinite"),
    "seconds": ({"seconds": -1.0}, "seconds lies between"),
    "passes": ({"forward_passes": math.inf}, "forward_passes is infinite"),
    "preparing": ({"prepare_passes": None}, "neither an error nor its prepare_passes"),
    "residual": ({"feature_residual": 1e300}, "feature_residual lies between"),
    "index": ({"index": -1}, "an index is below 0"),
    "no index": ({"index": None}, "a row has no index|cannot|null"),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_that_others_made(name: str, tmp_path: Path) -> None:
    changes, message = ROWS[name]
    loose = results.pyarrow.schema([field.with_nullable(True) for field in results.SCHEMA])
    table = results.pyarrow.Table.from_pylist([row(0), row(1) | changes], schema=loose)
    (tmp_path / "rows").mkdir()
    results.pyarrow.parquet.write_table(table, tmp_path / "rows" / "part-000000.parquet")
    with pytest.raises(CallError, match=rf"part-000000\.parquet does not hold rows of an evaluation.*({message})"):
        results.read_rows(tmp_path)


def test_more_rows_than_a_file_holds_are_not_read(tmp_path: Path) -> None:
    """Eight million equal rows take a few kilobytes, and read they take gigabytes."""
    count = 8_000_000
    column = results.pyarrow.array(numpy.zeros(count, "int64"))
    (tmp_path / "rows").mkdir()
    path = tmp_path / "rows" / "part-000000.parquet"
    results.pyarrow.parquet.write_table(results.pyarrow.table({"index": column}), path)
    assert path.stat().st_size < 100_000
    with pytest.raises(CallError, match="does not hold rows of an evaluation: it claims 8,000,000"):
        results.read_rows(tmp_path, ["index"])


def test_more_layers_than_a_page_has_rows_for(tmp_path: Path) -> None:
    results.write_part(tmp_path, [row(0, layer=f"conv{each}") for each in range(1001)])
    with pytest.raises(CallError, match="rows of 1,001 models, layers and methods are no evaluation"):
        results.by_key(results.read_rows(tmp_path))


@given(
    values=st.lists(st.floats(-50, 150) | st.just(math.inf), min_size=1, max_size=40),
    failed=st.integers(0, 3),
    broken=st.integers(0, 3),
)
def test_the_summary_is_numpys_with_perfect_images_counted_apart(values: list[float], failed: int, broken: int) -> None:
    rows = [row(number, value) for number, value in enumerate(values)]
    rows += [failure(100 + number) for number in range(failed)]
    rows += [failure(200 + number, layer="conv1", method="map") for number in range(broken)]
    table = results.pyarrow.Table.from_pylist(rows, schema=results.SCHEMA)
    found = results.summarise(table, {"sessions": [{"images": 6, "seconds": 2.0}, {"images": 4, "seconds": 3.0}]})
    json.dumps(found, allow_nan=False)
    assert (found["images"], found["failed"]) == (len(rows), failed + broken)
    assert found["images_per_second"] == pytest.approx(2.0)
    (one,) = found["results"]
    assert (one["model"], one["layer"], one["method"]) == ("m", "conv1", "map")
    assert (one["count"], one["failures"]) == (len(values), failed + broken)
    finite = numpy.array([value for value in values if math.isfinite(value)])
    assert one["exact"] == len(values) - len(finite)
    psnr = one["psnr"]
    assert psnr["mean"] == (pytest.approx(finite.mean()) if len(finite) else None)
    assert psnr["std"] == (pytest.approx(finite.std(ddof=1), abs=1e-9) if len(finite) > 1 else None)
    for name, share in (("median", 0.5), ("p5", 0.05), ("p95", 0.95)):
        # By hand: between the two values whose places enclose the quantile's.
        place = share * (len(values) - 1)
        low, high = sorted(values)[math.floor(place)], sorted(values)[math.ceil(place)]
        exact = low if place == math.floor(place) or high == low else low + (place - math.floor(place)) * (high - low)
        assert psnr[name] == (None if math.isinf(exact) else pytest.approx(exact))
    assert one["status"] == {"budget": len(values)}
    assert one["images_per_second"] == pytest.approx(0.5)


def test_keys_are_kept_apart_and_in_order() -> None:
    keys = [("conv2", "linear"), ("conv2", "map"), ("conv1", "linear")]
    rows = [
        row(index, 10.0 * place, layer=layer, method=method)
        for index in (0, 1)
        for place, (layer, method) in enumerate(keys)
    ]
    rows.append(failure(5, layer="conv9", method="map"))
    table = results.pyarrow.Table.from_pylist(rows, schema=results.SCHEMA)
    assert [key[1:] for key in results.by_key(table)] == keys
    found = results.summarise(table, {"sessions": []})
    assert found["images_per_second"] is None
    assert [(each["layer"], each["method"], each["psnr"]["mean"], each["failures"]) for each in found["results"]] == [
        ("conv2", "linear", 0.0, 0), ("conv2", "map", 10.0, 0), ("conv1", "linear", 20.0, 0), ("conv9", "map", None, 1),
    ]  # fmt: skip


@given(values=st.lists(st.integers(0, 8), min_size=1, max_size=30), count=st.integers(0, 6))
def test_the_gallery_shows_the_worst_the_middle_and_the_best(values: list[int], count: int) -> None:
    table = results.pyarrow.Table.from_pylist([row(n, float(v)) for n, v in enumerate(values)], schema=results.SCHEMA)
    found = results.gallery(table, count)
    shown = [index for group in found.values() for index in group]
    assert len(shown) == len(set(shown))
    order = sorted(range(len(values)), key=lambda index: (values[index], index))
    if len(values) >= 3:
        each = min(count, len(values) // 3)
        assert {name: len(group) for name, group in found.items()} == dict.fromkeys(("worst", "median", "best"), each)
        assert found["worst"] == order[:each]
        assert found["best"] == order[::-1][:each]
        # As many images are below the middle ones as above them, to one.
        places = [order.index(index) for index in found["median"]]
        if each:
            assert abs(places[0] - (len(values) - 1 - places[-1])) <= 1
    else:
        assert sorted(shown) == (list(range(len(values))) if count else [])
