"""Method ``wiener``: one linear solve through all layers, the best linear estimate of the image.

Every activation below the layer is replaced by the affine map that fits it best under the natural-image prior
(``estimates.mean_field``; for CReLU the slope 1/2 on each phase and the constant E|z|/2, its DC term), so
z = A x + c + e. With P the prior's covariance and N that of e, what the affine map misses, the linear estimate of least
expected error is

    x = mean + P A^T (A P A^T + N)^-1 (z - A mean - c).

The solve is by conjugate gradients with the inverse of the responses' own covariance, which the sum in brackets is, as
preconditioner.
"""

from __future__ import annotations

import time

import torch

from reconstruct.inversion.result import Inverted
from reconstruct.network.activations import linear_responses
from reconstruct.network.architecture import Size
from reconstruct.network.network import Network
from reconstruct.operators import arrays
from reconstruct.operators.layer_stack import LayerStack, Linearised
from reconstruct.operators.torus import inverse
from reconstruct.prior.estimates import mean_field
from reconstruct.prior.gaussian import Prior
from reconstruct.prior.lags import spectrum, variance
from reconstruct.solvers.conjugate_gradients import conjugate_gradients

ITERATIONS = 80
TOLERANCE = 0.01
FLOOR = 0.1
"""Added to N, in units of its own mean diagonal: what lags, windows and borders leave uncertain."""
SETTING_UP = 4
"""Forward passes beside the iterations: the right side, the residual, the image."""
BUDGET = 2.0 * ITERATIONS + SETTING_UP
ROUNDING = 1e-5
"""The same in units of the responses' mean variance, for a first layer, which has no N."""


def invert_wiener(
    net: Network,
    features: torch.Tensor,
    layer: str,
    size: Size,
    *,
    tolerance: float | None = None,
    budget: float | None = None,
    noise: float = 0.0,
) -> Inverted:
    """Images, N x 3 x H x W, from features of a layer with CReLU at and below it.

    Parameters
    ----------
    features : N x C x h x w, features of ``layer``.
    size : height and width of the images.
    tolerance : relative residual of the linear system at which an image has ``converged``; default 0.01, far below
        what the linear model misses.
    budget : in forward passes: 4, and 2 an iteration, of which there is at least one; default 80 iterations.
    noise : of the features, as a share of their norm: added to N.
    """
    tolerance = TOLERANCE if tolerance is None else tolerance
    iterations = ITERATIONS if budget is None else max(1, int((budget - SETTING_UP) // 2))
    last = net.layer(layer)
    target = linear_responses(features.float(), last.activation, last.slope)
    count = len(target)
    with arrays.using(features.device):
        began = time.perf_counter()
        stack = LayerStack(net, layer, size)
        prior = Prior(size, net.channels, device=target.device)
        field, cost = mean_field(net, layer)
        at = Linearised(target, field.slopes)
        missed, typical = variance(field.error), variance(field.total)
        floor = FLOOR * missed + (ROUNDING + noise**2) * typical
        precondition = inverse(spectrum(field.total, stack.grid), floor)
        # As a convolution: lag d of the covariance takes the response at p + d to p.
        kernel = field.error.permute(2, 3, 0, 1).flip(2, 3).contiguous()
        reach = len(field.error) // 2
        seconds = time.perf_counter() - began

        def system(values: torch.Tensor) -> torch.Tensor:
            pulled = prior.field(prior.field_adjoint(prior.extend(stack.transposed(at, values))))
            error = torch.nn.functional.conv2d(values, kernel, padding=reach)
            return stack.product(at, prior.crop(pulled)) + error + floor * values

        middle = prior.mean.expand(1, -1, *size)
        right = target - stack.affine(middle, field.slopes, field.offsets)
        if not count:
            return Inverted(prior.image(target.new_zeros(0, *prior.shape)), [], [], [], seconds, cost)
        dual = conjugate_gradients(system, right, precondition, iterations)
        left = (right - system(dual)).flatten(1).norm(dim=1) / right.flatten(1).norm(dim=1).clamp_min(1e-30)
        images = prior.mean + prior.crop(prior.field(prior.field_adjoint(prior.extend(stack.transposed(at, dual)))))
    status = ["converged" if value <= tolerance else "budget" for value in left.tolist()]
    return Inverted(images, status, [iterations] * count, [2.0 * iterations + SETTING_UP] * count, seconds, cost)
