"""Nonlinear minimisation of a batch of independent functions: L-BFGS (Liu, Nocedal 1989) in torch.

The functions may change along the way, from stage to stage (a continuation, or homotopy). What is known of the
curvature in one stage is kept for the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

ARMIJO = 1e-4
SHORTEST = 1e-6
"""Step, in units of the first that was tried along a direction, below which an image has stagnated."""

Evaluated = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Evaluate = Callable[[torch.Tensor, torch.Tensor], Evaluated]
"""Values, gradients and whether to stop, of some images: ``evaluate(points, images)``, ``images`` their indices."""


@dataclass(frozen=True)
class Minimum:
    """Points of a batch, N x ..., one status (``converged``, ``budget``, ``stagnated``) and one count an image."""

    point: torch.Tensor
    status: list[str]
    evaluations: list[int]


Stage = tuple[Evaluate, int]
"""Functions, and how often those of each image are evaluated, at most."""


def lbfgs(  # noqa: PLR0915 - one loop, whose parts share nearly all of its state
    stages: Iterable[Stage], start: torch.Tensor, *, memory: int = 25, first: float = 0.1
) -> Minimum:
    """Minimise the functions of a batch of points, each with its own step lengths, history and end.

    Parameters
    ----------
    stages : one after the other, each from where the one before has ended, which is where it evaluates first; taken
        when its turn comes. ``evaluate`` gives, for points M x ... of the images with these indices, values (M),
        gradients (M x ...) and a mask of those that need go no further (M). Not finite values are backed away from.
    start : N x ...
    memory : pairs of steps and gradient changes that are kept.
    first : length of the first step, in units of the largest coordinate.

    An image that is done leaves the batch and costs nothing more; one that no step improves leaves it until the next
    stage, and has stagnated if there is none.
    """
    count = len(start)
    points = start.clone()
    status, counts = ["budget"] * count, [0] * count
    history = _History(memory, [], [], [])
    waiting = torch.arange(count, device=start.device)
    for evaluate, evaluations in stages:
        if not len(waiting) or evaluations < 1:
            continue
        live, x = waiting, points[waiting].flatten(1)

        def at(values: torch.Tensor, images: torch.Tensor, evaluate: Evaluate = evaluate) -> Evaluated:
            value, slope, stop = evaluate(values.unflatten(1, start.shape[1:]), images)
            return value, slope.flatten(1), stop

        f, g, stop = at(x, live)
        used = 1
        direction, length = history.step(g, first)
        tried = length
        stuck = ~(f.isfinite() & g.isfinite().all(1))
        while True:
            over = stop | stuck
            if over.any():
                for index in over.nonzero().flatten().tolist():
                    image = int(live[index])
                    status[image] = "converged" if stop[index] else "stagnated"
                    counts[image] += used
                points[live[over]] = x[over].unflatten(1, start.shape[1:])
                keep = ~over
                live, x, f, g, direction, length, tried = (
                    each[keep] for each in (live, x, f, g, direction, length, tried)
                )
                history = history.of(keep)
            if not len(live) or used >= evaluations:
                break
            slope = (g * direction).sum(1)
            trial = x + length[:, None] * direction
            value, gradient, stop = at(trial, live)
            used += 1
            finite = value.isfinite() & gradient.isfinite().all(1)
            good = finite & (value <= f + ARMIJO * length * slope)
            stop = stop & good
            # A step that an image rejected leaves 0 in its place, which changes nothing.
            history.add(torch.where(good[:, None], trial - x, 0), torch.where(good[:, None], gradient - g, 0))
            # Where the step was refused: the minimum of the parabola through what is known.
            rise = torch.where(finite, value - f - slope * length, torch.inf)
            parabola = -slope * length**2 / (2 * rise.clamp_min(1e-30))
            shorter = torch.clamp(torch.minimum(parabola, 0.5 * length), min=0.1 * length)
            stuck = ~good & (shorter < SHORTEST * torch.where(slope == 0, torch.inf, tried))
            x, f, g = (
                torch.where(good.view(-1, *[1] * (new.ndim - 1)), new, old)
                for new, old in ((trial, x), (value, f), (gradient, g))
            )
            new, fresh = history.step(g, first)
            direction = torch.where(good[:, None], new, direction)
            length = torch.where(good, fresh, shorter)
            tried = torch.where(good, fresh, tried)
        points[live] = x.unflatten(1, start.shape[1:])
        for image in live.tolist():
            counts[image] += used
        again = [image for image, each in enumerate(status) if each != "converged"]
        waiting = torch.tensor(again, dtype=torch.long, device=start.device)
        history = history.placed(torch.searchsorted(waiting, live), len(waiting))
        for image in live.tolist():
            status[image] = "budget"
    return Minimum(points, status, counts)


@dataclass
class _History:
    """The newest pairs of steps and changes of the gradient, M x n each, and 1 / their products, M; 0 for none."""

    memory: int
    steps: list[torch.Tensor]
    changes: list[torch.Tensor]
    curvature: list[torch.Tensor]

    def add(self, step: torch.Tensor, change: torch.Tensor) -> None:
        product = (step * change).sum(1)
        kept = product > 1e-12 * change.square().sum(1)
        self.steps.append(step)
        self.changes.append(change)
        self.curvature.append(torch.where(kept, 1 / torch.where(kept, product, 1), 0))
        if len(self.steps) > self.memory:
            del self.steps[0], self.changes[0], self.curvature[0]

    def step(self, gradient: torch.Tensor, first: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The direction in which to go, and how far to try: steepest descent where nothing is known or it climbs."""
        careful = first / gradient.abs().amax(1).clamp_min(1e-30)
        if not self.steps:
            return -gradient, careful
        direction = _direction(gradient, self.steps, self.changes, self.curvature)
        known = torch.stack(self.curvature).amax(0) > 0
        uphill = ~known | ((direction * gradient).sum(1) >= 0)
        return torch.where(uphill[:, None], -gradient, direction), torch.where(uphill, careful, 1.0)

    def of(self, chosen: torch.Tensor) -> _History:
        """That of some images of the batch."""
        return self._each(lambda held: held[chosen])

    def placed(self, rows: torch.Tensor, count: int) -> _History:
        """That of a batch of which these are some rows; of the others nothing is known."""
        if len(rows) == count:
            return self
        return self._each(lambda held: held.new_zeros(count, *held.shape[1:]).index_copy(0, rows, held))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> _History:
        return _History(
            self.memory, *([change(each) for each in held] for held in (self.steps, self.changes, self.curvature))
        )


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
