"""Pages of results: that nothing in them is anybody's but the report's, and their numbers."""

import base64
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from reconstruct.errors import CallError
from reconstruct.evaluation import results
from reconstruct.report.compare import compare
from reconstruct.report.pages.write import numbers, write_report
from tests.builders.page_reader import page_of
from tests.builders.results_folder import (
    HOSTILE,
    add_thumbnails,
    random_rows,
    save,
)


def test_folders_without_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CallError, match=r"no run\.json"):
        write_report([tmp_path], tmp_path / "page.html")


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
