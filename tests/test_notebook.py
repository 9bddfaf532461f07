"""The notebook of ``examples`` runs from its first cell to its last, and is kept without what a run has printed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, SAMPLES

NOTEBOOK = ROOT / "examples" / "first_steps.ipynb"


def test_it_runs_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a notebook's kernel runs it: every cell of code in turn, in one namespace, beside the folder of samples."""
    (tmp_path / "samples").mkdir()
    shutil.copy(next(path for path in SAMPLES if path.name == "chelsea.jpg"), tmp_path / "samples")
    (tmp_path / "examples").mkdir()
    monkeypatch.chdir(tmp_path / "examples")
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None), number
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    psnr = names["psnr"]
    assert psnr["conv1"] > psnr["conv2"] > psnr["flat"] + 5
    written = sorted(path.name for path in Path.cwd().iterdir())
    assert written == ["conv1.png", "conv2.png", "difference.png", "original.png"]
    assert (notebook["nbformat"], notebook["metadata"]["kernelspec"]["language"]) == (4, "python")
