"""The first thing to try."""

from pathlib import Path

import pytest

from reconstruct.commands import demo
from tests.conftest import Call


def test_it_inverts_its_photograph_and_says_what_to_look_at(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "MODEL", "convpool_cnn_c_crelu")  # which is small
    status, out, err = call("demo", "--layer", "conv1")
    assert status == 0, err
    assert err.split("--")[1].strip() == "model convpool_cnn_c_crelu"
    target = Path("demo") / "chelsea.convpool_cnn_c_crelu.comparison.png"
    assert out.splitlines()[-1] == f"look at {target}"
    assert target.is_file()
    assert call("demo", "--layer", "conv1", "--quiet") == (0, "", "")


def test_an_installation_without_it_is_said_to_be_broken(monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    monkeypatch.setattr(demo, "NAME", "nowhere.jpg")
    status, _, err = call("demo")
    assert status == 1
    assert "install it again" in err
