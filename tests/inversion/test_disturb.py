import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reconstruct.errors import CallError
from reconstruct.inversion.disturb import disturb
from tests.builders.networks import randn

shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))


def shares(disturbed: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    return (disturbed - features).flatten(1).norm(dim=1) / features.flatten(1).norm(dim=1)


def test_nothing_is_changed_unless_asked_for() -> None:
    features = randn(2, 3, 4, 4)
    disturbed, share = disturb(features)
    assert torch.equal(disturbed, features)
    assert share == 0


@pytest.mark.parametrize("noise", [0.01, 0.1, 0.5])
def test_noise_has_its_share_of_the_norm(noise: float) -> None:
    """The norm of n normal numbers is sqrt(n) up to a deviation of 1 / sqrt(2 n) of it; whatever the image's scale."""
    features = randn(3, 10, 30, 30) * torch.tensor([1e-4, 1.0, 1e4]).view(3, 1, 1, 1)
    disturbed, share = disturb(features, noise=noise)
    found = shares(disturbed, features)
    assert ((found / noise - 1).abs() <= 5 / math.sqrt(2 * 9000)).all()
    assert share == pytest.approx(float(found.mean()), rel=1e-5)
    rounded, combined = disturb(features, noise=noise, quantise="int8")
    assert combined == pytest.approx(float(shares(rounded, features).mean()), rel=1e-5)


def test_noise_is_seeded_and_an_images_own() -> None:
    features = randn(4, 3, 5, 6)
    together, _ = disturb(features, noise=0.2, seed=3)
    assert torch.equal(together, disturb(features, noise=0.2, seed=3)[0])
    assert not torch.equal(together, disturb(features, noise=0.2, seed=4)[0])
    torch.manual_seed(1)
    for i in range(4):
        torch.testing.assert_close(together[i : i + 1], disturb(features[i : i + 1], noise=0.2, seed=3)[0])


@given(shapes, st.sampled_from([1e-3, 1.0, 100.0]), st.integers(0, 99))
def test_float16_is_within_half_a_unit(shape: tuple[int, ...], scale: float, seed: int) -> None:
    """11 significant bits: half a unit is 2^-11 of a number, or half the smallest subnormal."""
    features = scale * randn(*shape, seed=seed)
    disturbed, _ = disturb(features, quantise="float16")
    assert disturbed.dtype == features.dtype
    assert ((disturbed - features).abs() <= features.abs() * 2**-11 + 2**-25).all()
    assert torch.equal(disturb(disturbed, quantise="float16")[0], disturbed)


@given(shapes, st.sampled_from([1e-3, 1.0, 1e4]), st.sampled_from([torch.float32, torch.float64]), st.integers(0, 99))
def test_int8_is_within_half_a_step(shape: tuple[int, ...], scale: float, dtype: torch.dtype, seed: int) -> None:
    """Half of 255 steps from an image's smallest feature to its largest, and rounding of the numbers themselves."""
    features = (scale * randn(*shape, seed=seed)).to(dtype)
    disturbed, share = disturb(features, quantise="int8")
    flat = features.flatten(1)
    step = (flat.amax(1) - flat.amin(1)) / 255
    rounding = 8 * torch.finfo(dtype).eps * flat.abs().amax(1)
    assert ((disturbed - features).flatten(1).abs().amax(1) <= step / 2 + rounding).all()
    for image in disturbed:
        assert len(image.unique()) <= 256
    assert disturbed.isfinite().all()
    assert math.isfinite(share)


def test_int8_keeps_the_ends_and_constants() -> None:
    features = torch.stack((torch.zeros(3, 4, 4), torch.full((3, 4, 4), -2.5), randn(3, 4, 4)))
    disturbed, share = disturb(features, quantise="int8")
    assert torch.equal(disturbed[:2], features[:2])
    torch.testing.assert_close(disturbed[2].amin(), features[2].amin())
    torch.testing.assert_close(disturbed[2].amax(), features[2].amax())
    assert 0 < share < 1 / 255
    # 256 levels are used where there is something on all of them.
    assert len(disturb(torch.linspace(0, 1, 5000).view(1, 1, 50, 100), quantise="int8")[0].unique()) == 256


def test_int8_is_the_images_own() -> None:
    features = randn(3, 2, 5, 5) * torch.tensor([1.0, 100.0, 1e-2]).view(3, 1, 1, 1)
    together, _ = disturb(features, quantise="int8")
    for i in range(3):
        assert torch.equal(together[i : i + 1], disturb(features[i : i + 1], quantise="int8")[0])


@pytest.mark.parametrize("quantise", ["int4", "", "float32", "Int8"])
def test_unknown_roundings_are_refused(quantise: str) -> None:
    with pytest.raises(CallError, match="float16 or int8"):
        disturb(randn(1, 2, 3, 3), quantise=quantise)


@pytest.mark.parametrize("quantise", [None, "float16", "int8"])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_no_images_and_zero_features(noise: float, quantise: str | None) -> None:
    disturbed, _ = disturb(torch.zeros(0, 2, 3, 3), noise=noise, quantise=quantise)
    assert disturbed.shape == (0, 2, 3, 3)
    disturbed, share = disturb(torch.zeros(2, 2, 3, 3), noise=noise, quantise=quantise)
    assert (disturbed == 0).all()
    assert share == 0
