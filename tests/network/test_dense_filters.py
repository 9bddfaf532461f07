import pytest
import torch

from reconstruct.network.dense_filters import dense_filters, dense_weight


@pytest.mark.parametrize(("groups", "dilation"), [(1, 2), (2, 1), (3, 3), (6, 2)])
def test_filters_written_out_convolve_as_the_grouped_and_dilated_ones(groups: int, dilation: int) -> None:
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(6, 12, (3, 2), groups=groups, dilation=dilation, bias=False).double()
    images = torch.randn(2, 6, 11, 9, dtype=torch.float64)
    found = torch.nn.functional.conv2d(images, dense_weight(convolution))
    torch.testing.assert_close(found, convolution(images), rtol=0, atol=1e-13)


def test_a_plain_weight_is_itself() -> None:
    weight = torch.randn(2, 3, 3, 3)
    assert dense_filters(weight, 1, 1) is weight
