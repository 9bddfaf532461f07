"""``reconstruct classify`` beside what the paper prints."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from reconstruct.network.network import Network
from reconstruct.network.surgery import randomise
from reconstruct.zoo.export import export
from reconstruct.zoo.paper_cells import paper_rows
from reconstruct.zoo.specification import read_architecture
from tests.builders import synthetic
from tests.conftest import Call


def test_classify_prints_the_papers_cell(call: Call, tmp_path: Path) -> None:
    """Of ten networks of a table, whatever somebody has called them."""
    pictures = synthetic.patterns(20, 32, 10)
    synthetic.cifar10_python(tmp_path / "cifar", pictures, pictures, [f"kind{i}" for i in range(10)])
    architecture = replace(read_architecture("convpool_cnn_c_crelu_half"), name="mine")
    for number in range(1, 11):
        export(
            randomise(Network(architecture), number).eval(),
            tmp_path / "run" / f"fold{number:02}",
            classes=[str(i) for i in range(10)],
            card="",
        )
    (tmp_path / "run" / "folds.json").write_text(json.dumps({"folds": 10, "seed": 0}))

    def lines(*arguments: Any) -> list[str]:
        status, out, _ = call("classify", tmp_path / "cifar", *arguments)
        assert status == 0
        return [" ".join(line.split()) for line in out.splitlines()]

    table = lines("--model", tmp_path / "run")
    assert table[0] == "model top-1 error paper top-5 error"
    assert "8.37%" in table[1]
    assert "9.44% ± 0.09%" in next(line for line in table if line.startswith("average"))
    assert "7.09%" in next(line for line in table if line.startswith("vote"))
    assert table[-1] == "paper: Shang et al. 2016, Table 1, + (half), CIFAR-10"
    one = tmp_path / "run" / "fold01"
    assert "4.73%" in lines("--model", one, "--split", "train")[1]
    # Another number of networks is no ten folds.
    two = lines("--model", one, "--model", tmp_path / "run" / "fold02")
    assert "9.44%" not in " ".join(two)
    found = json.loads(call("classify", tmp_path / "cifar", "--model", one, "--json")[1])
    assert found["paper"] == [[row.record() for row in paper_rows(architecture)]]
    assert found["paper"][0][0]["cells"]["single"] == 8.37
    assert found["paper"][0][0]["parameters"] == "0.7M"
