"""Means of activations over Gaussian responses, against sums over a dense grid of the noise in float64."""

import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from reconstruct.network.gaussian_means import (
    LOGISTIC,
    MISH_GATE,
    NORMAL,
    SOFTSIGN,
    TANH_GATE,
    Mean,
    Mixture,
    mean_of,
    mean_of_at_least,
    mean_of_at_most,
    mean_of_between,
    mean_of_elu,
    mean_of_gated,
    mean_of_hard_sigmoid,
    mean_of_hard_swish,
    mean_of_mixture,
    mean_of_prelu,
    mean_of_softplus,
)

Function = Callable[[torch.Tensor], torch.Tensor]

RESPONSES = torch.linspace(-12, 12, 193, dtype=torch.float64).view(1, 1, -1)
STEP = 1 / 512
NOISE = torch.arange(-9, 9 + STEP, STEP, dtype=torch.float64)
WEIGHTS = torch.exp(-NOISE.square() / 2) * STEP / math.sqrt(2 * math.pi)
LEAK = torch.tensor([0.3], dtype=torch.float64)

# A sum over a kink is off by the square of the step, h^2 s / 8 and the density; that of a smooth function is exact. The
# mixtures are as close as their docstrings say, a gate times a response, 12 at most.
KINKED, SMOOTH = 1e-5, 1e-10
MEANS: dict[str, tuple[Function, Mean, float]] = {
    "relu": (torch.relu, mean_of("relu"), KINKED),
    "relu6": (functional.relu6, mean_of("relu6"), KINKED),
    "abs": (torch.abs, mean_of("avr"), KINKED),
    "leaky": (lambda z: functional.leaky_relu(z, 0.2), mean_of("leaky_relu", 0.2), KINKED),
    "prelu": (lambda z: functional.prelu(z, LEAK), mean_of_prelu(LEAK), KINKED),
    "at least": (lambda z: z.clamp(min=0.5), mean_of_at_least(0.5), KINKED),
    "at most": (lambda z: z.clamp(max=-0.3), mean_of_at_most(-0.3), KINKED),
    "between": (lambda z: z.clamp(-0.4, 1.2), mean_of_between(-0.4, 1.2), KINKED),
    "hard sigmoid": (functional.hardsigmoid, mean_of_hard_sigmoid, KINKED),
    "hard swish": (functional.hardswish, mean_of_hard_swish, KINKED),
    "elu": (lambda z: functional.elu(z, 0.7), mean_of_elu(0.7), KINKED),
    "selu": (functional.selu, mean_of_elu(1.6732632423543772, scale=1.0507009873554805), KINKED),
    "celu": (lambda z: functional.celu(z, 0.6), mean_of_elu(0.6, 1 / 0.6), KINKED),
    "gelu": (functional.gelu, mean_of_gated(NORMAL), SMOOTH),
    "gelu, approximate": (lambda z: functional.gelu(z, approximate="tanh"), mean_of_gated(TANH_GATE), 12 * 2.1e-5),
    "silu": (functional.silu, mean_of_gated(LOGISTIC), 12 * 5.5e-6),
    "mish": (functional.mish, mean_of_gated(MISH_GATE), 12 * 5.3e-6),
    "sigmoid": (torch.sigmoid, mean_of_mixture(LOGISTIC), 5.5e-6),
    "tanh": (torch.tanh, mean_of_mixture(LOGISTIC, -1.0, 1.0, 2.0), 2 * 5.5e-6),
    "softplus": (lambda z: functional.softplus(z, 2.0), mean_of_softplus(2.0), 2 * 5.5e-6),
    "softsign": (functional.softsign, mean_of_mixture(SOFTSIGN, -1.0, 1.0), 2 * 4.3e-4),
}


def summed(function: Function, spread: float) -> torch.Tensor:
    """E[f(z + s n)] at ``RESPONSES``."""
    return (function(RESPONSES[..., None] + spread * NOISE) * WEIGHTS).sum(-1)


@pytest.mark.parametrize("spread", [0.03, 0.4, 1.0, 4.0])
@pytest.mark.parametrize("name", MEANS)
def test_is_the_mean(name: str, spread: float) -> None:
    function, mean, tolerance = MEANS[name]
    found, _ = mean(RESPONSES, torch.full((1, 1, 1), spread, dtype=torch.float64))
    torch.testing.assert_close(found, summed(function, spread), rtol=0, atol=tolerance)
    # float32 adds the rounding of numbers up to 12, some of them four times as large on the way.
    single, slopes = mean(RESPONSES.float(), torch.full((1, 1, 1), spread, dtype=torch.float64))
    assert single.dtype == slopes.dtype == torch.float32
    assert float((single - found).abs().max()) < 1e-5


@pytest.mark.parametrize("spread", [0.03, 0.4, 1.0, 4.0])
@pytest.mark.parametrize("name", MEANS)
def test_slopes_are_its_derivative_and_bend_as_autograd_says(name: str, spread: float) -> None:
    """The derivative of a closed form, against autograd through it, once for the mean and once for the slopes."""
    _, mean, _ = MEANS[name]
    leaf = RESPONSES.clone().requires_grad_(True)
    value, slopes = mean(leaf, torch.full((1, 1, 1), spread, dtype=torch.float64))
    (expected,) = torch.autograd.grad(value.sum(), leaf, retain_graph=True)
    torch.testing.assert_close(slopes, expected, rtol=0, atol=1e-12)
    (curved,) = torch.autograd.grad(slopes.sum(), leaf)
    size = 1e-4
    ahead, behind = (mean(RESPONSES + sign * size, torch.full((1, 1, 1), spread))[1] for sign in (1, -1))
    # The next term of the series is size^2 / 6 times a third derivative, of the order 1 / spread^3 at a kink.
    torch.testing.assert_close(curved, (ahead - behind) / (2 * size), rtol=0, atol=size**2 / spread**3 + 1e-7)


@pytest.mark.parametrize("name", MEANS)
def test_without_spread_it_is_the_activation(name: str) -> None:
    """Channels of spread 0 beside others; also their second derivatives are numbers. ELU's spread is 1e-6 at least."""
    function, mean, tolerance = MEANS[name]
    tolerance = 1e-6 if tolerance in (KINKED, SMOOTH) else tolerance
    leaf = RESPONSES.expand(1, 2, -1).clone().requires_grad_(True)
    value, slopes = mean(leaf, torch.tensor([0.0, 1.0], dtype=torch.float64).view(1, 2, 1))
    torch.testing.assert_close(value[:, 0], function(RESPONSES)[:, 0], rtol=0, atol=tolerance)
    (curved,) = torch.autograd.grad(slopes.sum(), leaf)
    assert bool(curved.isfinite().all())
    alone = mean(RESPONSES, torch.ones(1, 1, 1))
    torch.testing.assert_close((value[:, 1:], slopes[:, 1:]), alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mixture", [NORMAL, LOGISTIC, TANH_GATE, MISH_GATE, SOFTSIGN])
def test_mixtures_climb_from_0_to_1(mixture: Mixture) -> None:
    assert sum(mixture.weights) == pytest.approx(1, abs=2e-9)
    ends, _ = mean_of_mixture(mixture)(torch.tensor([[-1e5, 1e5]], dtype=torch.float64), torch.zeros(1, 1))
    assert ends.flatten().tolist() == pytest.approx([0, 1], abs=2e-9)
