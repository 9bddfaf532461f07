"""Optional packages: one form of installing them, and names that there are."""

import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from reconstruct.extras import DISTRIBUTION, EXTRAS, install_hint
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "recipes/default_weights.sh")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
ON_PAGES = re.compile(r"\.venv/bin/python -m pip install 'reconstruct-features\[(\w+)\]'")


def test_they_are_those_of_the_project() -> None:
    """The rest is for whoever changes it."""
    assert PROJECT["name"] == DISTRIBUTION
    groups = PROJECT["optional-dependencies"]
    assert groups.keys() - EXTRAS.keys() == {"browser", "docs", "test"}
    assert EXTRAS.keys() <= groups.keys()
    assert f"{DISTRIBUTION}[efficientnet]" in groups["train"]
    for name, extra in EXTRAS.items():
        brought = " ".join(groups[name] + groups["efficientnet"] * (name == "train"))
        known = {"sklearn": "scikit-learn", "huggingface_hub": "timm"}
        own = [known.get(module, module).replace("_", "-") for module in extra.modules if name != "timm"]
        assert all(module in brought for module in own), name


@pytest.mark.parametrize("name", EXTRAS)
def test_the_command_is_for_the_python_that_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shlex.split(install_hint(name)) == [sys.executable, "-m", "pip", "install", f"{DISTRIBUTION}[{name}]"]


def test_the_command_is_short_where_the_environment_lies_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the README sets it up; and a folder with a space in its name is quoted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    assert ON_PAGES.fullmatch(install_hint("ray"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "my env" / "python"))
    assert install_hint("ray").startswith("'my env/python' -m pip")


def test_no_page_and_no_message_has_another_form() -> None:
    """A name that is somebody else's package is nowhere given to pip, and each extra that is named exists."""
    named = set()
    for page in PAGES:
        text = re.sub(r"\s+", " ", page.read_text())
        for found in re.finditer(r"pip install[^`]*?\[", text):
            whole = ON_PAGES.search(text, max(0, found.start() - 40))
            assert whole, (page.name, found[0])
            named.add(whole[1])
        assert not re.search(r"\breconstruct\[", text), page.name
    assert named <= EXTRAS.keys()
    assert len(named) > 5
    for path in (ROOT / "reconstruct").rglob("*.py"):
        if path.name != "extras.py":
            assert not re.search(r"reconstruct(-features)?\[|pip install(?! --upgrade pillow)", path.read_text()), path
