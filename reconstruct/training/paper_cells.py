"""What Shang et al. 2016 print in their Tables 1, 2 and 4: error rates in per cent, as data to stand beside ours."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class PaperRow:
    """A row of a table, for one data set.

    Attributes
    ----------
    table : the table's number.
    row : what the paper calls the network.
    data : ``CIFAR-10``, ``CIFAR-100`` or ``ImageNet``.
    model : the zoo's name of the network.
    cells : per cent, by column. Of Tables 1 and 2 ``single`` and ``train`` are test and training error of the single
        network (Table 2 has no ``train``), ``average`` and ``standard_error`` those of ten networks, ``vote`` that of
        their mean. Of Table 4 ``top1`` and ``top5`` are by centre crops, ``top1_ten`` and ``top5_ten`` by ten.
    millions : the number of parameters as printed, in millions; None where the table has none.
    """

    table: int
    row: str
    data: str
    model: str
    cells: dict[str, float]
    millions: float | None = None

    def record(self) -> dict[str, Any]:
        """The row in JSON's types."""
        return asdict(self)

    def beside(self, kind: str, split: str, crops: int) -> dict[str, float]:
        """The cells that stand beside top-1 and top-5 errors, as shares, by ``top1`` and ``top5``; those there are.

        Parameters
        ----------
        kind : ``single``, ``average`` or ``vote``.
        split, crops : the pictures that were classified, ``test`` or ``train``, and by how many crops.
        """
        if self.table == 4:
            names = {rate: rate if crops == 1 else f"{rate}_ten" for rate in ("top1", "top5")}
            names = names if kind == "single" and split == "test" else {}
        else:
            # A network of the folds has no training error in the paper.
            names = {"top1": "train" if kind == "single" and split == "train" else kind}
            names = names if crops == 1 and (split == "test" or kind == "single") else {}
        return {rate: self.cells[name] / 100 for rate, name in names.items() if name in self.cells}


CLASSES = {10: "CIFAR-10", 100: "CIFAR-100", 1000: "ImageNet"}
"""The data set that a number of classes stands for."""

_TABLE_1 = ("train", "single", "average", "standard_error", "vote")
_TABLE_2 = _TABLE_1[1:]
_TABLE_4 = ("top1", "top5", "top1_ten", "top5_ten")


def _rows(table: int, data: str, columns: tuple[str, ...], rows: dict[tuple[str, str], str]) -> list[PaperRow]:
    """The rows of a table from their names and numbers; of Table 1 the last number is that of parameters."""
    found = []
    for (row, model), text in rows.items():
        numbers = [float(each) for each in text.split()]
        cells = dict(zip(columns, numbers, strict=False))
        found.append(PaperRow(table, row, data, model, cells, numbers[-1] if table == 1 else None))
    return found


ROWS: tuple[PaperRow, ...] = (
    *_rows(
        1, "CIFAR-10", _TABLE_1,
        {
            ("Baseline", "convpool_cnn_c"): "1.09 9.17 10.20 0.09 7.55 1.4",
            ("+ (double)", "convpool_cnn_c_double"): "0.47 8.65 9.87 0.09 7.28 5.6",
            ("AVR", "convpool_cnn_c_avr"): "4.10 8.32 10.26 0.10 7.76 1.4",
            ("CReLU", "convpool_cnn_c_crelu"): "4.23 8.43 9.39 0.11 7.09 2.8",
            ("+ (half)", "convpool_cnn_c_crelu_half"): "4.73 8.37 9.44 0.09 7.09 0.7",
        },
    ),
    *_rows(
        1, "CIFAR-100", _TABLE_1,
        {
            ("Baseline", "convpool_cnn_c"): "13.68 36.30 38.52 0.12 31.26 1.4",
            ("+ (double)", "convpool_cnn_c_double"): "6.03 34.77 36.73 0.15 28.34 5.6",
            ("AVR", "convpool_cnn_c_avr"): "19.35 35.00 37.24 0.20 29.77 1.4",
            ("CReLU", "convpool_cnn_c_crelu"): "14.25 31.48 33.76 0.12 27.60 2.8",
            ("+ (half)", "convpool_cnn_c_crelu_half"): "21.01 33.68 36.20 0.18 29.93 0.7",
        },
    ),
    *_rows(
        2, "CIFAR-10", _TABLE_2,
        {
            ("VGG", "cifar_vgg"): "6.35 6.90 0.03 5.43",
            ("(conv1)", "cifar_vgg_crelu_conv1"): "6.18 6.45 0.05 5.22",
            ("(conv1,3)", "cifar_vgg_crelu_conv1_3"): "5.94 6.45 0.02 5.09",
            ("(conv1,3,5)", "cifar_vgg_crelu_conv1_3_5"): "6.06 6.45 0.07 5.16",
        },
    ),
    *_rows(
        2, "CIFAR-100", _TABLE_2,
        {
            ("VGG", "cifar_vgg"): "28.99 30.27 0.09 26.85",
            ("(conv1)", "cifar_vgg_crelu_conv1"): "27.29 28.43 0.11 24.67",
            ("(conv1,3)", "cifar_vgg_crelu_conv1_3"): "26.52 27.79 0.08 23.93",
            ("(conv1,3,5)", "cifar_vgg_crelu_conv1_3_5"): "26.16 27.67 0.07 23.66",
        },
    ),
    *_rows(
        4, "ImageNet", _TABLE_4,
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
    ),
)  # fmt: skip
"""Every row of Tables 1, 2 and 4, in the paper's order."""


def paper_row(model: str, classes: int) -> PaperRow | None:
    """The row of a network on the data set with so many classes; None where the paper has none."""
    return next((row for row in ROWS if (row.model, row.data) == (model, CLASSES.get(classes))), None)
