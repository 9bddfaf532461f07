"""What commands print: the consoles of tables and of notes, progress, numbers, and records as JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

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
def progress(total: int | None, silent: bool, what: str = "reconstructing") -> Iterator[Callable[[int], None]]:
    """A bar on standard error, where that is a terminal; gives the function that moves it on by some steps."""
    if silent or not notes.is_terminal:
        yield lambda steps: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    columns = (what, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=notes, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda steps: bar.advance(task, steps)


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
