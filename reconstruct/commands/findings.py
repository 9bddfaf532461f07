"""What an analysis has found, as it is written and printed: figures, tables, and all numbers as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconstruct.commands.terminal import printed, strict

if TYPE_CHECKING:
    from PIL.Image import Image

Columns = dict[str, Callable[[dict[str, Any]], str]]
"""A table's headings, and what of a record stands below each."""
Told = tuple[list[dict[str, Any]], Columns, list[str]]
"""Records of one kind, their table (none without columns), and the figures drawn of them."""


def write(figure: Image, path: Path) -> str:
    """Write a figure as PNG, and give the name of its file."""
    from reconstruct.images.files import write_png

    write_png(figure, path)
    return str(path)


def finish(what: str, told: Sequence[Told], output: Path, as_json: bool, quiet: bool) -> None:
    """Write all numbers into ``WHAT.json``, and print them: as one JSON array, or as tables and the names of figures.

    Parameters
    ----------
    told : records of each kind, with their table and figures.
    """
    from reconstruct.images.atomic import write_atomically

    text = json.dumps([strict(record) for records, _, _ in told for record in records], indent=1, allow_nan=False)
    write_atomically(output / f"{what}.json", f"{text}\n".encode())
    if as_json:
        print(text)
    elif not quiet:
        for records, columns, _ in told:
            if records and columns:
                _table(records, columns)
        figures = list(dict.fromkeys(name for _, _, names in told for name in names))
        listed = ", ".join(figures[:4]) + (f" and {len(figures) - 4} more" if len(figures) > 4 else "")
        printed.print(f"figures: {listed or 'none'}; numbers: {output / what}.json", soft_wrap=True)


def _table(records: Sequence[dict[str, Any]], columns: Columns) -> None:
    from rich.table import Table

    from reconstruct.images.names import shown

    named = [key for key in ("image", "model", "layer") if key in records[0]]
    table = Table(box=None, pad_edge=False)
    for key in named:
        table.add_column(key, overflow="fold", no_wrap=key != "image")
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        own = [shown(Path(record[key]).name) if key == "image" else record[key] for key in named]
        table.add_row(*own, *(show(record) for show in columns.values()))
    printed.print(table)
