import math
from dataclasses import replace

import pytest

from reconstruct.analysis.paper_cells import TABLE_5, TABLE_6, TABLE_6_MODEL, table_5_row, table_6_cell
from reconstruct.zoo.specification import read_architecture


def test_table_5_has_our_parameter_counts() -> None:
    """To the digit that the paper prints; and a model finds its row by its layers, under any name."""
    ours = [row for row in TABLE_5 if row.model is not None]
    assert len(ours) == 4
    for row in ours:
        architecture = read_architecture(row.model or "")
        assert architecture.parameters() / 1e6 == pytest.approx(float(row.parameters[:-1]), abs=0.051)
        assert table_5_row(replace(architecture, name="mine")) is row
    assert table_5_row(read_architecture("crelu_conv1_7")) is None
    assert table_5_row(read_architecture("convpool_cnn_c")) is None


def test_the_best_of_ten_crops_is_not_the_best_of_one() -> None:
    """Sections 3.2 and 4.2: conv1-4 is best with the centre crop, conv1,4,7 with ten."""
    assert min(TABLE_5, key=lambda row: row.top1).row == "(conv1-4)"
    assert min(TABLE_5, key=lambda row: row.top1_of_ten or math.inf).row == "(conv1,4,7)"
    assert min(TABLE_5, key=lambda row: row.top5_of_ten or math.inf).row == "(conv1,4,7)"


def test_table_6_is_of_the_layers_that_are_the_papers() -> None:
    """conv1 to conv7 of its own model, conv1 to conv4 of the one with CReLU there; none of a ReLU or a smaller one."""
    names = list(TABLE_6)
    found = {
        model: [name for name in names if table_6_cell(read_architecture(model), name) is not None]
        for model in (TABLE_6_MODEL, "crelu_conv1_9", "crelu_conv1_4", "all_cnn_b", "crelu_all", "convpool_cnn_c_crelu")
    }
    assert found == {
        TABLE_6_MODEL: names, "crelu_conv1_9": names, "crelu_conv1_4": names[:4], "all_cnn_b": [], "crelu_all": [],
        "convpool_cnn_c_crelu": [],
    }  # fmt: skip
    assert table_6_cell(read_architecture(TABLE_6_MODEL), "conv8") is None
    # Section 4.3: pairs are above non-pairs and far below 1.
    assert all(cell.non_pair < cell.pair < 0.5 for cell in TABLE_6.values())
