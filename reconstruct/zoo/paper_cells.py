"""Cells of Tables 1, 2, 4, 5 and 6 of Shang et al. 2016 (arXiv 1603.05201), as they are printed, to stand beside ours.

Which rows a network has is told by its layers, not by its name: a model that somebody has trained finds them as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from reconstruct.network.architecture import Architecture, Layer
from reconstruct.zoo.specification import read_architecture

CLASSES = {10: "CIFAR-10", 100: "CIFAR-100", 1000: "ImageNet"}
"""The data set that a number of classes stands for."""


@dataclass(frozen=True)
class PaperRow:
    """A row of a table, for one data set; all numbers to the digits that are printed.

    Attributes
    ----------
    table : the table's number.
    row : what the paper calls the network, in Table 6 the layer.
    data : ``CIFAR-10``, ``CIFAR-100`` or ``ImageNet``.
    model : the zoo's name of the network; empty of others' networks, which the zoo does not have.
    cells : by column. Of Tables 1 and 2, in per cent, ``train`` (Table 1 alone) and ``single`` are training and test
        error of the single network, ``average`` that of ten networks, ``vote`` that of their mean. Of Tables 4 and 5,
        in per cent, ``top1`` and ``top5`` are by centre crops, ``top1_ten`` and ``top5_ten`` by ten; where there is a
        dash they are missing. Of Table 6 ``pair`` and ``non_pair`` are absolute cosines of outgoing weights.
    spreads : what is printed after a cell's ±: of an average its standard error; of Table 6 the paper does not say.
    parameters : how many the network has, as printed; None where the table does not say.
    """

    table: int
    row: str
    data: str
    model: str
    cells: dict[str, float]
    spreads: dict[str, float] = field(default_factory=dict)
    parameters: str | None = None

    def record(self) -> dict[str, Any]:
        """The row in JSON's types."""
        return asdict(self)

    def value(self, column: str) -> float:
        """A cell as a number from 0 to 1: an error rate as a share, a cosine as it is printed."""
        return self.cells[column] / self._unit

    def spread(self, column: str) -> float | None:
        """What is printed after a cell's ±, in the unit of ``value``; None where nothing is."""
        return self.spreads[column] / self._unit if column in self.spreads else None

    @property
    def _unit(self) -> float:
        return 1 if self.table == 6 else 100

    def beside(self, kind: str, split: str, crops: int) -> dict[str, str]:
        """The columns that stand beside top-1 and top-5 errors, by ``top1`` and ``top5``; those there are.

        Parameters
        ----------
        kind : ``single``, ``average`` or ``vote``.
        split, crops : the pictures that were classified, ``test`` or ``train``, and by how many crops.
        """
        if self.table in (4, 5):
            names = {rate: rate if crops == 1 else f"{rate}_ten" for rate in ("top1", "top5")}
            names = names if kind == "single" and split == "test" else {}
        else:
            # A network of the folds has no training error in the paper.
            names = {"top1": "train" if kind == "single" and split == "train" else kind}
            names = names if crops == 1 and (split == "test" or kind == "single") else {}
        return {rate: name for rate, name in names.items() if name in self.cells}


class Cell(NamedTuple):
    """A cell of a table that was made here, beside the paper's; error rates are shares from 0 to 1.

    Attributes
    ----------
    table, data, row, model, column : which cell it is, as in ``PaperRow``.
    value : here; an error rate, or of Table 6 the mean absolute cosine.
    standard_error : of the value.
    deviation : of Table 6 the standard deviation of the cosines; None of an error rate.
    number : how many pictures were classified, or of how many cosines the value is the mean.
    paper : the value in the paper.
    paper_spread : what the paper prints after its ±; None where nothing.
    """

    table: int
    data: str
    row: str
    model: str
    column: str
    value: float
    standard_error: float
    deviation: float | None
    number: int
    paper: float
    paper_spread: float | None


def cell(
    row: PaperRow, column: str, value: float, standard_error: float, number: int, deviation: float | None = None
) -> Cell:
    """What was found here, beside a cell of one of the paper's rows."""
    which = row.table, row.data, row.row, row.model, column
    return Cell(*which, value, standard_error, deviation, number, row.value(column), row.spread(column))


