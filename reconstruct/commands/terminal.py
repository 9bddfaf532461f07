"""What commands print: the consoles of tables and of notes, progress, numbers, and records as JSON."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

# No markup: a picture may be called photo[copy].jpg.
notes = Console(stderr=True, highlight=False, markup=False)
# Into a file or a pipe a table keeps its lines whole, however long names are.
printed = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 1000)


@contextmanager
def busy(what: str, silent: bool) -> Iterator[None]:
    """A sign on standard error, where that is a terminal, that something goes on."""
    if silent or not notes.is_terminal:
        yield
    else:
        with notes.status(what):
            yield


@contextmanager
def progress(total: int | None, silent: bool, what: str = "reconstructing") -> Iterator[Callable[[float], None]]:
    """A bar on standard error, where that is a terminal; gives the function that moves it on by some steps, or parts.

    What has to be prepared on the way has a bar of its own.
    """
    if silent or not notes.is_terminal:
        yield lambda steps: None
        return
    from rich import progress as parts

    columns = (
        parts.TextColumn("{task.description}", markup=False), parts.BarColumn(), parts.MofNCompleteColumn(),
        parts.TimeElapsedColumn(), parts.TimeRemainingColumn(),
    )  # fmt: skip
    with parts.Progress(*columns, console=notes, transient=True) as bar, preparations(bar):
        task = bar.add_task(what, total=total)
        yield lambda steps: bar.advance(task, steps)


@contextmanager
def preparations(bar: Progress) -> Iterator[None]:
    """A second bar while something is prepared that is kept for the next time; in the end it is said what that was."""
    handler = _Preparing(bar)
    logger = logging.getLogger("reconstruct.preparing")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


class _Preparing(logging.Handler):
    """Shows how far a preparation is, as ``prior.estimates`` tells of it."""

    def __init__(self, bar: Progress) -> None:
        super().__init__()
        self.bar = bar
        self.task: TaskID | None = None
        self.began = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Begin a bar, move it on, or end it."""
        done, total = (record.__dict__[key] for key in ("done", "total"))
        if self.task is None:
            # Some bars have a rate, which this one has not.
            self.task, self.began = self.bar.add_task(record.getMessage(), total=total, rate=""), time.monotonic()
        self.bar.update(self.task, completed=done)
        if done == total:
            from reconstruct.prior.disk_cache import folder

            self.bar.remove_task(self.task)
            self.task = None
            said = f"{record.getMessage()} took {time.monotonic() - self.began:.0f} s"
            self.bar.console.print(f"{said}; such estimates are kept in {folder()}", soft_wrap=True)


def print_json(records: Iterable[dict[str, Any]]) -> None:
    """Print records on standard output as one JSON array."""
    print(json.dumps([strict(record) for record in records], indent=2, allow_nan=False))


def strict(value: Any) -> Any:
    """A record as JSON can hold it: without infinity, so that the PSNR of a perfect image is null."""
    if isinstance(value, dict):
        return {key: strict(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [strict(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def number(value: float | None, form: str) -> str:
    """The number in this format, or a dash for None."""
    return "-" if value is None else format(value, form)
