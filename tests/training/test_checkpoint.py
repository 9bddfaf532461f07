from pathlib import Path
from typing import Any

import pytest
import torch

from reconstruct.errors import CallError
from reconstruct.training.checkpoint import CHECKPOINT, Run


def run_in(folder: Path) -> Run:
    net = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    return Run(folder, {"seed": 1}, net, optimizer, torch.amp.GradScaler("cpu", enabled=False))


@pytest.mark.parametrize(
    "changes",
    [
        # One number that is said to be a million million of them, which whoever goes through them never leaves.
        {"rows": torch.zeros(1).expand(10**6, 10**6)},
        {"net": {"weight": torch.zeros(1).expand(2, 3), "bias": torch.zeros(2)}},
        {"rows": [[1] * 9]},
        {"rows": [["a"]]},
        {"step": 10.5},
        {"epoch_losses": (0.5,)},
        {"call": [1]},
    ],
)
def test_checkpoints_of_another_form_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    run = run_in(tmp_path)
    run.add(0.5)
    run.save()
    saved = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    run_in(tmp_path).restore()
    torch.save(saved | changes, tmp_path / CHECKPOINT)
    with pytest.raises(CallError, match="cannot be gone on from"):
        run_in(tmp_path).restore()
