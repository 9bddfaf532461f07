"""A layer with more responses than its input has features, solved exactly: back to the responses of the layer below.

The features h of the layer below solve A h = z - b and are CReLU features: h >= 0, and of the two phases of a response
one is 0. Least squares on all of them by conjugate gradients soon tells most signs; from then on a phase whose pair
is clearly decided is held at 0, which more than halves the unknowns and improves their condition at every round.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from reconstruct.network.architecture import Size
from reconstruct.network.protocol import AnyNetwork
from reconstruct.operators import arrays
from reconstruct.operators.convolution import Convolution, convolution_of, upper_bound
from reconstruct.solvers.conjugate_gradients import conjugate_gradients

FIRST, ROUND = 30, 10
"""Iterations with all features free, and between two looks at the signs."""
DECIDED = 4.0
"""A pair is decided where its phases differ by more than this many times the rms of those that ought to be 0."""
SHIFT = 0.07
"""The preconditioner's shift with all features free, in units of the layer's upper frame bound."""
FREE = 0.7
"""In the rounds' preconditioner each feature counts as free with this probability: for a random choice of columns
E[D A^T A D] = p^2 A^T A + p (1 - p) diag(A^T A)."""


def steps_over(net: AnyNetwork, layer: str, size: Size) -> str | None:
    """The layer below where a layer's linear responses determine its own, read off the shapes; None elsewhere.

    The layer below is CReLU's, and there are at least as many responses as features that they come from. Neither is a
    pooling: what it gives are no CReLU features, and from a pooling there is nothing to gain.
    """
    chain = net.as_chain(layer)
    if chain is None or len(chain.up_to(layer)) == 1:
        return None
    *_, below, last = chain.up_to(layer)
    if below.activation != "crelu" or not last.has_weights:
        return None
    grids = chain.shapes(size)
    rows, unknowns = last.filters * math.prod(grids[layer]), below.channels * math.prod(grids[below.name])
    return below.name if rows >= unknowns else None


class SteppedOver(NamedTuple):
    """Linear responses of the layer below, N x K x h x w; of each image the misfit |A h - (z - b)| / |z - b| that they
    leave, h the features of ``responses``, and the iterations (operator and adjoint)."""

    responses: torch.Tensor
    misfits: list[float]
    iterations: list[int]


def step_over(
    net: AnyNetwork, layer: str, size: Size, responses: torch.Tensor, *, tolerance: float, iterations: int
) -> SteppedOver:
    """Linear responses of the layer below, N x K' x h' x w', and what they cost.

    Parameters
    ----------
    responses : linear responses of ``layer``, N x K x h x w.
    tolerance : an image whose |A h - (z - b)| / |z - b| is at most this is done.
    iterations : at most.
    """
    chain = net.as_chain(layer)
    assert chain is not None  # as ``steps_over`` has found
    below, convolution = chain.up_to(layer)[-2], chain.convolution(layer)
    area = chain.shapes(size)[below.name]
    operator = convolution_of(chain.layer(layer), convolution.weight, area, torch.float32)
    gram = operator.gram("inputs", single=True)
    upper = upper_bound(gram)
    spread = float(operator.column_energy.mean())
    at_first = operator.torus_inverse("inputs", gram, SHIFT * upper)
    in_rounds = operator.torus_inverse("inputs", FREE**2 * gram, FREE * (1 - FREE) * spread)

    wanted = responses.float()
    if convolution.bias is not None:
        wanted = wanted - convolution.bias.detach().view(1, -1, 1, 1)
    scale = wanted.flatten(1).norm(dim=1).clamp_min(1e-30)
    target, norm = wanted, scale
    results = wanted.new_zeros(len(wanted), below.filters, *area)
    counts = [0] * len(wanted)
    live = torch.arange(len(wanted), device=wanted.device)
    h = wanted.new_zeros(len(wanted), below.channels, *area)
    free = torch.ones_like(h)
    used = 0
    while len(live):
        steps = min(ROUND if used else FIRST, iterations - used)
        h = h + _correction(operator, wanted - operator.convolve(h), free, in_rounds if used else at_first, steps)
        used += steps
        positive, negative = h.chunk(2, dim=1)
        difference = positive - negative
        first, second = free.chunk(2, dim=1)
        both = first * second
        # What the smaller phase is not 0 by, over the pairs that could still be either.
        lesser = torch.minimum(positive, negative) * both
        error = (lesser.square().flatten(1).sum(1) / both.flatten(1).sum(1).clamp_min(1)).sqrt().view(-1, 1, 1, 1)
        misfit = (wanted - operator.convolve(h)).flatten(1).norm(dim=1)
        results[live] = difference
        done = (misfit <= tolerance * scale) | torch.tensor(used >= iterations, device=misfit.device)
        for image in live[done].tolist():
            counts[image] = used
        keep = ~done
        live, wanted, scale, difference, error, positive, negative = (
            each[keep] for each in (live, wanted, scale, difference, error, positive, negative)
        )
        first, second = (difference > -DECIDED * error).float(), (difference < DECIDED * error).float()
        free = torch.cat((first, second), dim=1)
        decided = first * second == 0
        h = free * torch.cat(
            (torch.where(decided, difference, positive), torch.where(decided, -difference, negative)), dim=1
        )
    features = torch.cat((results.clamp_min(0), (-results).clamp_min(0)), dim=1)
    misfit = (target - operator.convolve(features)).flatten(1).norm(dim=1) / norm
    return SteppedOver(results, misfit.tolist(), counts)


def _correction(
    operator: Convolution,
    residual: torch.Tensor,
    free: torch.Tensor,
    inverse: Callable[[arrays.Array], arrays.Array],
    steps: int,
) -> torch.Tensor:
    """Conjugate gradients on the free features: what to add to them."""

    def normal(values: torch.Tensor) -> torch.Tensor:
        return free * operator.transpose(operator.convolve(free * values))

    def precondition(values: torch.Tensor) -> torch.Tensor:
        return free * arrays.to_torch(inverse(arrays.array_of(free * values)))

    return conjugate_gradients(normal, free * operator.transpose(residual), precondition, steps)
