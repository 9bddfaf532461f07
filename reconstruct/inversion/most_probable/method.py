"""Method ``map``: the most probable image under the natural-image prior, through the whole network, without learning.

    x = argmin |f(x) - z|^2 / sigma^2 + |w|^2,   x = mean + M crop(S w)

f is the true, piecewise-linear network up to the layer's linear responses z (for a pooling: up to its features) and
w white noise (``prior``). In three stages, of which the network's shapes say which apply:

1. *Step over* (``step_over``): a layer with more responses than its input has features is solved for that input, and
   the layer below inverted instead: it holds the same information, and is cheaper and better conditioned.
2. *L-BFGS in w on weighted residuals* through a network that is smoothed at first (``search``), which finds the signs;
   with work to spare several times (``ensemble``).
3. *Gauss-Newton* for layers with at most one rectification or max-pooling below (``gauss_newton``, ``first_layer``): by
   then nearly all signs and switches are right, and the linear problem that is left is solved by conjugate gradients.

Features after ReLU say z where they are positive and z <= 0 where they are 0: the residual there is max(z, 0). Those of
AVR say |z|: the residual is taken to the nearer of +-|z|.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TypedDict

import torch

from reconstruct.inversion.known import Exact, Known, known_of
from reconstruct.inversion.most_probable import first_layer, gauss_newton, search
from reconstruct.inversion.most_probable.ensemble import search_often
from reconstruct.inversion.most_probable.step_over import step_over, steps_over
from reconstruct.inversion.most_probable.task import Progress, task_of
from reconstruct.inversion.result import Inverted, Watch
from reconstruct.network.architecture import Size
from reconstruct.network.protocol import AnyNetwork
from reconstruct.operators import arrays

BUDGET = 450.0
TOLERANCE = 1e-5
SEARCH = 1 / 2
"""Share of the budget for the search where Gauss-Newton takes over."""
STEP_OVER_SHARE = 0.7
STEP_OVER_NOISE = 1e-4
"""Above this noise a layer is not stepped over: exact recovery would amplify the noise."""


class Limits(TypedDict):
    """When a stage stops, and who looks on."""

    tolerance: float
    budget: float
    watch: Watch | None


def invert_map(
    net: AnyNetwork,
    features: torch.Tensor,
    layer: str,
    size: Size,
    *,
    tolerance: float | None = None,
    budget: float | None = None,
    noise: float = 0.0,
    watch: Watch | None = None,
) -> Inverted:
    """Images, N x 3 x H x W, from features of any layer.

    Parameters
    ----------
    features : N x C x h x w, features of ``layer``.
    size : height and width of the images.
    tolerance : relative residual |f(x) - z| / |z| at which an image has converged; default 1e-5. With noise, the
        noise where that is more: what is fitted beyond is noise.
    budget : work in forward passes through the layer, default 450: 150 evaluations. The stages divide it among
        themselves, so a shorter run is not the beginning of a longer one.
    noise : of the features, as a share of their norm: it weighs the prior.
    """
    tolerance = max(TOLERANCE if tolerance is None else tolerance, noise)
    budget = BUDGET if budget is None else budget
    known = known_of(features.float(), net.layer(layer), noise)
    work = net.multiplications(layer, size)
    passes, iterations = [0.0] * len(known), [0] * len(known)
    with arrays.using(features.device):
        while isinstance(known, Exact) and noise <= STEP_OVER_NOISE and (below := steps_over(net, layer, size)):
            share = 2 * work[layer] / sum(work.values())
            steps = int(STEP_OVER_SHARE * budget / share)
            if steps < 1:
                break
            target, counts = step_over(net, layer, size, known.values, tolerance=0.01 * tolerance, iterations=steps)
            known, layer = Exact(target), below
            passes = [spent + share * count for spent, count in zip(passes, counts, strict=True)]
            iterations = [each + count for each, count in zip(iterations, counts, strict=True)]
        # A forward pass of what is left, in forward passes of the layer that was asked for.
        unit = sum(net.multiplications(layer, size).values()) / sum(work.values())
        spent = max(passes, default=0.0)
        report = None
        if watch is not None:

            def report(done: float, images: torch.Tensor) -> None:
                watch(spent + unit * done, images)

        found = invert_known(
            net, known, layer, size, tolerance=tolerance, budget=(budget - spent) / unit, noise=noise, watch=report
        )
    return replace(
        found,
        iterations=[before + after for before, after in zip(iterations, found.iterations, strict=True)],
        forward_passes=[before + unit * after for before, after in zip(passes, found.forward_passes, strict=True)],
        prepare_passes=unit * found.prepare_passes,
    )


def invert_known(
    net: AnyNetwork,
    known: Known,
    layer: str,
    size: Size,
    *,
    tolerance: float = TOLERANCE,
    budget: float = BUDGET,
    noise: float = 0.0,
    start: torch.Tensor | None = None,
    watch: Watch | None = None,
) -> Inverted:
    """Images, N x 3 x H x W, from what is known of a layer's linear responses, or of what a pooling gives.

    Arguments as of ``invert_map``, whose last two stages this is; they begin at ``start``, or at the prior's mean.
    """
    began = time.perf_counter()
    task = task_of(net, layer, size, known, noise)
    weighting = None if task.linear else search.prepare(task)
    normal = gauss_newton.prepare(task) if task.shallow else None
    seconds = time.perf_counter() - began
    cost = sum(prepared.cost for prepared in (weighting, normal) if prepared is not None)

    prior, count = task.prior, len(known)
    white = prior.mean.new_zeros(count, *prior.shape)
    if start is not None:
        white = prior.whiten(prior.fill(prior.extend(start - prior.mean), prior.size))
    progress = Progress(prior.image(white), ["budget"] * count, [0] * count, [0.0] * count)
    if count:
        limits: Limits = {"tolerance": tolerance, "budget": budget, "watch": watch}
        if weighting is not None and normal is not None:
            # Gauss-Newton goes on from the last tau: it needs the network's own signs, and finds them there.
            # Of a larger budget only as much as of the default; the rest finds the signs that smoothing has left.
            smooth = BUDGET / max(budget, BUDGET)
            stages = search.plan(task, weighting, SEARCH * budget, smooth=smooth)
            white = search.search(task, weighting, white, progress, stages, tolerance=tolerance, watch=watch)
        elif weighting is not None:
            white = search_often(task, weighting, white, progress, **limits)
        if normal is not None:
            solve = first_layer.solve if task.linear and not noise else gauss_newton.gauss_newton
            field = solve(task, normal, prior.field(white), progress, **limits)
            # Least squares leaves alone what no window sees; the prior does not.
            if (seen := net.covered_size(size, layer)) != size:
                progress.images = prior.mean + prior.crop(prior.fill(field, seen))
    return Inverted(progress.images, progress.status, progress.iterations, progress.passes, seconds, cost)
