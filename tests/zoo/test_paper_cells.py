"""The paper's tables as data, checked against each other and against the zoo; and which rows a network finds."""

from dataclasses import replace

import pytest

from reconstruct.network.network import Network
from reconstruct.network.surgery import with_classes
from reconstruct.zoo.paper_cells import ROWS, PaperRow, paper_layer, paper_rows
from reconstruct.zoo.registry import model_names
from reconstruct.zoo.specification import read_architecture

TABLE_5 = [row for row in ROWS if row.table == 5]
TABLE_6 = [row for row in ROWS if row.table == 6]


def test_rows_and_columns() -> None:
    """Sums of the printed columns, added up by hand from the paper, and what each table has."""
    sums = {
        (1, "CIFAR-10", "train"): 14.62, (1, "CIFAR-10", "single"): 42.94, (1, "CIFAR-10", "average"): 49.16,
        (1, "CIFAR-10", "±"): 0.48, (1, "CIFAR-10", "vote"): 36.77,
        (1, "CIFAR-100", "train"): 74.32, (1, "CIFAR-100", "single"): 171.23, (1, "CIFAR-100", "average"): 182.45,
        (1, "CIFAR-100", "±"): 0.77, (1, "CIFAR-100", "vote"): 146.90,
        (2, "CIFAR-10", "single"): 24.53, (2, "CIFAR-10", "average"): 26.25,
        (2, "CIFAR-10", "±"): 0.17, (2, "CIFAR-10", "vote"): 20.90,
        (2, "CIFAR-100", "single"): 108.96, (2, "CIFAR-100", "average"): 114.16,
        (2, "CIFAR-100", "±"): 0.35, (2, "CIFAR-100", "vote"): 99.11,
        (4, "ImageNet", "top1"): 369.94, (4, "ImageNet", "top5"): 173.25,
        (4, "ImageNet", "top1_ten"): 335.47, (4, "ImageNet", "top5_ten"): 149.38,
        (5, "ImageNet", "top1"): 290.31, (5, "ImageNet", "top5"): 115.26,
        (5, "ImageNet", "top1_ten"): 187.91, (5, "ImageNet", "top5_ten"): 83.13,
        (6, "ImageNet", "pair"): 1.782, (6, "ImageNet", "non_pair"): 0.832, (6, "ImageNet", "±"): 1.298 + 0.754,
    }  # fmt: skip
    found: dict[tuple[int, str, str], float] = {}
    for row in ROWS:
        for column, value in [*row.cells.items(), *(("±", each) for each in row.spreads.values())]:
            key = (row.table, row.data, column)
            found[key] = found.get(key, 0.0) + value
    assert found == pytest.approx(sums)
    assert {row.model for row in ROWS if row.model} < set(model_names())
    assert len({(row.table, row.row, row.data) for row in ROWS}) == len(ROWS) == 10 + 8 + 9 + 7 + 7
    for row in ROWS:
        assert row.cells.get("top5", 0) < row.cells.get("top1", 1)
        assert row.cells.get("vote", 0) < row.cells.get("single", 1)


def test_parameters_are_those_printed_but_for_two() -> None:
    """They round to what is printed, but for the two that print twice and four times the baseline's 1.4.

    Doubling does not reach the pictures' channels and the classes, so that it less than doubles the parameters.
    """
    differing = set()
    for row in ROWS:
        if row.parameters is None or not row.model:
            continue
        counted = sum(value.numel() for value in Network(read_architecture(row.model)).parameters()) / 1e6
        if f"{counted:.1f}M" != row.parameters:
            differing.add((row.model, round(counted, 2), row.parameters))
    assert differing == {("convpool_cnn_c_double", 5.47, "5.6M"), ("convpool_cnn_c_crelu", 2.74, "2.8M")}


