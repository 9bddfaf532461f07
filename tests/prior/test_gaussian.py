import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reconstruct.operators.polyphase import polyphase
from reconstruct.operators.torus import inverse
from reconstruct.prior.gaussian import AXES, EXPONENT, MARGIN, MEAN, SPREAD, VARIANCE, Prior
from tests.builders.networks import randn

EPS = torch.finfo(torch.float32).eps

priors = st.builds(
    Prior,
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.sampled_from([1, 2, 3]),
    step=st.sampled_from([1, 2, 3, 4]),
)


def rounding(prior: Prior) -> float:
    """The rounding of two Fourier transforms in float32, relative to norms: some eps at each of log2 n stages."""
    return 4 * EPS * math.log2(prior.shape[1] * prior.shape[2] + 2)


def norms(prior: Prior) -> tuple[float, float]:
    """Of ``field`` and of ``whiten``, as operators."""
    colours = torch.linalg.svdvals(prior.colour)
    return float(prior.amplitude.max() * colours.max()), 1 / float(prior.amplitude.min() * colours.min())


def inner(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first.double() * second.double()).sum())


@given(priors, st.integers(0, 99))
def test_adjoint_pairs(prior: Prior, seed: int) -> None:
    x, y = randn(2, *prior.shape, seed=seed), randn(2, *prior.shape, seed=seed + 100)
    pairs = ((prior.field, prior.field_adjoint), (prior.whiten, prior.whiten_adjoint))
    for (forth, back), norm in zip(pairs, norms(prior), strict=True):
        bound = 2 * rounding(prior) * norm * float(x.norm() * y.norm())
        assert abs(inner(forth(x), y) - inner(x, back(y))) <= bound
    image = randn(2, prior.shape[0], *prior.size, seed=seed)
    assert prior.crop(x).shape == image.shape
    assert inner(prior.crop(x), image) == pytest.approx(inner(x, prior.extend(image)), rel=1e-12)  # the same products
    assert (prior.crop(prior.extend(image)) == image).all()


@given(priors, st.integers(0, 99))
def test_whiten_inverts_field(prior: Prior, seed: int) -> None:
    white = randn(1, *prior.shape, seed=seed)
    # Backward error of either map times the condition number, the product of the norms.
    bound = 2 * rounding(prior) * math.prod(norms(prior)) * float(white.norm())
    assert float((prior.whiten(prior.field(white)) - white).norm()) <= bound
    assert float((prior.field(prior.whiten(white)) - white).norm()) <= bound


@given(priors)
def test_the_torus_holds_the_image_and_its_margin(prior: Prior) -> None:
    assert all(torus >= side + MARGIN for torus, side in zip(prior.shape[1:], prior.size, strict=True))
    middle = prior.image(torch.zeros(1, *prior.shape))
    assert middle.shape == (1, prior.shape[0], *prior.size)
    assert (middle == prior.mean).all()


@pytest.mark.parametrize("step", [1, 2, 4])
@pytest.mark.parametrize("size", [(20, 27), (9, 5)])
def test_precision_is_the_inverse_covariance(step: int, size: tuple[int, int]) -> None:
    """As an operator it is W^T W, W the inverse of ``field``."""
    prior = Prior(size, step=step)
    assert not any(side % step for side in prior.shape[1:])
    x = randn(2, *prior.shape)
    parts = polyphase(x, step)
    matrices = prior.precision(step)
    waves = matrices @ torch.fft.rfft2(parts).permute(2, 3, 1, 0)
    found = torch.fft.irfft2(waves.permute(3, 2, 0, 1), s=parts.shape[2:])
    expected = polyphase(prior.whiten_adjoint(prior.whiten(x)), step)
    _, norm = norms(prior)
    # The matrices' own entries, rounded to float32, add n eps.
    bound = (2 * rounding(prior) + matrices.shape[-1] * EPS) * norm**2 * float(x.norm())
    assert float((found - expected).norm()) <= bound
    torch.testing.assert_close(matrices.mH, matrices, rtol=0, atol=EPS * float(matrices.abs().max()))


@pytest.mark.parametrize("step", [1, 3])
def test_inverting_the_precision_gives_the_covariance(step: int) -> None:
    prior = Prior((17, 22), 1, step=step)
    x = randn(2, *prior.shape)
    found = inverse(prior.precision(step), 0.0)(polyphase(x, step))
    expected = polyphase(prior.field(prior.field_adjoint(x)), step)
    norm, condition = norms(prior)[0], math.prod(norms(prior)) ** 2
    # Inverting multiplies the rounding by the condition number, here 10^3.
    assert float((found - expected).norm()) <= 2 * rounding(prior) * condition * norm**2 * float(x.norm())
    # White noise has its power spread over all frequencies: most of it is far from the worst case.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))


