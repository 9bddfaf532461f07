import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from reconstruct import CallError, quality


@given(st.floats(1e-3, 0.5), st.integers(11, 20), st.integers(11, 20))
def test_psnr_of_a_constant_offset(offset: float, height: int, width: int) -> None:
    images = torch.full((2, 3, height, width), 0.5)
    found = quality(images, images + torch.tensor([offset, offset / 2]).view(2, 1, 1, 1))
    assert found.psnr == pytest.approx([-20 * math.log10(offset), -20 * math.log10(offset / 2)], abs=1e-3)
    assert found.relative_error == pytest.approx([offset / 0.5, offset], rel=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_both_are_scikit_images(channels: int, generator: torch.Generator) -> None:
    x = torch.rand(2, channels, 37, 31, generator=generator).double()
    y = (x + 0.2 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    x[1, :, :20], y[1, :, :12] = 0.5, 0.5  # flat parts, of no variance
    found = quality(x, y)
    for i, (truth, estimate) in enumerate(zip(x.numpy(), y.numpy(), strict=True)):
        assert found.psnr[i] == pytest.approx(peak_signal_noise_ratio(truth, estimate, data_range=1), rel=1e-13)
        # As Wang et al. 2004 have it.
        ssim = structural_similarity(
            truth, estimate, data_range=1, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert found.ssim[i] == pytest.approx(ssim, rel=1e-11)


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
