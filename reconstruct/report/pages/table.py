"""The content of the page of the paper's tables: every cell here beside the paper's, and figures of the networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reconstruct.report.pages.thumbnails import Album
from reconstruct.zoo.paper_cells import Cell

HEADINGS = {
    "train": "Single, train",
    "single": "Single, test",
    "average": "Average",
    "vote": "Vote",
    "top1": "Top-1",
    "top5": "Top-5",
    "top1_ten": "Top-1, 10 crops",
    "top5_ten": "Top-5, 10 crops",
    "pair": "Pair",
    "non_pair": "Non-pair",
}

ERRORS = (
    "Error rates in per cent. Beside a rate stands its standard error: of an average by its networks, of others that "
    "of a share of so many pictures."
)
COSINES = (
    "Absolute cosines of outgoing weights, mean ± standard deviation, and the standard error of our mean. What follows "
    "its ± the paper does not say."
)


class Drawing(NamedTuple):
    """A figure of a table's networks: its file, and what it shows."""

    path: Path
    caption: str


def table(cells: Sequence[Cell], settings: dict[str, str], drawings: Sequence[Drawing]) -> dict[str, Any]:
    """The values that ``table.html`` is filled with, from the cells of tables on one data set."""
    numbers = list(dict.fromkeys(each.table for each in cells))
    names = " and ".join(map(str, numbers))
    album = Album()
    found = [(album.find(each.path), each) for each in drawings]
    return {
        "kind": "table",
        "title": f"Table{'s' if len(numbers) > 1 else ''} {names} of Shang et al. 2016",
        "lead": f"On {settings['data']}, beside what the paper prints for {cells[0].data}.",
        "tables": [_table([each for each in cells if each.table == number]) for number in numbers],
        "figures": [
            (picture if picture is not None and album.take([picture]) else None, each) for picture, each in found
        ],
        "settings": settings,
        "album": album,
    }


def parts(number: int) -> tuple[str, ...]:
    """What is said of each cell of a table, in the order of ``texts``."""
    return ("here", "standard error", "paper") if number == 6 else ("here", "paper")


def texts(cell: Cell) -> list[str]:
    """A cell as it is written, ours and the paper's: rates in per cent, cosines as they are."""
    if cell.table == 6:
        return [
            _number(cell.value, cell.deviation),
            f"{cell.standard_error:.3f}",
            _number(cell.paper, cell.paper_spread),
        ]
    return [_rate(cell.value, cell.standard_error), _rate(cell.paper, cell.paper_spread)]


def _table(cells: Sequence[Cell]) -> dict[str, Any]:
    number = cells[0].table
    columns = list(dict.fromkeys(each.column for each in cells))
    rows: dict[tuple[str, str], list[str]] = {}
    for each in cells:
        rows.setdefault((each.row, each.model), []).extend(texts(each))
    return {
        "number": number,
        "title": f"Table {number}, here and in the paper",
        "caption": f"{COSINES} Both of {cells[0].model}." if number == 6 else ERRORS,
        "columns": [HEADINGS[column] for column in columns],
        "parts": parts(number),
        "rows": [(row, "" if number == 6 else model, own) for (row, model), own in rows.items()],
    }


def _rate(share: float, error: float | None) -> str:
    return f"{100 * share:.2f}" if error is None else f"{100 * share:.2f} ± {100 * error:.2f}"


def _number(value: float, spread: float | None) -> str:
    return f"{value:.3f}" if spread is None else f"{value:.3f} ± {spread:.3f}"
