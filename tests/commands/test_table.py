"""The table that the main job prints, on terminals of any width."""

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from reconstruct.commands import invert

LONG = "IMG_20240613_a_walk_along_the_river_after_rain_0042"


def record(stem: str, layer: str, method: str, status: str = "budget") -> dict[str, Any]:
    return {
        "image": f"set/{stem}.jpg", "layer": layer, "tap": None, "method": method, "psnr": 48.62, "ssim": 0.991,
        "feature_residual": 1.2e-4, "forward_passes": 449.0, "seconds": 12.0, "prepare_seconds": 1.0,
        "status": status, "output": f"out/{stem}.model.{layer}.{method}.png",
    }  # fmt: skip


def printed(width: int, monkeypatch: pytest.MonkeyPatch, *records: dict[str, Any]) -> list[str]:
    console = Console(file=io.StringIO(), highlight=False, markup=False, width=width)
    monkeypatch.setattr(invert, "printed", console)
    invert._table(list(records), ())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("stem", "layer", "method"),
    [
        ("chelsea", "conv1", "map"),
        (LONG, "conv12", "gradient"),
        ("写真写真写真写真写真", "conv1", "gradient"),
        (LONG, "features.denseblock1.denselayer2.conv1", "gradient"),
    ],
)
def test_a_record_is_a_line_at_80_columns(stem: str, layer: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    heading, first, second, below = printed(80, monkeypatch, record(stem, layer, method), record("b", "conv1", "map"))
    assert heading.split()[-1] == "status"
    assert all(cell_len(line.rstrip()) <= 80 for line in (heading, first, second))
    assert first.startswith(stem[:2])
    assert first.rstrip().endswith("budget spent")
    assert second.startswith("b.jpg ")
    assert below == f"pictures: {stem}.model.{layer}.{method}.png, b.model.conv1.map.png"


def test_where_there_is_room_the_table_names_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a file or a pipe, whose lines are as long as they are."""
    heading, line = printed(1000, monkeypatch, record(LONG, "conv12", "gradient", "converged"))
    assert heading.split()[-1] == "picture"
    assert line.split()[0] == f"{LONG}.jpg"
    assert line.split()[-1] == f"{LONG}.model.conv12.gradient.png"
