"""``reconstruct doctor``: its text, its JSON and its exit status."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from reconstruct.evaluation import installation
from reconstruct.extras import EXTRAS
from reconstruct.threads import cpu_quota
from tests.conftest import Call


@pytest.fixture
def sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation with nothing broken, whatever this one is, that lacks onnx."""
    monkeypatch.setattr(installation, "BUILT_FOR_ONE_TORCH", ())
    monkeypatch.setattr(installation.torch, "get_num_threads", lambda: 1)
    present = installation.find_spec
    monkeypatch.setattr(installation, "find_spec", lambda name: None if name == "onnx" else present(name))


@pytest.mark.usefixtures("sound")
def test_text_and_json_say_the_same(call: Call) -> None:
    status, out, err = call("doctor", "--json")
    found = json.loads(out)
    assert (status, err, found["problems"]) == (0, "", [])
    assert found["versions"]["torch"].startswith(sys.modules["torch"].__version__.split("+")[0])
    extras = {each["name"]: each for each in found["extras"]}
    assert extras.keys() == EXTRAS.keys()
    assert extras["onnx"]["missing"] == ["onnx"]
    assert "reconstruct-features[onnx]" in extras["onnx"]["install"]

    status, text, err = call("doctor")
    assert (status, err) == (0, "")
    lines = text.splitlines()
    assert f"  {extras['onnx']['install']}" in lines
    assert lines[-1] == "nothing is wrong"
    for said in ("torch 1", found["cache"]["folder"], found["python"], "cores are ours"):
        assert said in text
    states = {line.split()[0]: line.split()[1] for line in lines if line.startswith("  ") and " -m pip" not in line}
    assert states["onnx"] == "missing"


@pytest.mark.usefixtures("sound")
def test_the_cache_is_counted(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONSTRUCT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "below").mkdir(parents=True)
    for name, size in (("a", 1000), ("below/b", 500)):
        (tmp_path / "cache" / name).write_bytes(bytes(size))
    cache = json.loads(call("doctor", "--json")[1])["cache"]
    assert (cache["files"], cache["bytes"], cache["error"]) == (2, 1500, None)


@pytest.mark.usefixtures("sound")
def test_what_is_wrong_is_told_and_ends_with_1(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that is a file, more threads than cores, and a package that was built for another torch."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("RECONSTRUCT_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(installation.torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(installation, "cpu_quota", lambda: 1.5)
    monkeypatch.setattr(installation, "BUILT_FOR_ONE_TORCH", ("sklearn",))

    def broken(name: str) -> Any:
        raise RuntimeError(f"{name} does not fit")

    monkeypatch.setattr(installation.importlib, "import_module", broken)
    status, out, err = call("doctor")
    told = [line.removeprefix("wrong: ") for line in out.splitlines() if line.startswith("wrong: ")]
    assert (status, err) == (1, "")
    threads, cache, package = told
    assert threads == (
        "torch starts 64 threads and this process has 1.5 cores: they would wait for each other; set OMP_NUM_THREADS=1"
    )
    assert f"the cache folder {tmp_path / 'file'} cannot be written to" in cache
    assert package.startswith("sklearn is installed and cannot be imported (sklearn does not fit)")
    assert json.loads(call("doctor", "--json")[1])["problems"] == told


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_a_container(files: dict[str, str], cores: float | None, tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert cpu_quota(tmp_path) == cores
