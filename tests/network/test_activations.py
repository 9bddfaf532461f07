import hypothesis.extra.numpy as arrays
import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reconstruct.errors import CallError, FeatureError
from reconstruct.network.activations import (
    ACTIVATIONS,
    activate,
    check_features,
    derivative,
    is_invertible,
    linear_responses,
    phases,
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