def test_a_network_finds_its_rows_under_any_name() -> None:
    """By its layers: those trained with other dropout and without batch normalisation, and for CIFAR-100, as well."""
    last = {row.model: row for row in ROWS if row.table in (1, 2, 4)}  # of small networks that of CIFAR-100
    assert len(last) == 18
    for row in last.values():
        own = with_classes(read_architecture(row.model), 1000 if row.table == 4 else 100)
        layers = tuple(replace(each, name=f"{each.name}x", dropout=0.0, batch_norm=False) for each in own.layers)
        found = paper_rows(replace(own, name="mine", layers=layers))
        assert row in found
        assert [each.table for each in found] in ([1], [2], [4], [4, 5])
        assert {each.model for each in found} == {row.model}
    four, five = paper_rows(read_architecture("crelu_conv1_4"))
    assert (four.row, five.row, five.parameters) == ("CReLU (conv1-4)", "(conv1-4)", "10.1M")
    assert four.cells == five.cells
    for stranger in (
        read_architecture("cifar_split"),
        with_classes(read_architecture("convpool_cnn_c"), 20),
        with_classes(read_architecture("crelu_conv1_4"), 10),
    ):
        assert paper_rows(stranger) == []
    base = read_architecture("all_cnn_b")
    wider = replace(base, layers=(replace(base.layers[0], filters=97), *base.layers[1:]))
    assert paper_rows(wider) == []


def test_the_best_of_ten_crops_is_not_the_best_of_one() -> None:
    """Sections 3.2 and 4.2: conv1-4 is best with the centre crop, conv1,4,7 with ten."""

    def best(column: str) -> str:
        return min(TABLE_5, key=lambda row: row.cells.get(column, 100)).row

    assert best("top1") == "(conv1-4)"
    assert best("top1_ten") == best("top5_ten") == "(conv1,4,7)"


def test_table_6_is_of_the_layers_that_are_the_papers() -> None:
    """conv1 to conv7 of its own model, conv1 to conv4 of the one with CReLU there; none of a ReLU or a smaller one."""
    names = [row.row for row in TABLE_6]
    assert {row.model for row in TABLE_6} == {"crelu_conv1_7"}
    found = {
        model: [name for name in names if paper_layer(read_architecture(model), name) is not None]
        for model in (
            "crelu_conv1_7",
            "crelu_conv1_9",
            "crelu_conv1_4",
            "all_cnn_b",
            "crelu_all",
            "convpool_cnn_c_crelu",
        )
    }
    assert found == {
        "crelu_conv1_7": names, "crelu_conv1_9": names, "crelu_conv1_4": names[:4], "all_cnn_b": [], "crelu_all": [],
        "convpool_cnn_c_crelu": [],
    }  # fmt: skip
    assert paper_layer(read_architecture("crelu_conv1_7"), "conv8") is None
    # Section 4.3: pairs are above non-pairs and far below 1.
    assert all(row.value("non_pair") < row.value("pair") < 0.5 for row in TABLE_6)
    assert TABLE_6[0].spread("pair") == 0.372


def test_cells_stand_beside_what_was_measured_alike() -> None:
    def beside(row: PaperRow, *how: object) -> dict[str, float]:
        return {rate: row.value(column) for rate, column in row.beside(*how).items()}  # type: ignore[arg-type]

    (crelu,) = paper_rows(read_architecture("convpool_cnn_c_crelu"))
    assert (crelu.table, crelu.row, crelu.data) == (1, "CReLU", "CIFAR-10")
    assert beside(crelu, "single", "test", 1) == pytest.approx({"top1": 0.0843})
    assert beside(crelu, "single", "train", 1) == pytest.approx({"top1": 0.0423})
    assert beside(crelu, "average", "test", 1) == pytest.approx({"top1": 0.0939})
    assert beside(crelu, "vote", "test", 1) == pytest.approx({"top1": 0.0709})
    assert crelu.spread("average") == pytest.approx(0.0011)
    assert crelu.spread("single") is None
    for kind, split, crops in (("single", "test", 10), ("vote", "train", 1), ("average", "train", 1)):
        assert crelu.beside(kind, split, crops) == {}
    (vgg,) = paper_rows(with_classes(read_architecture("cifar_vgg"), 100))
    assert beside(vgg, "single", "test", 1) == pytest.approx({"top1": 0.2899})
    assert vgg.beside("single", "train", 1) == {}  # Table 2 has no training error
    for large in paper_rows(read_architecture("crelu_conv1_4")):
        assert beside(large, "single", "test", 1) == pytest.approx({"top1": 0.3982, "top5": 0.1828})
        assert beside(large, "single", "test", 10) == pytest.approx({"top1": 0.3620, "top5": 0.1572})
        assert large.beside("single", "train", 1) == large.beside("vote", "test", 1) == {}