def _rows(table: int, data: str, columns: str, rows: dict[tuple[str, str], str]) -> list[PaperRow]:
    """The rows of a table from the names of its columns, and their names and numbers; a dash is no cell."""
    found = []
    for (row, model), text in rows.items():
        values = dict(zip(columns.split(), text.split(), strict=True))
        parameters = values.pop("parameters", None)
        parts = {name: [float(part) for part in each.split("±")] for name, each in values.items() if each != "-"}
        cells, spreads = ({name: part[k] for name, part in parts.items() if len(part) > k} for k in (0, 1))
        found.append(PaperRow(table, row, data, model, cells, spreads, parameters))
    return found


_ERRORS = "top1 top5 top1_ten top5_ten"
_TABLE_1, _TABLE_2 = "train single average vote parameters", "single average vote"

_TABLE_4 = _rows(
    4, "ImageNet", _ERRORS,
    {
        ("Baseline", "all_cnn_b"): "41.81 19.74 38.03 17.17",
        ("AVR (conv1-4)", "avr_conv1_4"): "41.12 19.25 37.32 16.49",
        ("AVR (conv1-7)", "avr_conv1_7"): "42.36 20.05 38.21 17.42",
        ("AVR (conv1-9)", "avr_conv1_9"): "43.33 21.05 39.70 18.39",
        ("CReLU (conv1,4,7)", "crelu_conv1_conv4_conv7"): "40.45 18.58 35.70 15.32",
        ("CReLU (conv1-4)", "crelu_conv1_4"): "39.82 18.28 36.20 15.72",
        ("CReLU (conv1-7)", "crelu_conv1_7"): "39.97 18.33 36.53 16.01",
        ("CReLU (conv1-9)", "crelu_conv1_9"): "40.15 18.58 36.50 16.14",
        ("CReLU (all)", "crelu_all"): "40.93 19.39 37.28 16.72",
    },
)  # fmt: skip

_OWN_IN_TABLE_5 = {
    "all_cnn_b": ("AllConvB", "9.4M"),
    "crelu_all": ("CReLU (all)", "4.7M"),  # 4.6M in the text of section 3.2
    "crelu_conv1_conv4_conv7": ("(conv1,4,7)", "8.6M"),
    "crelu_conv1_4": ("(conv1-4)", "10.1M"),
}
"""What Table 5 calls four networks of Table 4, whose error rates it repeats, and how many parameters they have."""

