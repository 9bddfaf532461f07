"""The command that makes a table of the paper's, at tiny settings on synthetic data."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch

from reconstruct.analysis.crelu.correlation import outgoing_correlation
from reconstruct.errors import CallError
from reconstruct.network.architecture import Architecture
from reconstruct.network.surgery import without_dropout
from reconstruct.training import tables
from reconstruct.training.checkpoint import CHECKPOINT
from reconstruct.training.loop import Progress
from reconstruct.training.runs import RECIPES
from reconstruct.zoo.load import load_network
from reconstruct.zoo.paper_cells import ROWS
from reconstruct.zoo.specification import read_architecture
from tests.builders import synthetic
from tests.conftest import ROOT, Call
from tests.training.test_recipes import narrow


@pytest.fixture(autouse=True)
def narrow_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(name: str) -> Architecture:
        architecture = narrow(read_architecture(name), 2)
        return replace(architecture, input_size=min(architecture.input_size, 99))

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


TINY = ("--epochs", 1, "--subset", 16, "--batch-size", 8, "--folds", 2, "--figure-pictures", 2)


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
    assert "CReLU convpool_cnn_c_crelu" in " ".join(page.split())
    figures = [out / f"figure{number}.table1.png" for number in (3, 4)]
    assert "invariance scores of the first 7 convolutions of convpool_cnn_c, convpool_cnn_c_crelu on 2" in page
    numbers = json.loads((out / "figures.table1.json").read_text())["numbers"]
    assert [(each["what"], each["layer"]) for each in numbers if each["model"] == names[0]] == [
        *(("pairs", f"conv{k}") for k in range(1, 5)), *(("invariance", f"conv{k}") for k in range(1, 8)),
    ]  # fmt: skip

    # Again: nothing is trained. With a row's cells gone, its networks are classified again and not trained.
    lying = [*figures, *out.rglob(CHECKPOINT)]
    kept = {path: path.stat().st_mtime_ns for path in lying}
    (out / names[0] / "table1.json").unlink()
    again, _ = made(call, *arguments, "--json")
    assert [each["column"] for each in again] == [each["column"] for each in stored]
    assert {path: path.stat().st_mtime_ns for path in lying} == kept
    assert "holds tables of another call (seed differ)" in call("tables", *arguments, "--seed", 1)[2]


def test_tables_4_and_6_share_a_network(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained once, without batch normalisation; the second call adds its table to the first one's page."""
    monkeypatch.setattr(tables, "CLASSES", {5: "ImageNet"})
    data, out = tmp_path / "data", tmp_path / "out"
    synthetic.class_folders(data / "train", *synthetic.patterns(20, 40, 5), list("abcde"))
    synthetic.class_folders(data / "val", *synthetic.patterns(5, 40, 5), list("abcde"))
    (data / "val" / "notes.txt").touch()
    arguments = (data, "--output", out, "--epochs", 1, "--batch-size", 10, "--figure-pictures", 0, "--table")
    _, said = made(call, *arguments, 6)
    assert "14 of 14 cells done" in said
    assert "left out" in said
    net = load_network(str(out / "crelu_conv1_7" / "crelu_conv1_7.toml"))
    stored = pyarrow.parquet.read_table(out / "tables.parquet").to_pylist()
    assert [(each["row"], each["column"]) for each in stored] == [
        (f"conv{k}", column) for k in range(1, 8) for column in ("pair", "non_pair")
    ]
    for pair, other in zip(stored[::2], stored[1::2], strict=True):
        found = outgoing_correlation(net, pair["row"])
        assert (pair["value"], pair["deviation"], pair["number"]) == (found.pair_mean, found.pair_std, 2)
        assert (other["value"], other["standard_error"]) == (found.non_pair_mean, found.non_pair_standard_error)
    assert (stored[4]["paper"], stored[4]["paper_spread"]) == (0.462, 0.249)
    assert "0.462 ± 0.249" in said

    checkpoint = out / "crelu_conv1_7" / CHECKPOINT
    kept = checkpoint.stat().st_mtime_ns
    cells, _ = made(call, *arguments, 4, "--models", "crelu_conv1_7", "--json")
    assert checkpoint.stat().st_mtime_ns == kept
    assert [each["column"] for each in cells] == ["top1", "top5", "top1_ten", "top5_ten"]
    assert [each["paper"] for each in cells] == pytest.approx([0.3997, 0.1833, 0.3653, 0.1601])
    assert cells[1]["value"] == cells[3]["value"] == 0  # of five classes
    assert "batch norm False" in (out / "crelu_conv1_7" / "crelu_conv1_7.md").read_text()
    assert pyarrow.parquet.read_table(out / "tables.parquet").to_pylist() == cells + stored
    page = " ".join(re.sub(r"<[^>]+>", " ", (out / "tables.html").read_text()).split())
    assert "Tables 4 and 6 of Shang et al. 2016" in page
    assert "39.97" in page
    assert "0.462 ± 0.249" in page


