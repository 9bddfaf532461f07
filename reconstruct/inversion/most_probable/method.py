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

import math
import time
from collections.abc import Sequence
from typing import TypedDict

import torch

from reconstruct.inversion.known import Exact, known_of
from reconstruct.inversion.most_probable import first_layer, gauss_newton, search
from reconstruct.inversion.most_probable.ensemble import search_often
from reconstruct.inversion.most_probable.step_over import step_over, steps_over
from reconstruct.inversion.most_probable.task import Progress, Reading, tasks_of
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
STEP_OVER_ERROR, LEAST_NOISE, MOST_NOISE = 12.0, 1e-3, 0.5
"""How much larger, as a share, the error of a stepped-over layer's input is than the misfit that is left: its noise,
from the least that counts to the most."""


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
    count = len(known)
    passes, iterations, levels = [0.0] * count, [0] * count, [noise] * count
    with arrays.using(features.device):
        while isinstance(known, Exact) and noise <= STEP_OVER_NOISE and (below := steps_over(net, layer, size)):
            share = 2 * work[layer] / sum(work.values())
            steps = int(STEP_OVER_SHARE * budget / share)
            if steps < 1:
                break
            stepped = step_over(net, layer, size, known.values, tolerance=0.01 * tolerance, iterations=steps)
            known, layer = Exact(stepped.responses), below
            passes = [spent + share * count for spent, count in zip(passes, stepped.iterations, strict=True)]
            iterations = [each + count for each, count in zip(iterations, stepped.iterations, strict=True)]
            levels = [max(level, left_over(each)) for level, each in zip(levels, stepped.misfits, strict=True)]
        # A forward pass of what is left, in forward passes of the layer that was asked for.
        unit = sum(net.multiplications(layer, size).values()) / sum(work.values())
        shown = features.new_zeros(count, net.channels, *size, dtype=torch.float32) + net.mean
        statuses, seconds, prepared = [""] * count, 0.0, 0.0
        for level in sorted(set(levels)) or [noise]:
            # Images of one level go together; whoever else is in the batch changes nothing for them.
            images = [image for image in range(count) if levels[image] == level]
            chosen = torch.tensor(images, dtype=torch.long, device=features.device)
            spent = max((passes[image] for image in images), default=0.0)
            found = invert_known(
                [Reading(net, layer, known[chosen], level)],
                size,
                tolerance=tolerance,
                budget=(budget - spent) / unit,
                watch=None if watch is None else _report(watch, spent, unit, shown, chosen),
            )
            shown[chosen] = found.images
            for place, image in enumerate(images):
                statuses[image] = found.status[place]
                iterations[image] += found.iterations[place]
                passes[image] += unit * found.forward_passes[place]
            seconds += found.prepare_seconds
            prepared += unit * found.prepare_passes
    return Inverted(shown, statuses, iterations, passes, seconds, prepared)


def left_over(misfit: float) -> float:
    """The noise, as a share, of responses that a step over a layer has left a misfit with: a power of two."""
    share = STEP_OVER_ERROR * misfit
    return 0.0 if share < LEAST_NOISE else min(MOST_NOISE, 2.0 ** math.ceil(math.log2(share)))


def _report(watch: Watch, spent: float, unit: float, shown: torch.Tensor, chosen: torch.Tensor) -> Watch:
    """A watcher of some of the images, by the work at the layer that was asked for."""

    def report(done: float, images: torch.Tensor) -> None:
        shown[chosen] = images
        watch(spent + unit * done, shown)

    return report


def invert_joint(
    nets: Sequence[AnyNetwork],
    features: Sequence[torch.Tensor],
    layers: Sequence[str],
    noise: Sequence[float],
    size: Size,
    *,
    tolerance: float | None = None,
    budget: float | None = None,
    watch: Watch | None = None,
) -> Inverted:
    """Images, N x 3 x H x W, from the features of several layers together; no layer is stepped over.

    Parameters
    ----------
    nets, features, layers, noise : of each layer: as of ``invert_map``.
    tolerance : the relative residual over all known responses; with noise as much at least.
    budget : in forward passes through all of the layers, each from the image.
    """
    readings = []
    for net, values, layer, level in zip(nets, features, layers, noise, strict=True):
        known = known_of(values.float(), net.layer(layer), level)
        readings.append(Reading(net, layer, known, level))
    with arrays.using(features[0].device):
        return invert_known(
            readings,
            size,
            tolerance=max(TOLERANCE if tolerance is None else tolerance, *noise),
            budget=BUDGET if budget is None else budget,
            watch=watch,
        )


def invert_known(
    readings: Sequence[Reading],
    size: Size,
    *,
    tolerance: float = TOLERANCE,
    budget: float = BUDGET,
    start: torch.Tensor | None = None,
    watch: Watch | None = None,
) -> Inverted:
    """Images, N x 3 x H x W, from what is known of the linear responses of layers, or of what a pooling gives.

    Arguments as of ``invert_map``, whose last two stages this is; they begin at ``start``, or at the prior's mean. The
    budget is in forward passes through all of the layers, each from the image.
    """
    began = time.perf_counter()
    tasks = tasks_of(readings, size)
    linear = len(tasks) == 1 and tasks[0].linear
    weightings = [] if linear else [search.prepare(task) for task in tasks]
    # Of several layers it is the shallow ones that Gauss-Newton hears.
    shallow = [task for task in tasks if task.shallow and task.operator.step == tasks[0].operator.step]
    normal = gauss_newton.prepare(shallow) if shallow else None
    seconds = time.perf_counter() - began
    work = sum(task.work for task in tasks)
    cost = sum(each.cost * task.work for each, task in zip(weightings, tasks, strict=False)) / work
    if normal is not None:
        cost += normal.cost * sum(task.work for task in shallow) / work

    prior, count = tasks[0].prior, len(tasks[0].known)
    white = prior.mean.new_zeros(count, *prior.shape) if start is None else prior.white(start)
    progress = Progress(prior.image(white), ["budget"] * count, [0] * count, [0.0] * count)
    if count:
        limits: Limits = {"tolerance": tolerance, "budget": budget, "watch": watch}
        if weightings and normal is not None:
            # Gauss-Newton goes on from the last tau: it needs the network's own signs, and finds them there.
            # Of a larger budget only as much as of the default; the rest finds the signs that smoothing has left.
            smooth = BUDGET / max(budget, BUDGET)
            stages = search.plan(weightings, SEARCH * budget, smooth=smooth)
            white = search.search(tasks, weightings, white, progress, stages, tolerance=tolerance, watch=watch)
        elif weightings:
            search_often(tasks, weightings, white, progress, **limits)
        if normal is not None:
            field = prior.field(white)
            if linear and not tasks[0].noise:
                field = first_layer.solve(tasks[0], normal, field, progress, **limits)
            else:
                field = gauss_newton.gauss_newton(shallow, normal, field, progress, **limits)
            # Least squares leaves alone what no window sees; the prior does not.
            seen = [task.net.covered_size(size, task.layer) for task in shallow]
            most = (max(height for height, _ in seen), max(width for _, width in seen))
            if most != size:
                progress.images = prior.mean + prior.crop(prior.fill(field, most))
    return Inverted(progress.images, progress.status, progress.iterations, progress.passes, seconds, cost)
