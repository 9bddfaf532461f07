"""How many threads compute: as the user says, or one a core as far as a container's quota allows."""

import os
import subprocess
import sys

import pytest

from reconstruct import threads
from tests.conftest import Call


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that says nothing of threads, and a torch that has not come yet."""
    for name in (*threads.VARIABLES, "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_libraries_have_as_many_as_they_are_held_to() -> None:
    code = (
        "from reconstruct import threads; threads.hold(1); import torch, numpy;"
        "from threadpoolctl import threadpool_info;"
        "print(torch.get_num_threads(), {each['num_threads'] for each in threadpool_info()})"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["1", "{1}"]


@pytest.mark.parametrize(("quota", "held"), [(1.5, "1"), (0.5, "1"), (6.0, "6"), (8.0, None), (None, None)])
def test_a_quota_holds_them_and_the_user_s_own_word_is_kept(
    quota: float | None, held: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    threads.hold()
    assert [os.environ.get(name) for name in threads.VARIABLES] == [held] * 3
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    threads.hold()
    assert (os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"]) == ("5", "ACTIVE")


def test_the_option_of_the_commands(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr("reconstruct.commands.options.hold", told.append)
    status, _, err = call("features", "nowhere.png", "--model", "cifar_split", "--layer", "conv11", "--threads", "2")
    assert (status, told) == (1, [2]), err
    assert call("features", "nowhere.png", "--model", "cifar_split", "--layer", "conv11", "--threads", "0")[0] == 2
