"""Every script in ``examples`` runs, draws what it says, and its page tells no other numbers."""

import math
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import reconstruct
from tests.conftest import ROOT

MAKER = SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "examples.py")))
ON_PAGE = MAKER.labels_on(MAKER.PAGE.read_text())
DECIBEL = re.compile(r"(\d+\.\d) dB")
WHERE = 0.6
"""How far, in dB, another machine's arithmetic may move a number of the page."""


def numbers(labels: str) -> list[float]:
    return [float(found) for found in DECIBEL.findall(labels)]


# What each docstring claims, on the PSNR of its panels from left to right.
CLAIMS: dict[str, Any] = {
    "first_inversion": lambda one: one > 30,
    "methods_compared": lambda linear, wiener, gradient, probable: probable > max(linear, wiener, gradient),
    "phases_of_crelu": lambda one: one > 30,
    "least_squares_with_scipy": lambda *four: list(four) == sorted(four),
    "your_own_network": lambda *four: list(four) == sorted(four, reverse=True),
    "your_own_method": lambda pixels, prior, probable: pixels < prior < probable,
    "what_pooling_leaves": lambda before, after: after < before,
    "noisy_features": lambda exact, rounded, told, untold: untold < told < rounded < exact + WHERE,
}


SLOW = pytest.mark.slow
"""What prepares much for a few passes."""
SCRIPTS = [
    pytest.param(script, id=script.stem, marks=[SLOW] if script.stem == "what_pooling_leaves" else [])
    for script in MAKER.SCRIPTS
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_it_draws_what_it_says(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(script.parent))
    monkeypatch.setattr(sys, "argv", [str(script), "--output", str(tmp_path / "made")])
    names = runpy.run_path(str(script), run_name="__main__")
    labels = MAKER.labels_of(capsys.readouterr().out)

    (written,) = (tmp_path / "made").iterdir()
    assert written.name == f"{script.stem}.webp"
    with Image.open(written) as made, Image.open(MAKER.PICTURES / written.name) as shown:
        assert made.size == shown.size

    # Its best picture is better than a flat one of the mean colour.
    image = names["image"]
    [flat] = reconstruct.quality(image, image.mean(dim=(2, 3), keepdim=True).expand_as(image)).psnr
    assert flat + 5 < max(numbers(labels)) < math.inf
    assert CLAIMS[script.stem](*numbers(labels))

    assert DECIBEL.sub("dB", labels) == DECIBEL.sub("dB", ON_PAGE[script.stem])
    assert numbers(labels) == pytest.approx(numbers(ON_PAGE[script.stem]), abs=WHERE)


def test_the_page_is_made_from_the_scripts() -> None:
    """All of them, by their docstrings; only the numbers are taken from the page itself."""
    assert MAKER.PAGE.read_text() == MAKER.page_of(ON_PAGE)
    scripts = {path for path in (ROOT / "examples").glob("*.py") if path.stem != "panels"}
    assert scripts == set(MAKER.SCRIPTS)
    assert set(CLAIMS) == {script.stem for script in scripts}
    pictures = list(MAKER.PICTURES.iterdir())
    assert {path.stem for path in pictures} == set(CLAIMS)
    assert max(path.stat().st_size for path in pictures) < 150_000


def test_it_runs_as_the_page_says(tmp_path: Path) -> None:
    """A process of its own, from another folder."""
    script = ROOT / "examples" / "first_inversion.py"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["first_inversion.webp"]
