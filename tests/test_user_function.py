import json
import sys
from pathlib import Path

import pytest

from reconstruct.errors import CallError
from reconstruct.evaluation.results import read_rows
from reconstruct.user_function import current_folder_importable, function_named, is_function_name
from tests.builders.command_line import SAMPLE, refused, run
from tests.conftest import Call

SMALL = ("--model", "convpool_cnn_c_crelu", "--layer", "conv1", "--json")


@pytest.fixture
def lazy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A method in the current folder that imports its neighbour when it is called."""
    monkeypatch.chdir(tmp_path)
    module = f"lazy_{tmp_path.name}"
    Path(f"{module}.py").write_text(
        f"def method(problem):\n    from {module}_neighbour import start\n\n    return start(problem)\n"
    )
    Path(f"{module}_neighbour.py").write_text(
        "def start(problem):\n    return problem.prior.mean.expand(len(problem), 3, *problem.size)\n"
    )
    return module


def test_pythons_path_stays_as_it_was(lazy: str, tmp_path: Path) -> None:
    before = list(sys.path)
    assert function_named(f"{lazy}:method", "method").__module__ == lazy
    assert sys.path == before
    with pytest.raises(CallError, match="cannot be imported"):
        function_named("nowhere_at_all:method", "method")
    assert sys.path == before
    with current_folder_importable():
        assert sys.path == [*before, str(tmp_path)]
        with current_folder_importable():
            assert sys.path == [*before, str(tmp_path)]
        assert sys.path == [*before, str(tmp_path)]
    assert sys.path == before


def test_a_method_imports_its_neighbours_when_it_is_called(call: Call, lazy: str) -> None:
    before = list(sys.path)
    status, out, err = call(SAMPLE, *SMALL, "--method", f"{lazy}:method", "--size", 32)
    assert (status, err) == (0, "")
    (record,) = json.loads(out)
    assert record["method"] == f"{lazy}:method"
    assert sys.path == before


@pytest.mark.ray
def test_in_workers_of_ray(lazy: str, tmp_path: Path) -> None:
    images = Path(SAMPLE).parent
    done = run(
        "evaluate", str(images), *SMALL, "--method", f"{lazy}:method", "--engine", "ray", "--workers", "1",
        "--limit", "2", "--output", "results", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert read_rows(tmp_path / "results")["error"].to_pylist() == [None, None]


def test_what_names_a_function() -> None:
    assert is_function_name("own:method")
    assert is_function_name("package.module:method")
    for name in ("own", "own:", ":method", "own.py:method", "folder/own:method", "C:\\own:method"):
        assert not is_function_name(name)


def test_what_fails_while_it_is_imported_is_a_sentence_with_its_line(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module = f"broken_{tmp_path.name}"
    Path(f"{module}.py").write_text("x = 1\nnet = {}['weights']\n")
    message = f"{module} cannot be imported: KeyError in {module}.py, line 2: 'weights'"
    with pytest.raises(CallError, match=message):
        function_named(f"{module}:net", "method")
    assert message in refused(call, "models", f"{module}:net")
