import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy
import pytest

from reconstruct import results
from reconstruct.errors import CallError
from reconstruct.report.page import write_report
from reconstruct.report.pictures import Album
from tests.pages import KEYS, RUN, made, values

HOSTILE = [
    "<script>alert(1)</script>.png", '"><img src=x onerror=alert(1)>.jpg', "{{ 7 * 7 }}.png", "x" * 400 + ".png",
    "日本語 ← ünï.png", "' onmouseover='alert(1)", "</style><svg onload=alert(1)>", "javascript:alert(1).png",
]  # fmt: skip


class Page(HTMLParser):
    """What a page holds: its elements with attributes, the tables' cells, and all text outside scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self._raw = self._cell = False
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._raw = tag in ("script", "style")
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._cell = True
        elif tag == "br" and self._cell:
            self.tables[-1][-1][-1] += " "

    def handle_endtag(self, tag: str) -> None:
        self._raw = False
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if not self._raw:
            self.text += data
            if self._cell:
                self.tables[-1][-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page(*folders: Path) -> Page:
    target = folders[0].parent / "page.html"
    write_report(folders, target)
    return Page(target)


def cells(found: Page, layer: str, method: str) -> list[str]:
    """The row of the summary of a layer and method."""
    return next(
        [" ".join(cell.split()) for cell in line] for line in found.tables[0] if line[:2] == [layer, method]
    )  # fmt: skip


def said(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def test_the_summarys_numbers_are_numpys(tmp_path: Path) -> None:
    psnr = values(30)
    psnr["conv1", "map"][3] = math.inf
    found = page(made(tmp_path / "results", psnr, errors=[{"error": "truncated"}, {"error": "too small"}]))
    for layer, method in KEYS:
        of = psnr[layer, method]
        finite = of[numpy.isfinite(of)]
        row = cells(found, layer, method)
        assert row[2:4] == ["30 1 exact" if len(finite) < 30 else "30", "2"]
        assert row[4] == f"{said(finite.mean(), 2)} ± {said(finite.std(ddof=1), 2)}"
        low, high = numpy.quantile(numpy.minimum(of, 1e300), (0.05, 0.95))
        if high < 1e200:
            assert row[5] == f"{said(float(numpy.median(of)), 2)} {said(low, 1)} to {said(high, 1)}"
        assert "budget 30" in row
    assert "30 images of 32 were rebuilt without a failure; 2 failed at least once." in found.text
    assert "1 reconstruction is exact" in found.text
    best = max(KEYS, key=lambda key: psnr[key][numpy.isfinite(psnr[key])].mean())
    assert f"Best: {best[0]} by {best[1]} with a PSNR of" in found.text
    assert "1,305 pictures. Not ImageNet." in found.text
    assert RUN["call"] in found.text


def test_nothing_is_fetched_and_nothing_hostile_gets_in(tmp_path: Path) -> None:
    psnr = values(len(HOSTILE), [("<b>conv1</b>", "map")])
    errors = [{"image": name, "error": f"{name}: {name}"} for name in HOSTILE]
    run = RUN | {"call": "reconstruct evaluate '</script><script>alert(1)</script>'", "trained_on": "<i>x</i>"}
    found = page(made(tmp_path / "results", psnr, names=HOSTILE, errors=errors, run=run))
    assert len(found.all("script")) == 1
    assert len(found.all("style")) == 1
    tags = {tag for tag, _ in found.elements}
    assert not tags & {"i", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in found.elements:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster", "data"):
            if attributes.get(name):
                assert re.match(r"data:image/|data:,$|#", str(attributes[name])), attributes
    assert "49.png" not in found.text
    assert "{{ 7 * 7 }}.png" in found.text
    assert not re.search(r"(?:https?:)?//(?!www\.w3\.org/)[a-z]", re.sub(r"data:[^\"')]+", "", found.source.lower()))
    policy = next(
        str(each["content"]) for each in found.all("meta") if each.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in next(part for part in policy.split(";") if "script-src" in part)


def test_pictures_have_a_text_each_and_are_embedded_once(tmp_path: Path) -> None:
    folder = made(tmp_path / "results", values(30))
    found = page(folder)
    shown = sum(len(group) for table in results.by_key(results.read_rows(folder)).values()
                for group in results.gallery(table, 2).values())  # fmt: skip
    sliders = [each for each in found.all("input") if each["type"] == "range"]
    assert len(sliders) == shown == 24
    assert all(str(each["aria-label"]).strip() for each in sliders)
    for tag in ("img", "svg"):
        for each in found.all(tag):
            assert each.get("alt") or each.get("aria-label") or each.get("aria-hidden") == "true", each
    files = {path.read_bytes() for path in (folder / "thumbnails").iterdir()}
    assert len(re.findall(r"data:image/webp;base64,", found.source)) == len(files)
    headings = [int(tag[1]) for tag, _ in found.elements if re.fullmatch(r"h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(headings))
    assert found.all("html")[0]["lang"] == "en"
    ids = [each["id"] for _, each in found.elements if "id" in each]
    assert len(ids) == len(set(ids))
    for each in found.all("a"):
        assert str(each["href"]).lstrip("#") in ids


def test_thumbnails_that_are_missing_or_broken_are_said_to_be(tmp_path: Path) -> None:
    folder = made(tmp_path / "results", values(30))
    pictures = sorted((folder / "thumbnails").glob("*.conv1.map.webp"))
    pictures[0].unlink()
    pictures[1].write_bytes(b"half")
    assert "2 pictures that would stand here have no thumbnail" in page(folder).text
    none = made(tmp_path / "none", values(30), thumbnails=False)
    assert "holds no thumbnails" in page(none).text


def test_runs_with_little_in_them(tmp_path: Path) -> None:
    """Nothing, only failures, one image, equal images, only exact ones: a page each."""
    empty = page(made(tmp_path / "empty", {}))
    assert "0 images of 0" in empty.text
    failed = page(made(tmp_path / "failed", {}, errors=[{"error": "truncated"}] * 3))
    assert "3 failed" in failed.text
    assert "There is nothing to draw" in failed.text
    one = page(made(tmp_path / "one", values(1)))
    assert cells(one, "conv1", "map")[2] == "1"
    equal = page(made(tmp_path / "equal", {("conv1", "map"): numpy.full(40, 31.5)}))
    assert cells(equal, "conv1", "map")[4] == "31.50 ± 0.00"
    exact = page(made(tmp_path / "exact", {("conv1", "map"): numpy.full(5, math.inf)}))
    row = cells(exact, "conv1", "map")
    assert row[2] == "5 5 exact"
    assert "\N{INFINITY}" in row[5]
    assert "nan" not in exact.text.lower()


def test_failures_are_listed_up_to_two_hundred(tmp_path: Path) -> None:
    errors = [{"error": f"broken {number}"} for number in range(230)]
    found = page(made(tmp_path / "results", values(3), errors=errors))
    listed = next(table for table in found.tables if table[0] == ["Image", "At", "Error"])
    assert len(listed) == 201
    assert "the first 200 of 230 failures are listed" in found.text


def test_a_page_of_fifty_thousand_images_is_small(tmp_path: Path) -> None:
    """Rows are counted, not embedded; as many pictures as fit, of every layer and method alike."""
    keys = [(f"conv{number}", method) for number in range(1, 10) for method in ("linear", "map", "wiener", "gradient")]
    folder = made(tmp_path / "results", values(200, keys), run=RUN | {"gallery": 4})
    for each in (folder / "thumbnails").iterdir():
        each.write_bytes(each.read_bytes() + bytes(12_000))  # as large as a detailed photograph's
    small = page(folder)
    assert len(small.source) < 5_000_000
    groups = re.findall(r"<h4>(\w+)</h4>", small.source)
    assert groups.count("Worst") >= len(keys) * 0.9
    assert "more pictures of these are not shown" in small.text
    large = page(made(tmp_path / "large", values(50_000, keys[:4]), thumbnails=False))
    few = page(made(tmp_path / "few", values(300, keys[:4]), thumbnails=False))
    assert len(large.source) < 2 * len(few.source)


def test_an_album_takes_pictures_once_and_all_or_none(tmp_path: Path) -> None:
    folder = made(tmp_path / "results", values(30))
    paths = sorted((folder / "thumbnails").iterdir())[:3]
    pictures = [picture for picture in map(Album().find, paths) if picture is not None]
    album = Album(most=len(pictures[0].data) + len(pictures[1].data) + 10)
    first, second, third = (album.find(path) for path in paths)
    assert first is not None
    assert second is not None
    assert third is not None
    assert album.take([first, first])
    assert not album.take([second, third])
    assert album.take([first, second])
    assert album.pictures == [first, second]


def test_a_comparison_says_who_is_better_and_what_differs(tmp_path: Path) -> None:
    psnr = values(30)
    better = {key: value + 1.5 + numpy.random.default_rng(5).normal(0, 0.5, 30) for key, value in psnr.items()}
    settings = RUN["settings"] | {"options": {"budget": 900.0}}
    first = made(tmp_path / "a" / "results", psnr)
    second = made(tmp_path / "b" / "results", better, run=RUN | {"settings": settings})
    found = page(first, second)
    assert "a/results" in found.text
    difference = better["conv1", "map"] - psnr["conv1", "map"]
    assert f"b/results is {said(difference.mean(), 2)} dB better than a/results at conv1 by map" in found.text
    differing = next(table for table in found.tables if table[0][0] == "Setting")
    assert differing[1:] == [["settings.options.budget", "none", "900.0"]]
    # A page of three, one of them with nothing in common.
    third = made(tmp_path / "c", {("fc", "wiener"): values(30)["conv1", "map"]})
    with pytest.raises(CallError, match="share no layer and method"):
        page(first, second, third)
    same = page(first, first)
    assert "are equal at conv1 by map, on 30 pictures" in same.text


def test_what_is_no_folder_of_results_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(CallError, match=r"no run\.json"):
        write_report([tmp_path], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_the_same_results_give_the_same_page(tmp_path: Path) -> None:
    folder = made(tmp_path / "results", values(30))
    assert page(folder).source == page(folder).source
