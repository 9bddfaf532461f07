"""The content of the page of one of the paper's tables: every cell here beside the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconstruct.report.pages.thumbnails import Album
from reconstruct.training.tables import Cell

HEADINGS = {
    "train": "Single, train",
    "single": "Single, test",
    "average": "Average",
    "vote": "Vote",
    "top1": "Top-1",
    "top5": "Top-5",
    "top1_ten": "Top-1, 10 crops",
    "top5_ten": "Top-5, 10 crops",
}


def table(cells: Sequence[Cell], settings: dict[str, str]) -> dict[str, Any]:
    """The values that ``table.html`` is filled with, from the cells of one table on one data set."""
    first = cells[0]
    columns = list(dict.fromkeys(each.column for each in cells))
    models = dict.fromkeys((each.row, each.model) for each in cells)
    found = {(each.model, each.column): each for each in cells}
    return {
        "kind": "table",
        "title": f"Table {first.table} of Shang et al. 2016",
        "lead": f"On {settings['data']}, beside what the paper prints for {first.data}.",
        "columns": [HEADINGS[column] for column in columns],
        "rows": [
            (
                f"{row}: {model}",
                [
                    (
                        rate(found[model, column].error, found[model, column].standard_error),
                        rate(found[model, column].paper, found[model, column].paper_standard_error),
                    )
                    for column in columns
                ],
            )
            for row, model in models
        ],
        "settings": settings,
        "album": Album(),
    }


def rate(share: float, error: float | None) -> str:
    """A share in per cent, with its standard error where there is one."""
    return f"{100 * share:.2f}" if error is None else f"{100 * share:.2f} ± {100 * error:.2f}"
