"""The check of a GPU, without one: the CPU held against itself, and what is said of a device that computes wrongly."""

import json
from dataclasses import replace

import pytest
import torch

from reconstruct.evaluation import gpu_check
from reconstruct.evaluation.gpu_check import Finding, check_gpu, judged, lacking, memory_over_a_loop, problems
from tests.conftest import Call

CPU = torch.device("cpu")


def test_a_device_agrees_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, in every check; and what it says can be written down."""
    monkeypatch.setattr(gpu_check, "LARGE", (2, 35))
    monkeypatch.setattr(gpu_check, "BUDGET", 12)
    fewer = tuple(replace(each, filters=4) if each.has_weights else each for each in gpu_check.LAYERS)
    monkeypatch.setattr(gpu_check, "LAYERS", fewer)
    found = json.loads(json.dumps(check_gpu(CPU)))
    assert [each["name"] for each in found["checks"]] == [*gpu_check.CHECKS, "memory over a loop, bytes"]
    assert problems(found) == []
    for each in found["checks"][:-1]:
        assert each["good"]
        assert each["measured"] == 0
        assert found["seconds"][each["name"]]["cpu"] > 0
    assert found["checks"][-1]["measured"] is None


def test_a_wrong_result_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that differs, one that is no number, one that raises: each by its name, and the others all the same."""
    calls: dict[str, int] = {}

    def wrong_later(name: str, wrong: float) -> gpu_check.Values:
        """The third and fourth calls are the GPU's."""
        calls[name] = calls.get(name, 0) + 1
        return {"image": torch.ones(2, 2) + (wrong if calls[name] > 2 else 0.0), "original": torch.full((2, 2), 3.0)}

    def fails(device: torch.device) -> gpu_check.Values:
        raise RuntimeError("no kernel image is available")

    checks = {
        "near": (lambda device: wrong_later("near", 1e-5), 1e-4, None),
        "far": (lambda device: wrong_later("far", 0.5), 0.1, "original"),
        "nothing": (lambda device: wrong_later("nothing", torch.nan), 0.1, None),
        "broken": (fails, 0.1, None),
    }
    monkeypatch.setattr(gpu_check, "CHECKS", checks)
    found = check_gpu(CPU)
    assert [each["good"] for each in found["checks"]] == [True, False, False, False, True]
    differs, nothing, broken = problems(found)
    assert differs == "far: the GPU is 0.25 from the CPU, 0.1 allowed"
    assert nothing.startswith("nothing fails on the GPU")
    assert broken == "broken fails on the GPU: no kernel image is available"


def test_how_far_apart() -> None:
    """By the largest number, or by what the image itself misses: solved by hand."""
    cpu, gpu = {"a": torch.tensor([2.0, -4.0])}, {"a": torch.tensor([2.0, -3.0])}
    assert judged("a", cpu, gpu, 0.3, None) == Finding("a", 0.25, 0.3)
    found = judged("a", cpu | {"b": torch.tensor([2.0, -2.0])}, gpu, 0.3, "b")
    assert found == Finding("a", 0.5, 0.3)
    assert not found.good
    assert not judged("a", cpu, {"a": torch.tensor([2.0])}, 0.3, None).good
    assert not Finding("a", float("nan"), 0.3).good


@pytest.mark.parametrize(("held", "good"), [([5, 9] + [7] * 10, True), ([5, 9, *range(10, 20)], False)])
def test_memory_that_grows_is_told(held: list[int], good: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first rounds take for good is none of it."""
    monkeypatch.setattr(gpu_check, "LOOP", len(held))
    monkeypatch.setattr(gpu_check, "linear", lambda device: {})
    numbers = iter(held)
    found = memory_over_a_loop(CPU, lambda: next(numbers))
    assert found.good == good
    assert found.measured == (0 if good else 9)


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something that is taken for a GPU: the CPU."""
    real = gpu_check.check_gpu
    monkeypatch.setattr(gpu_check, "lacking", lambda: None)
    monkeypatch.setattr(gpu_check, "check_gpu", lambda gpu: real(CPU))
    monkeypatch.setattr(gpu_check, "CHECKS", {"operators": gpu_check.CHECKS["operators"]})


def test_doctor_prints_what_can_be_pasted(a_gpu: None, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    _, out, _ = call("doctor", "--gpu")
    line = next(each for each in out.splitlines() if each.startswith("operators"))
    assert line.split()[1:3] == ["0", "0.0001"]
    assert line.split()[-1] == "agrees"
    assert json.loads(call("doctor", "--gpu", "--json")[1])["gpu"]["checks"][0]["good"]
    monkeypatch.setattr(gpu_check, "CHECKS", {"operators": (gpu_check.operators, -1.0, None)})
    status, out, _ = call("doctor", "--gpu")
    assert status == 1
    assert "wrong: operators: the GPU is 0 from the CPU, -1 allowed" in out.splitlines()
    assert "DIFFERS" in out


def test_without_a_gpu_it_says_what_is_missing(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one sentence, with the status of whatever else is wrong."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    missing = lacking()
    assert missing is not None
    assert missing.startswith(f"no GPU was checked: torch {torch.__version__} is built ")
    status, out, _ = call("doctor", "--gpu")
    assert status == 1
    assert f"wrong: {missing}" in out.splitlines()
    found = json.loads(call("doctor", "--gpu", "--json")[1])
    assert found["gpu"] is None
    assert missing in found["problems"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu_check, "find_spec", lambda name: None)
    assert "CuPy is missing" in str(lacking())
