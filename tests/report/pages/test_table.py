"""The page of the paper's tables: cells as they are written, and figures that fit or do not."""

from pathlib import Path

import pytest
from PIL import Image

from reconstruct.report.pages import thumbnails
from reconstruct.report.pages.table import Drawing
from reconstruct.report.pages.write import write_table
from reconstruct.zoo.paper_cells import ROWS, cell
from tests.builders.page_reader import Page


def test_cells_of_both_kinds_and_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    four = next(row for row in ROWS if (row.table, row.model) == (4, "crelu_conv1_7"))
    six = next(row for row in ROWS if row.table == 6)
    cells = [
        *(cell(four, column, 0.5, 0.0123, 50_000) for column in four.cells),
        cell(six, "pair", 0.25, 0.02, 96, 0.125),
        cell(six, "non_pair", 0.1, 0.001, 18_240, 0.05),
    ]
    Image.new("RGB", (300, 100)).save(tmp_path / "small.png")
    (tmp_path / "large.png").write_bytes((tmp_path / "small.png").read_bytes() + bytes(10_000))
    drawings = [Drawing(tmp_path / f"{name}.png", f"A figure, <{name}>.") for name in ("small", "large")]
    monkeypatch.setattr(thumbnails.Album.__init__, "__defaults__", (5_000,))
    write_table(cells, {"data": "<b>imagenet</b>"}, tmp_path / "page.html", drawings)
    page = Page(tmp_path / "page.html")
    assert "<b>imagenet" not in page.source
    assert len(page.all("image")) == 1
    words = " ".join(page.words().split())
    for text in (
        "Tables 4 and 6 of Shang et al. 2016", "50.00 ± 1.23", "39.97", "0.250 ± 0.125", "0.020", "0.372 ± 0.372",
        "A figure, <small>.", "The figure is too large for this page: see", "large.png", "reconstruct tables",
    ):  # fmt: skip
        assert text in words, text
