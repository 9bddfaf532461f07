"""Pages of several runs beside each other."""

from pathlib import Path

import numpy
import pytest
import scipy.stats

from reconstruct.errors import CallError
from reconstruct.evaluation import results
from reconstruct.report.pages.comparison import labels
from reconstruct.report.pages.write import write_report
from tests.builders.page_reader import number, page_of
from tests.builders.results_folder import (
    random_rows,
    save,
)


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


def test_labels_are_unique() -> None:
    folders = [Path("/a/run"), Path("/b/run"), Path("/b/other"), Path("/b/run")]
    assert labels(folders) == ["a/run", "b/run", "other", "b/run (2)"]
