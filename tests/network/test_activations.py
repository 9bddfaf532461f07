import hypothesis.extra.numpy as arrays
import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from reconstruct.errors import CallError, FeatureError
from reconstruct.network.activations import (
    ACTIVATIONS,
    activate,
    check_features,
    derivative,
    deviations,
    is_invertible,
    linear_responses,
    phases,
    smoothed,
)

FINITE = st.floats(-1e6, 1e6, width=32)
RESPONSES = arrays.arrays(numpy.float32, arrays.array_shapes(min_dims=4, max_dims=4, max_side=5), elements=FINITE)
SLOPES = st.floats(0.015625, 0.984375, width=32)


@given(RESPONSES)
def test_crelu_loses_nothing(values: numpy.ndarray) -> None:
    responses = torch.from_numpy(values)
    features = activate(responses, "crelu")
    positive, negative = features.chunk(2, dim=1)
    assert (features >= 0).all()
    assert (positive * negative == 0).all()
    assert torch.equal(positive + negative, responses.abs())
    check_features(features, "crelu")
    assert torch.equal(linear_responses(features, "crelu"), responses)


@given(RESPONSES, SLOPES, st.sampled_from(["leaky_crelu", "leaky_relu"]))
def test_leaky_activations_lose_nothing(values: numpy.ndarray, slope: float, activation: str) -> None:
    responses = torch.from_numpy(values)
    features = activate(responses, activation, slope)
    check_features(features, activation, slope)
    # A product, a sum and a quotient of float32 numbers: three roundings.
    bound = 3 * torch.finfo(torch.float32).eps * responses.abs() + torch.finfo(torch.float32).tiny / slope
    assert ((linear_responses(features, activation, slope) - responses).abs() <= bound).all()


@given(RESPONSES)
def test_relu_is_half_response_and_half_modulus(values: numpy.ndarray) -> None:
    responses = torch.from_numpy(values)
    assert torch.equal(activate(responses, "relu"), (responses + responses.abs()) / 2)
    assert torch.equal(activate(responses, "avr"), responses.abs())
    assert activate(responses, "none") is responses


@pytest.mark.parametrize("activation", ["relu", "avr"])
def test_what_is_lost_is_refused(activation: str) -> None:
    assert not is_invertible(activation)
    with pytest.raises(CallError, match=f"{activation} keeps only"):
        linear_responses(torch.ones(1, 2, 1, 1), activation)


def test_unknown_activation_names_those_there_are() -> None:
    with pytest.raises(CallError, match="relu, relu6, leaky_relu, crelu"):
        activate(torch.ones(1), "swish")


def test_phases() -> None:
    assert [phases(name) for name in ACTIVATIONS] == [1, 1, 1, 2, 2, 1, 1]


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ((1, 0, 2, 1), -1.0, r"features\[1, 0, 2, 1\] = -1 is negative"),
        ((0, 3, 0, 2), float("nan"), r"features\[0, 3, 0, 2\] = nan is not finite"),
        ((0, 1, 0, 0), float("inf"), r"features\[0, 1, 0, 0\] = inf is not finite"),
        ((1, 2, 1, 1), 0.5, r"features\[1, 0, 1, 1\] = .* other phase, 2 channels on"),
    ],
)
def test_features_that_crelu_cannot_give_are_refused(entry: tuple[int, ...], value: float, message: str) -> None:
    responses = torch.rand(2, 2, 3, 3, generator=torch.Generator().manual_seed(0)) + 0.1
    features = activate(responses, "crelu")
    check_features(features, "crelu")
    features[entry] = value
    with pytest.raises(FeatureError, match=message):
        check_features(features, "crelu")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rounded_features_are_accepted(dtype: torch.dtype, generator: torch.Generator) -> None:
    responses = torch.randn(2, 3, 4, 4, generator=generator)
    for activation, slope in (("crelu", 0.0), ("leaky_crelu", 0.1), ("relu", 0.0), ("avr", 0.0)):
        check_features(activate(responses, activation, slope).to(dtype), activation, slope)


def test_pooled_features_may_have_both_phases_of_a_pair() -> None:
    pair = torch.tensor([[[[1.0]], [[0.5]]]])
    check_features(pair, "crelu", pooled=True)
    with pytest.raises(FeatureError, match="other phase"):
        check_features(pair, "crelu")
    for activation in ("crelu", "relu", "avr"):
        with pytest.raises(FeatureError, match=f"is negative, which pooled {activation} features never are"):
            check_features(-pair, activation, pooled=True)
    for activation in ("leaky_crelu", "leaky_relu", "none"):
        check_features(-pair, activation, 0.1, pooled=True)
        with pytest.raises(FeatureError, match="not finite"):
            check_features(pair / 0, activation, 0.1, pooled=True)


def test_relu_features_below_zero_are_refused() -> None:
    with pytest.raises(FeatureError, match="relu features never are"):
        check_features(torch.tensor([[[[1.0, -0.5]]]]), "relu")


