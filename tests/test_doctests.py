"""Examples in docstrings run, and give what they say: those of public names, and any other."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT

PACKAGE = ROOT / "reconstruct"
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text()
]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As sessions in a folder that has the checkout's ``samples``, and where they may write."""
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    monkeypatch.chdir(tmp_path)
    module = import_module(name)
    found = [each for each in doctest.DocTestFinder().find(module, name, globs={}) if each.examples]
    assert found, f"{name} shows a session outside its docstrings"
    for test in found:
        torch.manual_seed(0)
        complaints: list[str] = []
        ran = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=complaints.append)
        assert ran.failed == 0, "".join(complaints)
