import torch

from reconstruct import load_model
from reconstruct.analysis.crelu.rectify import rectify
from reconstruct.network.network import Network
from reconstruct.report.figures.rectify import rectify_figure


def test_a_row_a_filter_and_a_silent_one_is_drawn(net: Network, photograph: torch.Tensor) -> None:
    """A row a filter, in colour for the first layer; a response of 0 everywhere is no error."""
    found = rectify(net, photograph, "conv1", count=2)
    one, two = (rectify_figure(photograph[0], found[:count], "title") for count in (1, 2))
    assert two.height > 1.4 * one.height
    assert one.width == two.width > 1000
    shades = rectify_figure(photograph[0], found, "title", shades=True)
    assert shades.size == two.size
    # Of the colours the image, the filters and the histograms are left.
    assert shades.convert("L").getcolors(256) != two.convert("L").getcolors(256)
    silent = load_model("convpool_cnn_c")
    for tensor in silent.convolution("conv1").parameters():
        tensor.data.zero_()
    none = rectify(silent, photograph[..., :32, :32], "conv1", [0])
    assert none[0].record()["energy_kept"]["relu"] == 1.0
    assert rectify_figure(photograph[0], none, "nothing").width > 1000
    assert rectify_figure(photograph[0], none, "nothing", shades=True).width > 1000