def test_relu6(generator: torch.Generator) -> None:
    """min(max(z, 0), 6), its slope, and features that it cannot have given."""
    z = 5 * torch.randn(2, 3, 8, 8, generator=generator)
    features = activate(z, "relu6")
    assert torch.equal(features, torch.nn.functional.relu6(z))
    inside = (z > 0) & (z < 6)
    assert torch.equal(derivative(z, "relu6"), inside.float())
    check_features(features, "relu6")
    with pytest.raises(FeatureError, match="is above 6"):
        check_features(features + 1, "relu6")
    with pytest.raises(FeatureError, match="negative"):
        check_features(features - 1, "relu6")


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("spread", [0.05, 1.0, 7.0])
def test_smoothed_features_are_means(activation: str, spread: float) -> None:
    """E[f(z + s n)] by adaptive quadrature between the kinks."""
    places = torch.tensor([-20.0, -6.3, -1.0, -0.01, 0.0, 0.4, 3.0, 5.99, 6.2, 19.0], dtype=torch.float64)
    found, _ = smoothed(places.view(1, 1, -1), activation, 0.2, torch.full((1, 1, 1), spread))
    for phase, features in enumerate(found[0]):
        for place, feature in zip(places.tolist(), features.tolist(), strict=True):

            def weighed(noise: float, place: float = place, phase: int = phase) -> float:
                response = torch.full((1, 1, 1), place + spread * noise, dtype=torch.float64)
                return float(activate(response, activation, 0.2)[0, phase]) * stats.norm.pdf(noise)

            kinks = [kink for kink in (-place / spread, (6 - place) / spread) if abs(kink) < 9]
            expected, _ = integrate.quad(weighed, -9, 9, points=kinks or None, epsabs=1e-10)
            assert feature == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_smoothed_slopes_are_derivatives(activation: str, generator: torch.Generator) -> None:
    """Central differences in float64, whose error is size^2 / 6 times a third derivative of 1 / s^2 or so."""
    z = 5 * torch.randn(2, 3, 6, 7, generator=generator, dtype=torch.float64)
    spread = torch.tensor([0.1, 1.0, 6.0], dtype=torch.float64).view(1, 3, 1, 1)
    size = 1e-4
    ahead, behind = (smoothed(z + sign * size, activation, 0.2, spread)[0] for sign in (1, -1))
    _, slopes = smoothed(z, activation, 0.2, spread)
    assert slopes.shape == derivative(z, activation, 0.2).shape
    torch.testing.assert_close(slopes, (ahead - behind) / (2 * size), rtol=0, atol=1e-6)


@given(RESPONSES, st.sampled_from(ACTIVATIONS), st.floats(0.0, 1e6, width=32))
def test_smoothing_moves_features_by_less_than_the_spread(
    values: numpy.ndarray, activation: str, spread: float
) -> None:
    """|E f(z + s n) - f(z)| <= E|s n| = s sqrt(2 / pi) for functions as steep as 1; slopes are within theirs."""
    z = torch.from_numpy(values)
    found, slopes = smoothed(z, activation, 0.2, torch.full((1, z.shape[1], 1, 1), spread))
    exact = activate(z, activation, 0.2)
    eps = torch.finfo(torch.float32).eps
    largest = float(z.abs().max()) + spread
    assert float((found - exact).abs().max()) <= 0.7979 * spread + 8 * eps * largest
    assert float(slopes.abs().max()) <= 1 + 8 * eps


@given(RESPONSES, st.sampled_from(ACTIVATIONS))
def test_without_spread_features_are_what_they_are(values: numpy.ndarray, activation: str) -> None:
    """Spread 0 in every channel, and one so small that no response other than 0 knows of it."""
    z = torch.from_numpy(values)
    exact, slopes = activate(z, activation, 0.25), derivative(z, activation, 0.25)
    found = smoothed(z, activation, 0.25, torch.zeros(1, z.shape[1], 1, 1))
    # Two roundings of the leak, and one of the sum that it is in.
    eps = torch.finfo(torch.float32).eps
    torch.testing.assert_close(found, (exact, slopes), rtol=4 * eps, atol=0)
    clear = torch.where((z.abs() < 1e-3) | ((z - 6).abs() < 1e-3), 1.0, z)
    near = smoothed(clear, activation, 0.25, torch.full((1, z.shape[1], 1, 1), 1e-5))
    wanted = activate(clear, activation, 0.25), derivative(clear, activation, 0.25)
    torch.testing.assert_close(near, wanted, rtol=4 * eps, atol=4 * eps)


def test_channels_without_spread_leave_the_others_alone(generator: torch.Generator) -> None:
    z = torch.randn(2, 3, 4, 5, generator=generator)
    z[:, 1] = 0
    spread = torch.tensor([0.3, 0.0, 2.0]).view(1, 3, 1, 1)
    for activation in ("relu", "relu6", "leaky_relu", "avr", "none"):
        found, alone = smoothed(z, activation, 0.1, spread), smoothed(z[:, ::2], activation, 0.1, spread[:, ::2])
        for each, other, exact in zip(found, alone, (activate(z, activation), derivative(z, activation)), strict=True):
            assert torch.equal(each[:, ::2], other)
            assert torch.equal(each[:, 1], exact[:, 1])


def test_smoothing_of_an_unknown_activation_is_refused() -> None:
    with pytest.raises(CallError, match="unknown activation 'swish'"):
        smoothed(torch.ones(1, 1, 1, 1), "swish", 0.0, torch.ones(1, 1, 1, 1))


def test_deviations(generator: torch.Generator) -> None:
    z = torch.randn(3, 4, 5, 6, generator=generator)
    assert deviations(z).shape == (1, 4, 1, 1)
    assert deviations(z).flatten().numpy() == pytest.approx(z.numpy().std((0, 2, 3)), rel=1e-5)
    assert torch.equal(deviations(z[:1, :, :1, :1]), torch.zeros(1, 4, 1, 1))
