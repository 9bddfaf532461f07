"""What a training run keeps in its folder: a checkpoint that a kill cannot spoil, and a log."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from reconstruct.errors import CallError
from reconstruct.images.atomic import write_atomically
from reconstruct.images.tensor_files import is_plain, named_tensors, read_torch

CHECKPOINT, LOG = "checkpoint.pt", "log.csv"


class LogRow(NamedTuple):
    """A row of the log: where a run is, and how well it does there.

    Attributes
    ----------
    step : steps done.
    epoch : the same in epochs.
    loss : mean training loss of the steps since the row before.
    learning_rate : the rate of the last step, of layers other than the first.
    images_per_second : speed since the run began or went on.
    validation_loss, validation_error : loss and top-1 error on the pictures held out; None where a row has none.
    """

    step: int
    epoch: float
    loss: float
    learning_rate: float
    images_per_second: float
    validation_loss: float | None = None
    validation_error: float | None = None


@dataclass
class Run:
    """A run in its folder: how far it has come, and the losses on the way.

    Attributes
    ----------
    call : what makes the run what it is; a checkpoint of another call is refused.
    folder : where it keeps its files.
    net, optimizer, scaler : what a checkpoint restores.
    step : steps done.
    loss : mean training loss of the last whole epoch.
    ended : None while it goes on, then ``finished`` or ``reached`` (the loss it was to stop at).
    rows : the rows of the log.
    epoch_losses, recent_losses : the sum of losses, and how many, in this epoch and since the last row.
    """

    folder: Path
    call: dict[str, Any]
    net: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    loss: float = float("nan")
    ended: str | None = None
    rows: list[LogRow] = field(default_factory=list)
    epoch_losses: tuple[float, int] = (0.0, 0)
    recent_losses: tuple[float, int] = (0.0, 0)

    def restore(self) -> None:
        """Go on from the checkpoint, if there is one.

        Raises
        ------
        CallError : the checkpoint belongs to another call, or cannot be read.
        """
        path = self.folder / CHECKPOINT
        for name in (CHECKPOINT, LOG):
            for stale in self.folder.glob(f".{name}.*"):
                stale.unlink(missing_ok=True)  # left half-written by a kill
        if not path.is_file():
            return
        try:
            saved = _checked(read_torch(path))
            differs = [key for key in self.call | saved["call"] if saved["call"].get(key) != self.call.get(key)]
            if not differs:
                self.net.load_state_dict(saved["net"])
                self.optimizer.load_state_dict(saved["optimizer"])
                self.scaler.load_state_dict(saved["scaler"])
                for name in _NUMBERS:
                    setattr(self, name, saved[name])
                self.rows = [LogRow(*row) for row in saved["rows"]]
        except Exception as error:  # a broken file may raise anything
            raise CallError(f"{path} cannot be gone on from: {' '.join(str(error).split())[:200]}") from error
        if differs:
            said = [_first_difference(key, saved["call"].get(key), self.call.get(key)) for key in differs]
            raise CallError(f"{self.folder} holds another run ({', '.join(said)}); name another folder, or delete it")

    def save(self) -> None:
        """Write checkpoint and log, each whole or not at all."""
        buffer = io.BytesIO()
        saved = {name: getattr(self, name) for name in _NUMBERS}
        saved |= {
            "call": self.call,
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            # Plain lists: nothing else is loaded with weights_only.
            "rows": [list(row) for row in self.rows],
        }
        torch.save(saved, buffer)
        write_atomically(self.folder / CHECKPOINT, buffer.getvalue())
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(LogRow._fields)
        table.writerows([["" if value is None else f"{value:.6g}" for value in row] for row in self.rows])
        write_atomically(self.folder / LOG, text.getvalue().encode())

    def add(self, loss: float) -> None:
        """Count one more step and its loss."""
        self.step += 1
        self.epoch_losses = (self.epoch_losses[0] + loss, self.epoch_losses[1] + 1)
        self.recent_losses = (self.recent_losses[0] + loss, self.recent_losses[1] + 1)

    def end_epoch(self) -> None:
        self.loss = self.epoch_losses[0] / self.epoch_losses[1]
        self.epoch_losses = (0.0, 0)

    def take_recent(self) -> float:
        """The mean loss since this was last asked."""
        mean = self.recent_losses[0] / self.recent_losses[1]
        self.recent_losses = (0.0, 0)
        return mean


def _checked(saved: Any) -> dict[str, Any]:
    """What a checkpoint holds, where it is of the form that ``save`` gives it; of numbers it may still be any."""
    if not isinstance(saved, dict) or not isinstance(saved.get("call"), dict):
        raise ValueError("it is no checkpoint of a run")
    # One number may be said to be a billion, and what copies it would take the memory of as many.
    if not all(map(is_plain, named_tensors(saved).values())):
        raise ValueError("it holds tensors that are not plain")
    rows = saved.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) <= len(LogRow._fields) for row in rows):
        raise ValueError("its rows are no lists of numbers")
    if not all(isinstance(value, int | float | None) for row in rows for value in row):
        raise ValueError("its rows are no lists of numbers")
    if type(saved.get("step")) is not int or not isinstance(saved.get("loss"), int | float):
        raise ValueError("its step and its loss are no numbers")
    for name in ("epoch_losses", "recent_losses"):
        value = saved.get(name)
        if not isinstance(value, tuple | list) or list(map(type, value)) != [float, int]:
            raise ValueError(f"its {name} are no sum and count")
    return saved


def _first_difference(name: str, was: Any, now: Any) -> str:
    """Where two calls differ, as deep as they are alike in shape."""
    if isinstance(was, dict) and isinstance(now, dict) and was.keys() == now.keys():
        key = next(key for key in was if was[key] != now[key])
        return _first_difference(key, was[key], now[key])
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now) and name == "layers":
        place = next(place for place, (old, new) in enumerate(zip(was, now, strict=True)) if old != new)
        return _first_difference(f"layer {place + 1}", was[place], now[place])
    return f"{name} {was}, now {now}"


_NUMBERS = ("step", "loss", "ended", "epoch_losses", "recent_losses")