def thin(architecture: Architecture, by: int) -> Architecture:
    """The architecture with so many times fewer filters a layer, those of the classes left; without dropout."""
    *below, last = architecture.layers
    layers = tuple(replace(each, filters=each.filters // by) if each.has_weights else each for each in below)
    return without_dropout(replace(architecture, layers=(*layers, last)))


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_every_row_ends_far_above_chance(
    number: int, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A twelfth of the filters, without dropout, on classes of a colour and stripes; by chance 90 % are wrong.

    In so few steps AVR and the VGG are on their way, and two networks together tell it more surely than one.
    """
    monkeypatch.setattr(tables, "read_architecture", lambda name: thin(read_architecture(name), 12))
    data, out = tmp_path / "cifar", tmp_path / "out"
    kinds = [f"kind{i}" for i in range(10)]
    synthetic.cifar10_python(data, synthetic.patterns(400, 32, 10), synthetic.patterns(100, 32, 10, 1), kinds)
    how = ("--epochs", 6, "--batch-size", 20, "--folds", 2, "--figure-pictures", 0)
    cells, _ = made(call, data, "--table", number, "--output", out, *how, "--json")
    assert len(cells) == (20 if number == 1 else 12)
    errors = {(each["model"], each["column"]): each["value"] for each in cells}
    surely = {key: error for key, error in errors.items() if key[1] == "vote"}
    assert {key: error for key, error in surely.items() if not error < 0.7} == {}
    if number == 1:
        alone = {key: error for key, error in errors.items() if key[1] == "single" and "avr" not in key[0]}
        assert {key: error for key, error in alone.items() if not error < 0.6} == {}


LAUNCHED = """
from reconstruct.commands.main import main
from reconstruct.network.surgery import without_dropout
from reconstruct.training import tables
from tests.training.test_recipes import narrow

whole = tables.read_architecture
tables.read_architecture = lambda name: without_dropout(narrow(whole(name), 2))
main()
"""


@pytest.mark.slow
def test_two_processes_make_the_table_of_one(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun with two processes on the CPU, without dropout, whose masks depend on the process."""
    arguments = [
        str(cifar(tmp_path / "cifar")),
        "--table=1",
        "--models=convpool_cnn_c_crelu",
        *map(str, TINY[:-1]),
        "0",
    ]
    (tmp_path / "launched.py").write_text(LAUNCHED)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, tmp_path / "launched.py", "tables", *arguments, "--output", tmp_path / "two"],
        check=False, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("4 of 4 cells done") == 1
    narrowed = tables.read_architecture
    monkeypatch.setattr(tables, "read_architecture", lambda name: without_dropout(narrowed(name)))
    made(call, *arguments, "--output", tmp_path / "one")
    two, one = (pyarrow.parquet.read_table(tmp_path / name / "tables.parquet").to_pylist() for name in ("two", "one"))
    runs = sorted(path.parent.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob(CHECKPOINT))
    assert len(runs) == 4
    for run in runs:
        first, second = (
            torch.load(tmp_path / name / run / CHECKPOINT, weights_only=True)["net"] for name in ("two", "one")
        )
        for key, value in second.items():
            assert (first[key] - value).abs().max() < 1e-5, (run, key)
    for each, other in zip(two, one, strict=True):
        # But for a picture whose best scores are as good as equal.
        assert abs(each["value"] - other["value"]) <= 1 / 16 + 1e-9
        assert each["number"] == other["number"]


def test_the_time_left_is_by_what_is_left() -> None:
    """In multiplications, at the speed of the run that is at work; what lay there already counts as done."""
    work = tables._Work({"small": [90.0, 200.0, 50.0, 50.0], "large": [1000.0]})
    assert work.seconds is None
    work.end("small")
    work.begin("large")
    now = Progress(90, 100, 0.9, 1.0, 0.1, images_per_second=5.0, validation_loss=None, validation_error=None)
    work.report("large", now, 4.0)  # of a run that was resumed at step 80, say: 100 left at 20 a second
    assert work.seconds == pytest.approx(5.0)
    work = tables._Work({"small": [90.0, 200.0, 50.0, 50.0], "large": [1000.0]})
    work.begin("small")
    work.begin("small")
    work.report("small", replace(now, step=50), 2.0)
    assert work.seconds == pytest.approx((100 + 50 + 50 + 1000) / 10)
    work.end("small")
    assert work.seconds == pytest.approx(1000 / 10)


def test_a_trial_shrinks_the_schedule() -> None:
    assert tables.Trial().recipe(RECIPES["cifar"]) == RECIPES["cifar"]
    short = tables.Trial(epochs=35, batch_size=16).recipe(RECIPES["cifar"])
    assert (short.epochs, short.batch_size) == (35, 16)
    assert short.drops == pytest.approx((20, 25, 30))
    assert short.warmup == pytest.approx(0.1)
    assert tables.Trial(epochs=30).recipe(RECIPES["vgg"]).halving == pytest.approx(2.5)


def test_tables_that_there_are_not() -> None:
    for number, classes in ((3, 10), (5, 1000), (1, 1000), (4, 10)):
        with pytest.raises(
            CallError, match=f"there is no Table {number} on {classes} classes; there are 1 on CIFAR-10"
        ):
            tables.table_rows(number, classes)
    with pytest.raises(CallError, match="Table 2 has no all_cnn_b; it has cifar_vgg, cifar_vgg_crelu_conv1,"):
        tables.table_rows(2, 100, ["all_cnn_b"])
    assert len(tables.table_rows(1, 100)) == 5
