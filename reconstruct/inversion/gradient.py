"""Method ``gradient``: the baseline of Mahendran and Vedaldi, CVPR 2015 (arXiv 1412.0035), tuned.

Minimises, by gradients through the true network and from noise,

    |Phi(x) - Phi0|^2 / |Phi0|^2 + lambda_alpha R_alpha(x) + lambda_tv R_tv(x)

over x = 255 (image - mean), the grey levels of the paper. Phi are the features; the regularisers are ``alpha_norm`` and
``total_variation``, scaled as in the authors' later paper (arXiv 1512.02017).

What differs from the paper gave a higher PSNR (means over four 131 x 131 windows of photographs, 150 evaluations, on
earlier weights of ``crelu_conv1_4``, conv1's condition number 3,000 where it is 5,600 now). Step, moments and the
weight of the total variation were then chosen anew for those that are shipped: with the earlier choice conv2 has 20.4
dB, not 28.9, conv3 17.2, not 23.0, conv6 11.0, not 12.5. ``benchmarks/choose_gradient.py`` varies them.

- *Adam* (Kingma, Ba 2015) in place of descent with momentum: conv2 35.7, conv4 22.5, conv6 17.2 dB. Nesterov's momentum
  of 0.95, whose step is halved for an image whenever its objective rises, gives 35.3 to 35.8, 20.7 to 21.5 and 17.0;
  on two to five whole photographs (227 x 227) Adam is 2 dB better at conv2, neither at conv3, conv4, conv6. The paper's
  momentum of 0.9 with one step for all images stays below 34 dB at conv2, and at conv4 diverges for one image at the
  step that suits the others.
- *The step* stays large and falls to 0 only in the last fifth: 4 dB (conv2) and 3 dB (conv4) better than a cosine.
- *The weight of the total variation* falls tenfold along the way: 0.8 dB at conv2, nothing at conv4.
- *The features themselves*, both phases after CReLU, not the linear responses: 0.5 to 0.9 dB better. After ReLU too,
  where a residual on positive entries with a hinge on zero ones is 1.2 dB worse (conv5).
- *Weak noise* at the start: half a grey level is 0.6 (conv2) to 0.9 dB (conv5) better than 28 grey levels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from reconstruct.inversion.residual import relative
from reconstruct.inversion.result import Inverted
from reconstruct.network.activations import activate, is_invertible, linear_responses
from reconstruct.network.architecture import Size
from reconstruct.network.protocol import AnyNetwork

BUDGET = 450.0
TOLERANCE = 1e-4
EVALUATION = 3
"""Forward passes that one evaluation of objective and gradient costs."""

ALPHA = 6
RANGE = 80.0
"""B of arXiv 1512.02017: a typical absolute grey level, the mean subtracted."""
GRADIENT = 0.01
"""a of arXiv 1512.02017: a typical difference between neighbours, in units of B."""

ALPHA_WEIGHT = 1e-5
# The paper sets three weights by hand, ten times apart, higher for deeper layers: what a layer does not say, the prior
# must. Here the side of the receptive field decides.
TV_WEIGHT = 7.5e-6
"""The weight of the total variation in the middle of a run, where a response sees 11 x 11 pixels."""
TV_GROWTH = 2.0
TV_FALL = 10.0
"""From beginning to end of a run, geometrically."""

NOISE = 0.5
"""Standard deviation of the start, in grey levels."""
STEP = 40.0
"""Adam's step, in grey levels, for the share ``STEADY`` of the evaluations; then linearly to 0."""
STEADY = 0.8
MOMENTS = (0.9, 0.9)
"""Adam's decay of the running gradient and of its square."""


