"""What the README and the docs show runs as printed, and leads somewhere."""

import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    shutil.copy(ROOT / "samples" / "coffee.jpg", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(example, names)
    assert tuple(names["features"].shape) == (1, 192, 28, 28)  # type: ignore[attr-defined]
    assert tuple(names["result"].image.shape) == (1, 3, 227, 227)  # type: ignore[attr-defined]


def test_the_examples_of_the_papers_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "paper.md").read_text(), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for example in examples:
        exec(example, {})
    assert {path.name for path in tmp_path.iterdir()} == {"pairs.png", "layers.png"}


def test_the_headings_that_pages_point_to_are_there() -> None:
    """A heading's anchor: lower case, no punctuation but hyphens, hyphens for spaces."""
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text()):
            headings = re.findall(r"^#+ (.+)$", (page.parent / target if target else page).read_text(), flags=re.M)
            slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, (page.name, target, anchor)


def test_the_files_it_points_to_are_there() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)
