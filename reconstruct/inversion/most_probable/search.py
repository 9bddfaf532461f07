"""The second stage of ``map``: L-BFGS in white noise w on weighted residuals, which finds most of the signs.

Minimises ``r^T (G + e g I)^-1 r / 2 + ridge |w|^2 / 2`` with r the residual, G the covariance of the responses that the
prior and the mean-field network give (``prior.estimates``) and g its mean diagonal: first with a coarse e, then a fine
one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from reconstruct.inversion.most_probable.task import Progress, Task
from reconstruct.inversion.result import Watch
from reconstruct.prior.estimates import response_covariance
from reconstruct.prior.lags import inverse, spectrum, variance
from reconstruct.solvers.lbfgs import Evaluate, lbfgs

EVALUATION = 3
"""Forward passes of an evaluation, forward and backward, by convention."""
COARSE, FINE, FINE_POOLED = 1.0, 1e-3, 0.03
"""e of the residual's weight, in the first evaluations and after; of what a deep max-pooling gives, whose switches move
with the image, G is trusted less."""
COARSE_EVALUATIONS = 25
PRIOR_WEIGHT = 1e-4
"""The weight of |w|^2 beside the weighted residual where features carry no noise."""

Weigh = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Weighting:
    """The covariance of a layer's responses.

    Attributes
    ----------
    matrices : g x (g/2 + 1) x K x K, G at every frequency of the layer's grid.
    typical : their mean variance, g in the formula above.
    cost : forward passes that preparing it took, and inverting it twice will.
    """

    matrices: torch.Tensor
    typical: float
    cost: float


def prepare(task: Task) -> Weighting:
    """The weighting of a task's residuals, estimated once a network and layer."""
    lags, cost = response_covariance(task.net, task.layer)
    matrices = spectrum(lags, task.operator.grid)
    return Weighting(matrices, variance(lags), cost + 2 * task.passes_to_invert(matrices))


def search(
    task: Task,
    weighting: Weighting,
    white: torch.Tensor,
    progress: Progress,
    *,
    tolerance: float,
    budget: float,
    watch: Watch | None,
) -> torch.Tensor:
    """L-BFGS from white noise N x C x H' x W'; returns where it ends, and writes down ``progress``.

    Parameters
    ----------
    tolerance : relative residual at which an image has converged.
    budget : forward passes for each image.
    """
    total = int(budget // EVALUATION)
    coarse = min(COARSE_EVALUATIONS, total // 2)
    pooled = not task.shallow and task.operator.layer.kind == "max_pool"
    shown = progress.images.clone()
    for e, evaluations in ((COARSE, coarse), (FINE_POOLED if pooled else FINE, total - coarse)):
        live = progress.live()
        if not len(live) or evaluations < 1:
            continue
        weigh = inverse(weighting.matrices, e * weighting.typical + task.noise**2 * weighting.typical)
        spent = max(progress.passes)

        def note(count: int, images: torch.Tensor, pictures: torch.Tensor, spent: float = spent) -> None:
            if watch is not None:
                shown[images] = pictures
                watch(spent + EVALUATION * count, shown)

        evaluate = _objective(task, weighting, weigh, live, tolerance, note)
        found = lbfgs(evaluate, white[live], evaluations=evaluations)
        white = white.index_copy(0, live, found.point)
        for place, image in enumerate(live.tolist()):
            progress.iterations[image] += found.evaluations[place]
            progress.passes[image] += EVALUATION * found.evaluations[place]
            if found.status[place] == "converged":
                progress.status[image] = "converged"
    progress.images = task.prior.image(white)
    return white


def _objective(
    task: Task,
    weighting: Weighting,
    weigh: Weigh,
    live: torch.Tensor,
    tolerance: float,
    note: Callable[[int, torch.Tensor, torch.Tensor], None],
) -> Evaluate:
    """The function of white noise that is minimised, its gradient, and whether the residual is small enough."""
    count = 0

    def evaluate(points: torch.Tensor, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        nonlocal count
        chosen = live[images]
        pictures = task.prior.image(points)
        at = task.operator.linearise(pictures)
        residual, active = task.known[chosen].residual(at.responses)
        weighted = weigh(residual)
        ridge = PRIOR_WEIGHT + task.noise**2 * task.power[chosen] / weighting.typical
        value = 0.5 * (residual * weighted).flatten(1).sum(1)
        value = value + 0.5 * (ridge * points.square()).flatten(1).sum(1)
        pulled = weighted if active is None else weighted * active
        field = task.prior.extend(task.operator.transposed(at, pulled))
        gradient = ridge * points - task.prior.field_adjoint(field)
        count += 1
        note(count, chosen, pictures)
        return value, gradient, task.misfit(residual, chosen) <= tolerance

    return evaluate
