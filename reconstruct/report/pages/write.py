"""The page of a run, of a comparison of runs, or of the paper's tables: one HTML file that needs nothing else.

Names of images and messages of errors are anybody's text: every value is escaped, and a policy in the page allows no
script but its own and no picture but those inside it.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reconstruct.errors import CallError
from reconstruct.evaluation.results import read_rows, read_run, summarise
from reconstruct.images.atomic import write_atomically
from reconstruct.report.pages.comparison import compared, comparison
from reconstruct.report.pages.run import run
from reconstruct.report.pages.table import Drawing, table
from reconstruct.report.pages.wording import FILTERS
from reconstruct.zoo.paper_cells import Cell

TEMPLATES = Path(__file__).parent / "templates"


def write_report(folders: Sequence[Path], target: Path) -> None:
    """Write one self-contained HTML file: the page of one folder of results, or the comparison of several.

    Differences are to the first of several. The page says which thumbnails are missing.

    Raises
    ------
    CallError : a folder holds no results, or of several the first and another have nothing to compare.
    """
    if not folders:
        raise CallError("a report needs a folder of results")
    page, content = ("run.html", run(folders[0])) if len(folders) == 1 else ("comparison.html", comparison(folders))
    write_atomically(target, _rendered(page, content).encode(errors="replace"))


def write_table(
    cells: Sequence[Cell], settings: dict[str, str], target: Path, drawings: Sequence[Drawing] = ()
) -> None:
    """Write one self-contained HTML file: tables of the paper's, their cells beside those that were made here.

    Parameters
    ----------
    cells : of tables on one data set.
    settings : what is said of how they were made, by name; ``data`` among them.
    drawings : figures of their networks.
    """
    write_atomically(target, _rendered("table.html", table(cells, settings, drawings)).encode(errors="replace"))


def numbers(folders: Sequence[Path]) -> dict[str, Any]:
    """The numbers that the page shows: a folder's summary, or the summaries of several and their paired differences.

    Raises
    ------
    CallError : as ``write_report``.
    """
    if len(folders) == 1:
        return summarise(read_rows(folders[0]), read_run(folders[0]))
    runs, differences = compared(folders)
    return {
        "runs": [{"run": run.label, **run.summary} for run in runs],
        "differences": [
            {
                "run": run.label,
                **asdict(each),
                "first": each.first._asdict(),
                "second": each.second._asdict(),
            }
            for run, each in differences
        ],
    }


def _rendered(page: str, content: dict[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    return environment.get_template(page).render(
        **content,
        infinity=math.inf,
        style=(TEMPLATES / "style.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
