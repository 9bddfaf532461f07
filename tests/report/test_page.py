"""Pages of results: what they say, and that nothing in them is anybody's but the report's."""

import base64
import json
import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy
import pytest
import scipy.stats

from reconstruct.errors import CallError
from reconstruct.evaluation import results
from reconstruct.report import charts
from reconstruct.report.compare import compare
from reconstruct.report.comparison_page import labels
from reconstruct.report.page import numbers, write_report
from reconstruct.report.pictures import Album
from reconstruct.report.run_page import galleries
from reconstruct.report.wording import differing, signed
from tests.builders.results_folder import (
    HOSTILE,
    add_thumbnails,
    failure,
    picture,
    random_rows,
    row,
    run_json,
    save,
    save_many,
)

VOID = {"meta", "link", "br", "input", "image", "use", "path", "rect"}


class Page(HTMLParser):
    """Elements with their attributes and text, and tables as rows of cells."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text: dict[str, list[str]] = {}
        self._open: list[str] = []
        self._table = ""
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self._table = dict(attrs).get("class") or "other"
            self.tables[self._table] = []
        if tag == "tr":
            self.tables[self._table].append([])
        if tag in ("td", "th"):
            self.tables[self._table][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.text.setdefault(self._open[-1], []).append(data)
        if {"td", "th"} & set(self._open):
            self.tables[self._table][-1][-1] += f" {data.strip()}"

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def words(self) -> str:
        return " ".join(" ".join(each) for name, each in self.text.items() if name not in ("script", "style"))


def page_of(*folders: Path) -> Page:
    target = folders[0].parent / "page.html"
    write_report(folders, target)
    return Page(target)


def number(text: str) -> float:
    return float(text.replace("−", "-").replace(",", ""))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = dict(enumerate(HOSTILE))
    rows = random_rows(40, ["conv1", "conv2"], ["linear", "map"], seed=3, names=names)
    rows += [failure(40 + i, f"{name}: cannot be read", image=name + "2") for i, name in enumerate(HOSTILE)]
    saved = save(tmp_path / "run", rows)
    add_thumbnails(saved)
    return saved


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
        assert cells[13].split() == ["budget", f"{budget},", "converged", f"{40 - budget}"]


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


@pytest.mark.parametrize("both", [False, True])
def test_nothing_is_asked_of_a_network_and_hostile_text_is_text(folder: Path, tmp_path: Path, both: bool) -> None:
    if both:
        rows = random_rows(40, ["conv1", "conv2"], ["linear", "map"], seed=4, names=dict(enumerate(HOSTILE)))
        other = save(tmp_path / "<b>other", rows, call="<script>alert(2)</script>")
        add_thumbnails(other, 9)
        found = page_of(folder, other)
    else:
        found = page_of(folder)
    for tag, attributes in found.elements:
        assert tag not in ('b"', "img", "iframe", "object", "embed", "base", "form")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("href", "src", "srcset", "action", "poster", "data", "xlink:href"):
                assert value.startswith(("data:", "#")), value
            if "url(" in value:
                assert re.fullmatch(r"url\(#\w+\)", value), value
    assert not re.search(r"url\((?!#)|@import|https?:", found.source)
    assert "alert" not in "".join(found.text["script"])
    assert len(found.all("script")) == 1
    assert found.source.count("<script") == 1
    policy = next(each["content"] for each in found.all("meta") if each.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "script-src 'sha256-" in policy
    # Said, though, as text.
    assert "<script>alert(1)</script>.jpg" in found.words()


def test_page_is_readable_by_machines(folder: Path) -> None:
    found = page_of(folder)
    assert found.all("html") == [{"lang": "en"}]
    assert any(each.get("name") == "viewport" for each in found.all("meta"))
    assert "".join(found.text["title"]).startswith("small")
    names = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(names) == len(set(names))
    targets = [each["href"][1:] for tag in ("a", "use") for each in found.all(tag) if each["href"].startswith("#")]
    assert targets
    assert set(targets) <= set(names)
    levels = [int(tag[1]) for tag, _ in found.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for each in found.all("svg"):
        assert each.get("aria-label") or each.get("aria-hidden")
    for each in found.all("input"):
        assert each["aria-label"]


def test_every_picture_is_embedded_once(folder: Path) -> None:
    found = page_of(folder)
    held = [each["href"] for each in found.all("image")]
    assert held
    assert len(set(held)) == len(held)
    # Worst, median and best of four layers and methods, four each, two pictures a pair.
    assert len(found.all("input")) == 4 * 3 * 4
    pictures = {"#" + each["id"]: each["href"] for each in found.all("image")}
    labels = [each["aria-label"] for each in found.all("svg") if "picture" in each.get("class", "")]
    uses = [each["href"] for each in found.all("use") if each["href"] in pictures]
    assert len(uses) == len(labels) == 4 * 3 * 4 * 2
    for label, use in zip(labels, uses, strict=True):
        known = re.fullmatch(r"(?:Original|Rebuilt from (\w+) by (\w+)): (\d{5}).jpg", label)
        if known:
            path = results.thumbnail(folder, int(known[3]), known[1], known[2])
            assert pictures[use] == "data:image/webp;base64," + base64.b64encode(path.read_bytes()).decode()


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


def test_charts_are_the_same_every_time_and_take_the_pages_colours() -> None:
    values = numpy.random.default_rng(1).normal(25, 3, 500)
    spreads = [charts.Spread("conv1", "$x_1$ <b>", 0, values), charts.Spread("conv2", "map", 1, values[:3])]
    drawn = charts.distributions(spreads, "PSNR, dB", 1, 'said "so"')
    assert drawn == charts.distributions(spreads, "PSNR, dB", 1, 'said "so"')
    assert not re.search(r"#[0-9a-f]{6}|https?:|<!--|<metadata|DejaVu", drawn)
    assert {"var(--ink)", "var(--c0)", "var(--c1)"} <= set(re.findall(r"var\(--\w+\)", drawn))
    assert "$x_1$ &lt;b&gt;" in drawn
    assert f">{numpy.median(values):.1f}<" in drawn
    assert 'aria-label="said &#34;so&#34;"' in drawn


@pytest.mark.parametrize("values", [[25.0], [25.0] * 60, [math.inf], [math.inf, 3.0], [0.0, 0.0], []])
def test_charts_of_little(values: list[float]) -> None:
    drawn = charts.distributions([charts.Spread("conv1", "map", 0, numpy.array(values))], "PSNR, dB", 1, "said")
    assert "nan" not in drawn
    assert "inf" not in drawn
    said = ">all exact<" if values == [math.inf] else ">none<" if not values else ">25.0<" if 25 in values else "<svg"
    assert said in drawn


def test_work_is_drawn_with_and_without_preparation() -> None:
    points = [
        charts.Work("map", 0, 30.0, 970.0, 25.0, 20.0, 30.0),
        charts.Work("linear", 1, 0.0, 0.0, 20.0, 20.0, 20.0),
    ]
    limits = charts.work_limits(points)
    assert limits[0] == (10.0, 10_000.0)
    drawn = charts.work(points, "conv1", *limits)
    assert "median 25.0 dB for 30 passes, 1e+03 with preparation" in drawn
    assert ">10,000<" in drawn


# Comparisons.


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    first = save(tmp_path / "first", random_rows(40, ["conv1", "conv2"], ["linear", "map"], seed=5))
    other = run_json()
    other["settings"]["model"] = other["settings"]["model"] | {"name": "large"}
    other["settings"]["options"] = other["settings"]["options"] | {"budget": 50.0}
    rows = random_rows(40, ["conv1", "conv2"], ["linear", "map"], seed=6)
    for each in rows:
        each["psnr"] += 6
    second = save(tmp_path / "second", rows, settings=other["settings"])
    for saved in (first, second):
        add_thumbnails(saved, 9)
    return first, second


def test_comparison_says_the_differences(two: tuple[Path, Path]) -> None:
    found = page_of(*two)
    before, after = (results.by_key(results.read_rows(folder)) for folder in two)
    body = [line for line in found.tables["differences"] if " by " in line[0]]
    assert len(body) == 4
    for cells, one, other in zip(body, before.values(), after.values(), strict=True):
        gained = scipy.stats.ttest_rel(other["psnr"].to_numpy(), one["psnr"].to_numpy())
        mean = float(numpy.mean(other["psnr"].to_numpy() - one["psnr"].to_numpy()))
        interval = gained.confidence_interval(0.95)
        assert number(cells[2]) == 40
        assert number(cells[3]) == pytest.approx(mean, abs=0.005)
        assert [number(each) for each in cells[4].split(" to ")] == pytest.approx(list(interval), abs=0.005)
        said = f"second is {mean:.2f} dB better than first at {cells[0].strip()}, 95 % interval {interval.low:.2f} to"
        assert said in found.words()
    assert len([each for each in found.all("svg") if each.get("class") == "chart"]) == 2


def test_comparison_lists_exactly_what_differs(two: tuple[Path, Path]) -> None:
    lines = page_of(*two).tables["differing"]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["Setting", "first", "second"],
        ["model.name", "small", "large"],
        ["options.budget", "none", "50.0"],
    ]


def test_comparison_shows_pictures_of_both(two: tuple[Path, Path]) -> None:
    found = page_of(*two)
    shown = [each["aria-label"].split(":")[0] for each in found.all("svg") if "picture" in each.get("class", "")]
    assert shown
    assert len(shown) % 3 == 0
    assert shown == ["original", "first", "second"] * (len(shown) // 3)


def test_comparison_of_three_and_of_other_methods(two: tuple[Path, Path], tmp_path: Path) -> None:
    third = save(tmp_path / "deep" / "first", random_rows(40, ["conv1"], ["map"], seed=8))
    found = page_of(*two, third)
    assert len([line for line in found.tables["differences"] if " by " in line[0]]) == 5
    assert f"{tmp_path.name}/first" in found.words()
    assert "deep/first" in found.words()


def test_comparison_of_nothing_in_common_names_the_folders(two: tuple[Path, Path], tmp_path: Path) -> None:
    other = save(tmp_path / "other", random_rows(4, ["fc"], ["gradient", "map"], seed=8))
    with pytest.raises(CallError, match=r"other.*share no layer and method"):
        write_report([two[0], other], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_folders_without_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CallError, match=r"no run\.json"):
        write_report([tmp_path], tmp_path / "page.html")


def test_labels_are_unique() -> None:
    folders = [Path("/a/run"), Path("/b/run"), Path("/b/other"), Path("/b/run")]
    assert labels(folders) == ["a/run", "b/run", "other", "b/run (2)"]


def test_settings_that_differ() -> None:
    assert differing([{"a": {"b": None, "c": [1]}, "d": 0}, {"a": {"b": None, "c": [1, 2]}, "e": 0}]) == {
        "a.c": ["1", "1, 2"],
        "d": ["0", "–"],
        "e": ["–", "0"],
    }


def test_signs() -> None:
    assert [signed(value, 1) for value in (1.26, -1.26, 0.01, -0.01, None)] == ["+1.3", "−1.3", "0.0", "0.0", "–"]


def test_album_gives_one_picture_a_file(tmp_path: Path) -> None:
    picture(tmp_path / "0.webp", 1)
    album = Album()
    found = album.find(tmp_path / "0.webp")
    assert found is not None
    assert found is album.find(tmp_path / "0.webp")
    assert (found.width, found.height, found.small) == (32, 32, True)
    assert album.find(tmp_path / "1.webp") is None


def test_as_many_pictures_as_evaluate_kept(folder: Path) -> None:
    results.write_json(folder / "run.json", run_json(gallery=1))
    found = page_of(folder)
    assert len(found.all("input")) == 4 * 3
    assert "have no thumbnail" not in found.words()


def test_the_numbers_of_pages(folder: Path, two: tuple[Path, Path]) -> None:
    table = results.read_rows(folder)
    assert numbers([folder]) == results.summarise(table, results.read_run(folder))
    found = json.loads(json.dumps(numbers(list(two)), allow_nan=False))
    assert [each["run"] for each in found["runs"]] == [path.name for path in two]
    expected = compare(*map(results.read_rows, two))
    assert len(found["differences"]) == len(expected)
    for each, difference in zip(found["differences"], expected, strict=True):
        assert each["run"] == two[1].name
        assert each["first"] == {"layer": difference.first.layer, "method": difference.first.method}
        assert each["psnr"]["mean"] == difference.psnr.mean
        assert each["pairs"] == difference.pairs