def invert_gradient(
    net: AnyNetwork,
    features: torch.Tensor,
    layer: str,
    size: Size,
    *,
    tolerance: float | None = None,
    budget: float | None = None,
    seed: int = 0,
    watch: Callable[[float, torch.Tensor], None] | None = None,
) -> Inverted:
    """Images, N x 3 x H x W, from features of any layer.

    Parameters
    ----------
    features : N x C x h x w, valid features of ``layer``.
    size : height and width of the images.
    tolerance : an image whose relative residual |f(x) - z| / |z| is at most this has converged and costs nothing
        more; z as in ``Result.feature_residual``: linear responses where the activation keeps them, else features.
        Default 1e-4.
    budget : work in forward passes, default 450. An evaluation (forward and backward) costs 3; below 3 the noise of
        the start comes back. The schedules of step and prior end with the budget, so a shorter run is not the
        beginning of a longer one.
    seed : of the noise at the start, the same for every image of one size.
    watch : called after each evaluation's step with the forward passes so far and the images, N x 3 x H x W in [0, 1]
        (not clipped).

    Returns
    -------
    Inverted. ``stagnated``: an objective or gradient was not finite, and the last image for which both were is given.
    """
    tolerance = TOLERANCE if tolerance is None else tolerance
    steps = int((BUDGET if budget is None else budget) // EVALUATION)
    count, device, last = len(features), net.mean.device, net.layer(layer)
    invertible = is_invertible(last.activation, last.slope)
    noise = torch.randn(net.channels, *size, generator=torch.Generator().manual_seed(seed)).to(device)
    results = (NOISE * noise).repeat(count, 1, 1, 1)
    status, counts = ["budget"] * count, [steps] * count

    live = torch.arange(count, device=device)
    x = safe = results
    target = features.to(net.mean.dtype)
    first, second = torch.zeros_like(x), torch.zeros_like(x)
    weight = tv_weight(net, layer)
    for step in range(steps):
        if not len(live):
            break
        share = step / steps
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            responses = net.responses(x / 255 + net.mean, layer)
            reached = activate(responses, last.activation, last.slope)
            objective = relative(reached, target).square() + ALPHA_WEIGHT * alpha_norm(x)
            objective = objective + weight * TV_FALL ** (0.5 - share) * total_variation(x)
            (slope,) = torch.autograd.grad(objective.sum(), x)
        with torch.no_grad():
            x = x.detach()
            finite = objective.isfinite() & slope.flatten(1).isfinite().all(1)
            if invertible:
                wanted = linear_responses(target, last.activation, last.slope)
                converged = finite & (relative(responses, wanted) <= tolerance)
            else:
                converged = finite & (relative(reached, target) <= tolerance)
            done = converged | ~finite
            if done.any():
                for index in done.nonzero().flatten().tolist():
                    image = int(live[index])
                    status[image] = "converged" if converged[index] else "stagnated"
                    counts[image] = step + 1
                    results[image] = (x if converged[index] else safe)[index]
                live, x, target, slope, first, second = (
                    each[~done] for each in (live, x, target, slope, first, second)
                )
            safe = x
            x, first, second = _adam(x, slope, first, second, step, STEP * min(1.0, (1 - share) / (1 - STEADY)))
            if watch is not None:
                watch(float(EVALUATION * (step + 1)), results.index_copy(0, live, x) / 255 + net.mean)
    results = results.index_copy(0, live, x.detach())
    images = (results / 255 + net.mean).float()
    return Inverted(images, status, counts, [float(EVALUATION * each) for each in counts], 0.0, 0.0)


def alpha_norm(x: torch.Tensor) -> torch.Tensor:
    """For each image the sum of (x / B)^6 over pixels and channels by the number of pixels; x in grey levels."""
    return (x / RANGE).pow(ALPHA).flatten(1).sum(1) / (x.shape[2] * x.shape[3])


def total_variation(x: torch.Tensor) -> torch.Tensor:
    """For each image the sum of squared differences of neighbours (beta = 2) by (a B)^2 and the number of pixels."""
    across, down = x.diff(dim=3), x.diff(dim=2)
    squares = across.square().flatten(1).sum(1) + down.square().flatten(1).sum(1)
    return squares / (x.shape[2] * x.shape[3] * (GRADIENT * RANGE) ** 2)


def tv_weight(net: AnyNetwork, layer: str) -> float:
    """Weight of the total variation in the middle of a run, from the side of the layer's receptive field in pixels."""
    field = net.receptive_field(layer)
    assert field is not None  # as ``not_differentiable`` has found
    return TV_WEIGHT * (field / 11) ** TV_GROWTH


def _adam(
    x: torch.Tensor, slope: torch.Tensor, first: torch.Tensor, second: torch.Tensor, step: int, rate: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One update, step counted from 0: the new x and the two running moments."""
    slow, slower = MOMENTS
    first = slow * first + (1 - slow) * slope
    second = slower * second + (1 - slower) * slope.square()
    mean, variance = first / (1 - slow ** (step + 1)), second / (1 - slower ** (step + 1))
    # The smallest number only keeps 0 / 0 apart: a pixel that nothing depends on stays where it is.
    return x - rate * mean / (variance.sqrt() + 1e-16), first, second
