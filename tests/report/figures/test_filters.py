import numpy
import pytest
import torch

from reconstruct.analysis.crelu.pairing import Pairs, pairing, random_pairing
from reconstruct.report.figures.filters import (
    cosine_histograms,
    filter_grid,
    filter_picture,
    pair_grid,
    strongest_channels,
)


def test_colours_are_weights(generator: torch.Generator) -> None:
    """Every weight w of an RGB filter is a square of the colour 0.5 + w / (2 max |w|)."""
    weights = torch.randn(3, 11, 11, generator=generator)
    picture = filter_picture(weights, rgb=True)
    side = picture.shape[1] // 11
    assert picture.shape == (3, 11 * side, 11 * side)
    assert side >= 5
    read = (picture[:, side // 2 :: side, side // 2 :: side] - 0.5) * 2 * weights.abs().max()
    assert torch.allclose(read, weights, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 5, 16])
def test_opposite_filters_have_opposite_colours(channels: int, generator: torch.Generator) -> None:
    """In a mosaic red and blue change places, so that what is red in one filter is blue in its opposite."""
    weights = torch.randn(channels, 3, 5, generator=generator)
    one, other = (filter_picture(sign * weights, rgb=False) for sign in (1, -1))
    redness = one[0] - one[2]
    assert float(redness.abs().max()) > 0.2
    # The colour map's two arms are mirror images only nearly.
    assert float(numpy.corrcoef(redness.flatten(), (other[0] - other[2]).flatten())[0, 1]) < -0.95


def test_the_strongest_channels(generator: torch.Generator) -> None:
    filters = 0.01 * torch.randn(2, 40, 3, 3, generator=generator)
    planted = torch.randperm(40, generator=generator)[:16]
    filters[:, planted] += 1
    shown, share = strongest_channels(filters)
    assert torch.equal(shown.sum(dim=(1, 2, 3)).round(), torch.full((2,), 16.0 * 9))
    assert 0.99 < share < 1
    assert strongest_channels(filters[:, :16])[1] == 1


@pytest.mark.parametrize("shape", [(96, 3, 11, 11), (2, 1, 3, 3), (70, 192, 3, 3), (12, 40, 1, 1), (5, 4, 1, 7)])
def test_pictures_of_any_kernel_and_channel_count(shape: tuple[int, ...], generator: torch.Generator) -> None:
    """None wider than a page, no filter smaller than can be seen, every pair once."""
    filters = torch.randn(shape, generator=generator)
    chance = random_pairing(shape, 1)
    pairs = Pairs("conv", "relu", filters, *pairing(filters), chance, chance.mean()[None], of_image=shape[1] == 3)
    names = [frozenset(pair[:2]) for pair in pairs.pairs()]
    assert len(names) == len(set(names))
    assert set().union(*names) == set(range(shape[0]))
    picture = pair_grid(pairs, "net")
    assert 640 <= picture.width <= 1300
    assert 60 < picture.height < 2500
    grid = filter_grid(filters[:, :3])
    assert grid.width < 1300
    histograms = cosine_histograms({"net": [("conv", pairs.cosines, chance)] * 9, "other": [("conv", chance, chance)]})
    assert 500 <= histograms.width <= 1300
