"""Nonlinear minimisation of a batch of independent functions: L-BFGS (Liu, Nocedal 1989) in torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

ARMIJO = 1e-4
SHORTEST = 1e-6
"""Step, in units of the first that was tried along a direction, below which an image has stagnated."""

Evaluate = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
"""Values, gradients and whether to stop, of some images: ``evaluate(points, images)``, ``images`` their indices."""


@dataclass(frozen=True)
class Minimum:
    """Points of a batch, N x ..., one status (``converged``, ``budget``, ``stagnated``) and one count an image."""

    point: torch.Tensor
    status: list[str]
    evaluations: list[int]


def lbfgs(  # noqa: PLR0915 - one loop, whose parts share nearly all of its state
    evaluate: Evaluate, start: torch.Tensor, *, evaluations: int, memory: int = 25, first: float = 0.1
) -> Minimum:
    """Minimise the functions of a batch of points, each with its own step lengths, history and end.

    Parameters
    ----------
    evaluate : gives, for points M x ... of the images with these indices, values (M), gradients (M x ...) and a
        mask of those that need go no further (M). Not finite values are backed away from.
    start : N x ...
    evaluations : of each image's function, at most.
    memory : pairs of steps and gradient changes that are kept.
    first : length of the first step, in units of the largest coordinate.

    An image that is done leaves the batch and costs nothing more.
    """
    count = len(start)
    points = start.clone()
    status, counts = ["budget"] * count, [0] * count
    if not count or evaluations < 1:
        return Minimum(points, status, counts)
    live = torch.arange(count, device=start.device)
    x = start.flatten(1)
    shape = start.shape[1:]

    def at(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        value, slope, stop = evaluate(values.unflatten(1, shape), live)
        return value, slope.flatten(1), stop

    f, g, stop = at(x)
    used = 1
    # A step that an image rejected leaves 0 in its place, which changes nothing.
    steps: list[torch.Tensor] = []
    changes: list[torch.Tensor] = []
    curvature: list[torch.Tensor] = []
    direction, length = -g, first / g.abs().amax(1).clamp_min(1e-30)
    tried = length
    stuck = ~(f.isfinite() & g.isfinite().all(1))
    while True:
        over = stop | stuck
        if over.any():
            for index in over.nonzero().flatten().tolist():
                image = int(live[index])
                status[image] = "converged" if stop[index] else "stagnated"
                counts[image] = used
            points[live[over]] = x[over].unflatten(1, shape)
            keep = ~over
            live, x, f, g, direction, length, tried = (each[keep] for each in (live, x, f, g, direction, length, tried))
            steps, changes, curvature = ([each[keep] for each in held] for held in (steps, changes, curvature))
        if not len(live) or used >= evaluations:
            break
        slope = (g * direction).sum(1)
        trial = x + length[:, None] * direction
        value, gradient, stop = at(trial)
        used += 1
        finite = value.isfinite() & gradient.isfinite().all(1)
        good = finite & (value <= f + ARMIJO * length * slope)
        stop = stop & good
        change = torch.where(good[:, None], gradient - g, 0)
        step = torch.where(good[:, None], trial - x, 0)
        product = (step * change).sum(1)
        kept = product > 1e-12 * change.square().sum(1)
        steps.append(step)
        changes.append(change)
        curvature.append(torch.where(kept, 1 / torch.where(kept, product, 1), 0))
        if len(steps) > memory:
            del steps[0], changes[0], curvature[0]
        # Where the step was refused: the minimum of the parabola through what is known.
        rise = torch.where(finite, value - f - slope * length, torch.inf)
        parabola = -slope * length**2 / (2 * rise.clamp_min(1e-30))
        shorter = torch.clamp(torch.minimum(parabola, 0.5 * length), min=0.1 * length)
        stuck = ~good & (shorter < SHORTEST * torch.where(slope == 0, torch.inf, tried))
        x, f, g = (
            torch.where(good.view(-1, *[1] * (new.ndim - 1)), new, old)
            for new, old in ((trial, x), (value, f), (gradient, g))
        )
        new = _direction(g, steps, changes, curvature)
        uphill = (new * g).sum(1) >= 0
        new = torch.where(uphill[:, None], -g, new)
        direction = torch.where(good[:, None], new, direction)
        fresh = torch.where(uphill, first / g.abs().amax(1).clamp_min(1e-30), 1.0)
        length = torch.where(good, fresh, shorter)
        tried = torch.where(good, fresh, tried)
    for index, image in enumerate(live.tolist()):
        points[image] = x[index].unflatten(0, shape)
        counts[image] = used
    return Minimum(points, status, counts)


def _direction(
    gradient: torch.Tensor, steps: list[torch.Tensor], changes: list[torch.Tensor], curvature: list[torch.Tensor]
) -> torch.Tensor:
    """Minus the inverse Hessian's estimate times the gradient: the two loops."""
    value = gradient.clone()
    weights = []
    for step, change, rho in zip(reversed(steps), reversed(changes), reversed(curvature), strict=True):
        weight = rho * (step * value).sum(1)
        value -= weight[:, None] * change
        weights.append(weight)
    # The newest pair that each image kept gives the scale.
    scale = torch.ones_like(curvature[0])
    for change, rho in zip(changes, curvature, strict=True):
        scale = torch.where(rho > 0, 1 / (rho * change.square().sum(1)).clamp_min(1e-30), scale)
    value *= scale[:, None]
    for step, change, rho, weight in zip(steps, changes, curvature, reversed(weights), strict=True):
        value += (weight - rho * (change * value).sum(1))[:, None] * step
    return -value
