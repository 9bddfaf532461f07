"""The documentation as a site: built without a complaint, and docstrings as they are to be read."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.extras


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="needs MkDocs: make test-extras")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_it_loads_nothing_from_elsewhere(site: Path) -> None:
    """Scripts, styles, pictures, fonts: only links lead out, and only of a page's own text."""
    pages = list(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        text = page.read_text()
        for tag in re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", text):
            assert not re.search(r'(?:src|href|srcset)="?(?:https?:)?//', tag), (page.name, tag)
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//|@import", style.read_text()), style


def test_files_of_the_repository_come_along(site: Path) -> None:
    """A link out of docs leads to a copy, as it does on a code host to the file."""
    text = (site / "training.html").read_text()
    assert 'href="repository/recipes/photographs.py"' in text
    copied = site / "repository" / "recipes" / "photographs.py"
    assert copied.read_bytes() == (ROOT / "recipes" / "photographs.py").read_bytes()
    # One that is a page itself leads back.
    assert 'href="repository/CONTRIBUTING.html"' in (site / "architecture.html").read_text()
    assert 'href="../architecture.html"' in (site / "repository" / "CONTRIBUTING.html").read_text()


def test_docstrings_are_read_as_meant(site: Path) -> None:
    """A description is no type, lists have their items, and no section or mark is left as it was typed."""
    text = (site / "reference" / "public.html").read_text()
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", text))
    assert "layer (str | Sequence[str]) – the layer's name, or a list of names." in plain
    assert "Returns: Result – Result, its image on the features' device." in plain
    assert "FeatureError – features of a wrong shape, not finite" in plain
    for page in (site / "reference").glob("*.html"):
        shown = re.sub(r"<[^>]+>", "", re.sub(r"<(script|code)\b.*?</\1>", "", page.read_text(), flags=re.DOTALL))
        assert not re.search(r"-{6,}|``|^:::", shown, flags=re.MULTILINE), page.name
        for title in ("Parameters", "Attributes", "Raises", "Returns"):
            # The parser's headings end in a colon.
            assert not re.search(rf"^\s*{title}\s*$", shown, flags=re.MULTILINE), (page.name, title)
