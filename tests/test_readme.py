"""What the README shows runs as printed."""

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


def test_the_files_it_points_to_are_there() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)
