"""Records of training that somebody else may have written."""

import json
from pathlib import Path

import pytest

from reconstruct import CallError
from reconstruct.training.records import a_count, a_number, read_record
from reconstruct.training.runs import FOLDS, trained_models
from reconstruct.training.tables import made_cells

CELL = {
    "table": 1, "data": "cifar10", "row": "baseline", "model": "convpool_cnn_c", "column": "single", "value": 0.1,
    "standard_error": 0.01, "deviation": None, "number": 100, "paper": 0.1, "paper_spread": None,
}  # fmt: skip


@pytest.mark.parametrize(
    "content",
    ["", "[" * 100_000, "{}", '{"loss": "low"}', '{"loss": NaN}', '{"loss": true}', '{"loss": 1' + "0" * 400 + "}"],
)
def test_what_is_no_number_is_told(content: str, tmp_path: Path) -> None:
    path = tmp_path / "single.json"
    path.write_text(content)
    with pytest.raises(CallError, match=r"single\.json cannot be read: .{1,200}; delete it$"):
        read_record(path, lambda found: a_number(found["loss"]), "delete it")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CallError, match="cannot be read"):
        read_record(path, lambda found: found)


def test_counts() -> None:
    assert (a_count(0, 3), a_count(3, 3)) == (0, 3)
    for value in (-1, 4, 1.0, True, "1", None):
        with pytest.raises(ValueError, match="whole number from 0 to 3"):
            a_count(value, 3)


def test_a_thousand_million_folds(tmp_path: Path) -> None:
    """They would be as many names."""
    (tmp_path / FOLDS).write_text('{"folds": 1000000000, "seed": 0}')
    with pytest.raises(CallError, match=r"folds\.json cannot be read: 1000000000 is no whole number"):
        trained_models(str(tmp_path))


@pytest.mark.parametrize(
    "change", [{"value": "x"}, {"paper": None}, {"number": -1}, {"row": 3}, {"deviation": [1]}, {"other": 1}]
)
def test_cells_of_others(change: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "convpool_cnn_c" / "table1.json"
    path.parent.mkdir()
    path.write_text(json.dumps([CELL]))
    assert made_cells(tmp_path, 10)[0].value == 0.1
    path.write_text(json.dumps([CELL | change]))
    with pytest.raises(CallError, match=r"table1\.json cannot be read: .* delete it"):
        made_cells(tmp_path, 10)