def shares(prior: Prior) -> torch.Tensor:
    """Of each frequency of the whole torus in a pixel's variance."""
    power = prior.amplitude.double().square()
    width = prior.shape[2]
    weights = torch.tensor([1.0 if w in (0, width / 2) else 2.0 for w in range(width // 2 + 1)])
    half = power * weights
    return torch.cat((half.flatten() / weights.expand_as(half).flatten(), power[:, 1 : (width + 1) // 2].flatten()))


def test_pixels_have_the_mean_variance_and_the_colours() -> None:
    """The estimate of a covariance from n independent samples has variance (C_ii C_jj + C_ij^2) / n; the pixels of a
    torus count as (sum of S)^2 / sum of S^2 of them, S the power spectrum."""
    prior = Prior((227, 227))
    assert prior.shape == (3, 240, 240)
    count = 12
    values = prior.field(prior.draw(count, torch.Generator().manual_seed(1))).double()
    found = torch.einsum("nihw,njhw->ij", values, values) / (count * 240**2)
    axes, spread = torch.tensor(AXES).double(), torch.tensor(SPREAD).double()
    expected = axes @ torch.diag(spread) @ axes.T * (3 * VARIANCE / spread.sum())
    assert float(expected.trace()) / 3 == pytest.approx(VARIANCE, rel=1e-3)  # published axes: four digits
    power = shares(prior)
    assert len(power) == 240**2
    assert float(power.mean()) == pytest.approx(1, rel=1e-5)
    samples = count * float(power.sum() ** 2 / power.square().sum())
    diagonal = expected.diagonal()
    deviation = ((diagonal[:, None] * diagonal[None, :] + expected.square()) / samples).sqrt()
    assert ((found - expected).abs() <= 5 * deviation).all(), (found, expected, deviation)
    assert float((5 * deviation / expected.abs()).max()) < 0.6  # five deviations say something
    torch.testing.assert_close(prior.mean.flatten(), torch.tensor(MEAN))


@pytest.mark.parametrize("shape", [(240, 240), (96, 60), (45, 63)])
def test_draws_have_the_power_law(shape: tuple[int, int]) -> None:
    """In rings of frequencies; one density of power whatever the size of the torus."""
    prior = Prior(shape, 1, torus=True)
    assert prior.shape == (1, *shape)
    count = 8
    field = prior.field(prior.draw(count, torch.Generator().manual_seed(2))).double()
    power = torch.fft.fft2(field).abs().square().mean(dim=(0, 1)) / math.prod(shape)
    frequency = (torch.fft.fftfreq(shape[0])[:, None] ** 2 + torch.fft.fftfreq(shape[1])[None] ** 2).sqrt().double()
    constant = VARIANCE / float((1 / reference().pow(2 * EXPONENT)).mean())
    for low in (1 / 60, 1 / 30, 1 / 15, 1 / 8, 1 / 4):
        ring = (frequency >= low) & (frequency < 2 * low)
        level = (power[ring] * frequency[ring] ** 1.5).mean() / constant
        # |w|^2 has relative variance at most 2, and half of the frequencies are the others' conjugates.
        assert abs(float(level) - 1) <= 5 * math.sqrt(2 * 2 / (count * int(ring.sum()))), (low, level)


def reference() -> torch.Tensor:
    """Frequencies of the torus of 240, the lowest of them at 0 as well."""
    f = torch.fft.fftfreq(240).double()
    return (f[:, None] ** 2 + f[None] ** 2).sqrt().clamp_min(1 / 240)


def test_other_numbers_of_channels_are_independent() -> None:
    prior = Prior((31, 18), 2)
    torch.testing.assert_close(prior.colour @ prior.colour.T, VARIANCE * torch.eye(2))
    one = Prior((31, 18), 1)
    white = randn(1, *prior.shape)
    torch.testing.assert_close(prior.field(white)[:, 1:], one.field(white[:, 1:]))
    assert one.mean.item() == pytest.approx(sum(MEAN) / 3)


def test_draws_are_seeded() -> None:
    prior = Prior((9, 7))
    first, again, other = (prior.draw(2, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert (first == again).all()
    assert (first != other).any()


def test_no_images() -> None:
    prior = Prior((9, 7))
    assert prior.image(torch.zeros(0, *prior.shape)).shape == (0, 3, 9, 7)