ROWS: tuple[PaperRow, ...] = (
    *_rows(
        1, "CIFAR-10", _TABLE_1,
        {
            ("Baseline", "convpool_cnn_c"): "1.09 9.17 10.20±0.09 7.55 1.4M",
            ("+ (double)", "convpool_cnn_c_double"): "0.47 8.65 9.87±0.09 7.28 5.6M",
            ("AVR", "convpool_cnn_c_avr"): "4.10 8.32 10.26±0.10 7.76 1.4M",
            ("CReLU", "convpool_cnn_c_crelu"): "4.23 8.43 9.39±0.11 7.09 2.8M",
            ("+ (half)", "convpool_cnn_c_crelu_half"): "4.73 8.37 9.44±0.09 7.09 0.7M",
        },
    ),
    *_rows(
        1, "CIFAR-100", _TABLE_1,
        {
            ("Baseline", "convpool_cnn_c"): "13.68 36.30 38.52±0.12 31.26 1.4M",
            ("+ (double)", "convpool_cnn_c_double"): "6.03 34.77 36.73±0.15 28.34 5.6M",
            ("AVR", "convpool_cnn_c_avr"): "19.35 35.00 37.24±0.20 29.77 1.4M",
            ("CReLU", "convpool_cnn_c_crelu"): "14.25 31.48 33.76±0.12 27.60 2.8M",
            ("+ (half)", "convpool_cnn_c_crelu_half"): "21.01 33.68 36.20±0.18 29.93 0.7M",
        },
    ),
    *_rows(
        2, "CIFAR-10", _TABLE_2,
        {
            ("VGG", "cifar_vgg"): "6.35 6.90±0.03 5.43",
            ("(conv1)", "cifar_vgg_crelu_conv1"): "6.18 6.45±0.05 5.22",
            ("(conv1,3)", "cifar_vgg_crelu_conv1_3"): "5.94 6.45±0.02 5.09",
            ("(conv1,3,5)", "cifar_vgg_crelu_conv1_3_5"): "6.06 6.45±0.07 5.16",
        },
    ),
    *_rows(
        2, "CIFAR-100", _TABLE_2,
        {
            ("VGG", "cifar_vgg"): "28.99 30.27±0.09 26.85",
            ("(conv1)", "cifar_vgg_crelu_conv1"): "27.29 28.43±0.11 24.67",
            ("(conv1,3)", "cifar_vgg_crelu_conv1_3"): "26.52 27.79±0.08 23.93",
            ("(conv1,3,5)", "cifar_vgg_crelu_conv1_3_5"): "26.16 27.67±0.07 23.66",
        },
    ),
    *_TABLE_4,
    *_rows(
        5, "ImageNet", f"{_ERRORS} parameters",
        {
            ("AlexNet", ""): "42.6 19.6 40.7 18.2 61M",
            ("FriedNet", ""): "41.93 - - - 32.8M",
            ("PrunedNet", ""): "42.77 19.67 - - 6.7M",
        },
    ),
    *(
        replace(row, table=5, row=name, parameters=parameters)
        for model, (name, parameters) in _OWN_IN_TABLE_5.items()
        for row in _TABLE_4
        if row.model == model
    ),
    *_rows(
        6, "ImageNet", "pair non_pair",
        {
            ("conv1", "crelu_conv1_7"): "0.372±0.372 0.165±0.154",
            ("conv2", "crelu_conv1_7"): "0.180±0.149 0.157±0.137",
            ("conv3", "crelu_conv1_7"): "0.462±0.249 0.120±0.120",
            ("conv4", "crelu_conv1_7"): "0.175±0.146 0.119±0.100",
            ("conv5", "crelu_conv1_7"): "0.206±0.136 0.105±0.093",
            ("conv6", "crelu_conv1_7"): "0.256±0.124 0.086±0.080",
            ("conv7", "crelu_conv1_7"): "0.131±0.122 0.080±0.070",
        },
    ),
)  # fmt: skip
"""Every row of these tables, in the paper's order."""


def paper_rows(architecture: Architecture) -> list[PaperRow]:
    """The rows of Tables 1, 2, 4 and 5 that a network is, layer by layer, on data of as many classes as it tells apart.

    A network of Table 5 has its row of Table 4 first.
    """
    data = CLASSES.get(architecture.layers[-1].channels)
    rows = [row for row in ROWS if row.table != 6 and row.data == data and row.model]
    own = _shapes(architecture.layers, classes=False)
    models = dict.fromkeys(row.model for row in rows)
    same = [model for model in models if _shapes(read_architecture(model).layers, classes=False) == own]
    return [row for row in rows if row.model in same]


def paper_layer(architecture: Architecture, layer: str) -> PaperRow | None:
    """The row of Table 6 for a layer; None where the layers up to it are not those of the paper's model.

    A model with CReLU in fewer layers than the paper's has its first rows: ``crelu_conv1_4`` those of conv1 to conv4.
    """
    row = next((row for row in ROWS if row.table == 6 and row.row == layer), None)
    if row is None:
        return None
    paper = read_architecture(row.model)
    depth = paper.index(layer) + 1
    same = _shapes(architecture.layers[:depth]) == _shapes(paper.layers[:depth])
    return row if same and architecture.layers[depth - 1].name == layer else None


def _shapes(layers: Sequence[Layer], *, classes: bool = True) -> list[Layer]:
    """What of layers decides whether they are the paper's: not names, nor how they were trained.

    ``classes`` : whether the number of filters of the last one does, too.
    """
    plain = [replace(each, name="", dropout=0.0, batch_norm=False) for each in layers]
    return plain if classes else [*plain[:-1], replace(plain[-1], filters=0)]
