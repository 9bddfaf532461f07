import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reconstruct import CallError, quality


@given(st.floats(1e-3, 0.5), st.integers(11, 20), st.integers(11, 20))
def test_psnr_of_a_constant_offset(offset: float, height: int, width: int) -> None:
    images = torch.full((2, 3, height, width), 0.5)
    found = quality(images, images + torch.tensor([offset, offset / 2]).view(2, 1, 1, 1))
    assert found.psnr == pytest.approx([-20 * math.log10(offset), -20 * math.log10(offset / 2)], abs=1e-3)
    assert found.relative_error == pytest.approx([offset / 0.5, offset], rel=1e-4)


def reference_ssim(x: torch.Tensor, y: torch.Tensor) -> float:
    """Wang et al. 2004, written out: 11 x 11 Gaussian window of sigma 1.5, valid positions, mean over channels."""
    steps = torch.arange(-5, 6, dtype=torch.float64)
    line = torch.exp(-(steps**2) / (2 * 1.5**2))
    window = torch.outer(line, line)
    window = (window / window.sum()).view(1, 1, 11, 11)

    def mean(values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(values[:, None].double(), window)

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return float((((2 * mx * my + c1) * (2 * cov + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())


def test_ssim_is_that_of_wang_et_al(generator: torch.Generator) -> None:
    x = torch.rand(2, 3, 37, 31, generator=generator).double()
    y = (x + 0.2 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    found = quality(x, y)
    assert found.ssim == pytest.approx([reference_ssim(*pair) for pair in zip(x, y, strict=True)], abs=1e-6)


def test_perfect_clipped_and_empty(photograph: torch.Tensor) -> None:
    perfect = quality(photograph, photograph)
    assert perfect.psnr == [math.inf]
    assert perfect.ssim == pytest.approx([1])
    white = torch.ones(1, 3, 11, 11)
    assert quality(white, white * 3).psnr == [math.inf]
    assert quality(white[:0], white[:0]).psnr == []


def test_an_image_smaller_than_the_window_of_ssim_has_none() -> None:
    images = torch.full((1, 3, 10, 20), 0.5)
    found = quality(images, images + 0.1)
    assert found.psnr == pytest.approx([20], abs=1e-4)
    assert math.isnan(found.ssim[0])


@pytest.mark.parametrize(
    ("images", "reconstructions", "message"),
    [
        (torch.zeros(1, 3, 20, 20), torch.zeros(1, 3, 20, 21), "of one shape"),
        (torch.full((1, 3, 20, 20), -1.5), torch.zeros(1, 3, 20, 20), r"lie in \[0, 1\].*normalised"),
        (torch.zeros(1, 3, 20, 20), torch.full((1, 3, 20, 20), float("nan")), "not finite"),
    ],
)
def test_what_would_give_meaningless_figures_is_refused(
    images: torch.Tensor, reconstructions: torch.Tensor, message: str
) -> None:
    with pytest.raises(CallError, match=message):
        quality(images, reconstructions)
