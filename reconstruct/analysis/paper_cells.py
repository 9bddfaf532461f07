"""Cells of Tables 5 and 6 of Shang et al. 2016 (arXiv 1603.05201), as they are printed, to stand beside ours.

Which model of the zoo a row is of is told by its layers, not by its name: a model that somebody has trained finds its
row as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reconstruct.network.architecture import Architecture, Layer
from reconstruct.zoo.specification import read_architecture


@dataclass(frozen=True)
class ImageNetRow:
    """A row of Table 5 (section 3.2): error rates on ImageNet's validation set in percent, None where there is a dash.

    Attributes
    ----------
    row : as the paper calls it.
    model : of the zoo; None where it has none.
    top1, top5 : with the centre crop.
    top1_of_ten, top5_of_ten : averaged over 10 crops.
    parameters : millions, to the digits that are printed.
    """

    row: str
    model: str | None
    top1: float
    top5: float | None
    top1_of_ten: float | None
    top5_of_ten: float | None
    parameters: str


TABLE_5 = (
    ImageNetRow("AlexNet", None, 42.6, 19.6, 40.7, 18.2, "61M"),
    ImageNetRow("FriedNet", None, 41.93, None, None, None, "32.8M"),
    ImageNetRow("PrunedNet", None, 42.77, 19.67, None, None, "6.7M"),
    ImageNetRow("AllConvB", "all_cnn_b", 41.81, 19.74, 38.03, 17.17, "9.4M"),
    ImageNetRow("CReLU (all)", "crelu_all", 40.93, 19.39, 37.28, 16.72, "4.7M"),
    ImageNetRow("(conv1,4,7)", "crelu_conv1_conv4_conv7", 40.45, 18.58, 35.70, 15.32, "8.6M"),
    ImageNetRow("(conv1-4)", "crelu_conv1_4", 39.82, 18.28, 36.20, 15.72, "10.1M"),
)
"""Section 3.2 gives CReLU (all) 4.6M parameters where the table has 4.7M. Ours has 4,683,792 without biases."""


@dataclass(frozen=True)
class OutgoingCell:
    """A row of Table 6 (section 4.3): absolute cosines of outgoing weights, mean and what is printed after it.

    Attributes
    ----------
    pair, pair_std : of a response's two phases.
    non_pair, non_pair_std : of all other two features.
    """

    pair: float
    pair_std: float
    non_pair: float
    non_pair_std: float

    def record(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return dict(vars(self))


TABLE_6_MODEL = "crelu_conv1_7"
TABLE_6 = {
    "conv1": OutgoingCell(0.372, 0.372, 0.165, 0.154),
    "conv2": OutgoingCell(0.180, 0.149, 0.157, 0.137),
    "conv3": OutgoingCell(0.462, 0.249, 0.120, 0.120),
    "conv4": OutgoingCell(0.175, 0.146, 0.119, 0.100),
    "conv5": OutgoingCell(0.206, 0.136, 0.105, 0.093),
    "conv6": OutgoingCell(0.256, 0.124, 0.086, 0.080),
    "conv7": OutgoingCell(0.131, 0.122, 0.080, 0.070),
}
"""Of the model with CReLU at conv1 to conv7, trained on ImageNet."""


def table_5_row(architecture: Architecture) -> ImageNetRow | None:
    """The row of Table 5 that a model is, layer by layer; None where it is none of them."""
    own = _shapes(architecture.layers)
    for row in TABLE_5:
        if row.model is not None and _shapes(read_architecture(row.model).layers) == own:
            return row
    return None


def table_6_cell(architecture: Architecture, layer: str) -> OutgoingCell | None:
    """The row of Table 6 for a layer; None where the layers up to it are not those of the paper's model.

    A model with CReLU in fewer layers than the paper's has its first rows: ``crelu_conv1_4`` those of conv1 to conv4.
    """
    if layer not in TABLE_6:
        return None
    paper = read_architecture(TABLE_6_MODEL)
    depth = [each.name for each in paper.layers].index(layer) + 1
    same = _shapes(architecture.layers[:depth]) == _shapes(paper.layers[:depth])
    return TABLE_6[layer] if same and architecture.layers[depth - 1].name == layer else None


def _shapes(layers: Sequence[Layer]) -> list[tuple[Any, ...]]:
    """What of layers decides whether they are the paper's."""
    return [
        (each.kind, each.filters, each.kernel, each.stride, each.padding, each.groups, each.activation)
        for each in layers
    ]
