"""The command that makes a table of the paper's, at tiny settings on synthetic data."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from reconstruct.errors import CallError
from reconstruct.network.architecture import Architecture
from reconstruct.training import tables
from reconstruct.training.checkpoint import CHECKPOINT
from reconstruct.training.runs import RECIPES
from reconstruct.zoo.paper_cells import ROWS
from reconstruct.zoo.specification import read_architecture
from tests.builders import synthetic
from tests.conftest import Call
from tests.training.test_recipes import narrow


@pytest.fixture(autouse=True)
def narrow_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(name: str) -> Architecture:
        return narrow(read_architecture(name), 2)

    monkeypatch.setattr(tables, "read_architecture", read)


def cifar(folder: Path, classes: int = 10) -> Path:
    synthetic.cifar10_python(
        folder, synthetic.patterns(60, 32, 10), synthetic.patterns(16, 32, 10, 1), [f"kind{i}" for i in range(classes)]
    )
    return folder


def made(call: Call, *arguments: Any) -> tuple[list[dict[str, Any]], str]:
    status, out, err = call("tables", *arguments)
    assert status == 0, err
    return json.loads(out) if "--json" in arguments else [], out + err


TINY = ("--epochs", 1, "--subset", 16, "--batch-size", 8, "--folds", 2)


def test_a_table_from_nothing(call: Call, tmp_path: Path) -> None:
    data, out = cifar(tmp_path / "cifar"), tmp_path / "out"
    names = ["convpool_cnn_c", "convpool_cnn_c_crelu"]
    arguments = (data, "--table", 1, "--output", out, "--models", ",".join(names), *TINY)
    _, said = made(call, *arguments)
    assert "4 of 8 cells done, about" in said
    assert "left out" not in said
    assert "8 of 8 cells done" in said
    assert "training convpool_cnn_c_crelu fold02" in said
    stored = pyarrow.parquet.read_table(out / "tables.parquet").to_pylist()
    assert [(each["model"], each["column"]) for each in stored] == [
        (name, column) for name in names for column in ("train", "single", "average", "vote")
    ]
    for each in stored:
        row = next(row for row in ROWS if (row.model, row.data) == (each["model"], "CIFAR-10"))
        assert each["paper"] == pytest.approx(row.cells[each["column"]] / 100)
        assert each["number"] == 16
        assert each["deviation"] is None
        share = each["value"]
        assert share * each["number"] * 2 == pytest.approx(round(share * each["number"] * 2))
        if each["column"] != "average":
            assert each["standard_error"] == pytest.approx((share * (1 - share) / each["number"]) ** 0.5)
            assert each["paper_spread"] is None
        else:
            assert each["paper_spread"] == pytest.approx(row.spreads["average"] / 100)
    # The cells are what classify says of the models that lie there, but for a picture whose best scores are as good as
    # equal, as those of networks of two filters may be.
    found = json.loads(call("classify", data, "--model", out / names[1] / "folds", "--json")[1])
    average = next(each["value"] for each in stored if (each["model"], each["column"]) == (names[1], "average"))
    assert abs(found["average"]["top1"] - average) <= 1 / 16
    page = re.sub(r"<[^>]+>", " ", (out / "tables.html").read_text())
    assert "Table 1 of Shang et al. 2016" in page
    assert "9.39 ± 0.11" in " ".join(page.split())
    assert "CReLU: convpool_cnn_c_crelu" in page

    # Again: nothing is trained. With a row's cells gone, its networks are classified again and not trained.
    kept = {path: path.stat().st_mtime_ns for path in out.rglob(CHECKPOINT)}
    (out / names[0] / "table1.json").unlink()
    again, _ = made(call, *arguments, "--json")
    assert [each["column"] for each in again] == [each["column"] for each in stored]
    assert {path: path.stat().st_mtime_ns for path in out.rglob(CHECKPOINT)} == kept
    assert "holds tables of another call (seed differ)" in call("tables", *arguments, "--seed", 1)[2]


def test_table_4_is_without_batch_normalisation(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CLASSES", {5: "ImageNet"})
    synthetic.class_folders(tmp_path / "data" / "train", *synthetic.patterns(20, 40, 5), list("abcde"))
    synthetic.class_folders(tmp_path / "data" / "val", *synthetic.patterns(5, 40, 5), list("abcde"))
    arguments = (tmp_path / "data", "--table", 4, "--output", tmp_path / "out", "--models", "crelu_conv1_4")
    cells, _ = made(call, *arguments, "--epochs", 1, "--batch-size", 10, "--json")
    assert [each["column"] for each in cells] == ["top1", "top5", "top1_ten", "top5_ten"]
    assert [each["paper"] for each in cells] == pytest.approx([0.3982, 0.1828, 0.3620, 0.1572])
    assert cells[1]["value"] == cells[3]["value"] == 0  # of five classes
    text = (tmp_path / "out" / "crelu_conv1_4" / "crelu_conv1_4.md").read_text()
    assert "batch norm False" in text


def test_a_trial_shrinks_the_schedule() -> None:
    assert tables.Trial().recipe(RECIPES["cifar"]) == RECIPES["cifar"]
    short = tables.Trial(epochs=35, batch_size=16).recipe(RECIPES["cifar"])
    assert (short.epochs, short.batch_size) == (35, 16)
    assert short.drops == pytest.approx((20, 25, 30))
    assert short.warmup == pytest.approx(0.1)
    assert tables.Trial(epochs=30).recipe(RECIPES["vgg"]).halving == pytest.approx(2.5)


def test_tables_that_there_are_not() -> None:
    for number, classes in ((3, 10), (1, 1000), (4, 10)):
        with pytest.raises(
            CallError, match=f"there is no Table {number} on {classes} classes; there are 1 on CIFAR-10"
        ):
            tables.table_rows(number, classes)
    with pytest.raises(CallError, match="Table 2 has no all_cnn_b; it has cifar_vgg, cifar_vgg_crelu_conv1,"):
        tables.table_rows(2, 100, ["all_cnn_b"])
    assert len(tables.table_rows(1, 100)) == 5
