"""What a terminal shows while something goes on."""

import io
import logging
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console

from reconstruct import load_model
from reconstruct.commands import terminal
from reconstruct.commands.evaluate import _evaluating
from reconstruct.commands.invert import _Share
from reconstruct.prior import estimates


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal of 100 columns."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100, highlight=False, markup=False)
    for module in ("terminal", "evaluate"):
        monkeypatch.setattr(f"reconstruct.commands.{module}.notes", console)
    return file


def test_what_is_prepared_has_its_own_bar_and_is_said(
    screen: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once: the second time it is there."""
    monkeypatch.setenv("RECONSTRUCT_CACHE", str(tmp_path))
    net = load_model("convpool_cnn_c_crelu")
    with terminal.progress(3, False):
        estimates.response_covariance(net, "conv1")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert "preparing conv1 of convpool_cnn_c_crelu" in text
    assert f"such estimates are kept in {tmp_path}" in text.replace("\n", "")
    screen.truncate(0)
    with terminal.progress(3, False), _evaluating(2, 0, False) as advance:
        advance(1)
        estimates.response_covariance(load_model("convpool_cnn_c_crelu"), "conv1")
    assert "preparing" not in screen.getvalue()
    assert "evaluating" in screen.getvalue()


def test_a_preparation_is_shown_beside_the_bar_of_an_evaluation(screen: io.StringIO) -> None:
    with _evaluating(2, 0, False):
        for done in range(3):
            estimates.PREPARING.info("preparing %s of %s", "conv2", "net", extra={"done": done, "total": 2})
    assert "preparing conv2 of net took" in screen.getvalue()
    assert not logging.getLogger("reconstruct.preparing").handlers


def test_a_bar_moves_on_while_one_picture_is_inverted() -> None:
    steps: list[float] = []
    share = _Share(steps.append, images=2, budget=100)
    nothing = torch.zeros(2, 3, 8, 8)
    for passes in (25, 20, 75, 130):  # a count may fall back where images go on one by one
        share(passes, nothing)
    assert steps == pytest.approx([0.5, 1.0, 0.5])
    share.end()
    assert sum(steps) == pytest.approx(2)
    ended_early = _Share(steps.append, images=1, budget=100)
    ended_early(30, nothing)
    ended_early.end()
    assert sum(steps) == pytest.approx(3)
