"""The last stage of ``map`` where few rectifications lie on the way: Gauss-Newton on the image.

By then nearly all signs and switches are right, and the linear problem that is left is solved by conjugate gradients on
fields of the prior's torus, with the preconditioner (E[J^T J] + shift P^-1 + floor)^-1. Signs that are still wrong act
as noise of the residual's size, and |w|^2 weighs accordingly. Early steps are few, because wrong signs would be fitted;
every round takes more. Of several layers that are read, each weighs by the noise that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from reconstruct.inversion.most_probable.task import Progress, Task, together
from reconstruct.inversion.result import Watch
from reconstruct.operators.polyphase import polyphase, unpolyphase
from reconstruct.operators.torus import inverse
from reconstruct.prior.estimates import exact_image_gram, image_gram
from reconstruct.prior.gaussian import Prior
from reconstruct.prior.lags import spectrum, variance
from reconstruct.solvers.conjugate_gradients import conjugate_gradients

INNER, GROWTH = 8, 1.5
"""Conjugate-gradient iterations of the first Gauss-Newton step, and from each step to the next."""
SHIFT_LINEAR, SHIFT_OVER, SHIFT_UNDER = 0.003, 0.001, 0.1
"""The weight of P^-1 in the preconditioner, in units of the mean diagonal of E[J^T J]: for a first layer, for others
with at least as many responses as the image has numbers, and with fewer."""
FLOOR = 0.1
HALVINGS = 6
NOISE_WEIGHT = 8.0
"""The weight of |w|^2 in Gauss-Newton, in units of the noise's variance, or of the residual's where that is more: the
prior's flat spectrum believes in too much detail."""


Gap = tuple[torch.Tensor, torch.Tensor | None]
"""What responses lack, N x K x h x w, and where (1 or 0) that changes with them; None: everywhere."""
Weights = tuple[list[torch.Tensor], torch.Tensor | None]
"""Of each layer's squared residual and of |w|^2, N x 1 x 1 x 1; None where it does not count."""


@dataclass(frozen=True)
class Normal:
    """E[J^T J] on the polyphase components of the prior's torus, and its inverse as a preconditioner.

    Attributes
    ----------
    matrices : g x (g/2 + 1) x C s^2 x C s^2, one a frequency.
    precondition : fields N x C x H' x W' to the same, symmetric positive definite.
    cost : forward passes, each through all of the layers, that preparing it took.
    """

    matrices: torch.Tensor
    precondition: Callable[[torch.Tensor], torch.Tensor]
    cost: float


def prepare(tasks: Sequence[Task]) -> Normal:
    """The normal matrices of tasks with one step: exact for first layers, else estimated once a network and layer.

    Those of several layers are in units of the first's: as they weigh where their noise is alike.
    """
    prior, step = tasks[0].prior, tasks[0].operator.step
    _, height, width = prior.shape
    grams, cost = [], 0.0
    for task in tasks:
        chain = task.net.as_chain(task.layer)
        assert chain is not None  # few bends are known of a chain alone
        gram, more = (exact_image_gram(chain, task.layer), 0.0) if task.linear else image_gram(chain, task.layer)
        grams.append(gram)
        cost += more * task.work
    typical = variance(grams[0])
    matrices = [typical / variance(gram) * spectrum(gram, (height // step, width // step)) for gram in grams]
    linear, determined = all(task.linear for task in tasks), any(task.determined for task in tasks)
    shift = SHIFT_LINEAR if linear else SHIFT_OVER if determined else SHIFT_UNDER
    total = torch.stack(matrices).sum(0)
    solve = inverse(total + shift * typical * prior.precision(step), FLOOR * typical)

    def precondition(field: torch.Tensor) -> torch.Tensor:
        return unpolyphase(solve(polyphase(field, step)), step)

    cost += tasks[0].passes_to_invert(total) * tasks[0].work
    return Normal(total, precondition, cost / sum(task.work for task in tasks))


def gauss_newton(
    tasks: Sequence[Task],
    normal: Normal,
    field: torch.Tensor,
    progress: Progress,
    *,
    tolerance: float,
    budget: float,
    watch: Watch | None,
) -> torch.Tensor:
    """Gauss-Newton from fields N x C x H' x W'; returns where it ends, and writes down ``progress``.

    Parameters
    ----------
    tasks : the layers that are read of the same images, one or several, under one prior.
    tolerance : relative residual at which an image has converged, over all responses that are read.
    budget : forward passes for each image, those that ``progress`` has spent included.
    """
    prior, linear = tasks[0].prior, all(task.linear for task in tasks)
    live = progress.live()
    fields, field = field.clone(), field[live]
    used = max((progress.passes[image] for image in live.tolist()), default=0.0) + 1
    at = _linearise(tasks, field)
    # A linear problem is one solve.
    inner = budget if linear else float(INNER)
    while len(live):
        gaps = _gaps(tasks, live, at)
        misfits = [task.misfit(residual, live) for task, (residual, _) in zip(tasks, gaps, strict=True)]
        fitted = together(tasks, misfits) <= tolerance
        progress.images[live] = prior.mean + prior.crop(field)
        fields[live] = field
        for image in live.tolist():
            progress.passes[image] = used
        for image in live[fitted].tolist():
            progress.status[image] = "converged"
        if watch is not None:
            watch(used, progress.images)
        steps = min(round(inner), int((budget - used - 1) // 2))
        keep = ~fitted
        live, field, at = live[keep], field[keep], [each[keep] for each in at]
        if steps < 1 or not len(live):
            break
        gaps, weights = _gaps(tasks, live, at), _weights(tasks, live, [each[keep] for each in misfits])
        change = _step(tasks, normal, weights, field, at, gaps, steps)
        used += 2 * steps
        before = _objective(prior, weights, field, gaps)
        length = torch.ones(len(live), 1, 1, 1, device=field.device)
        for _ in range(HALVINGS + 1):
            trial = field + length * change
            reached = _linearise(tasks, trial)
            used += 1
            good = _objective(prior, weights, trial, _gaps(tasks, live, reached)) <= before
            if good.all() or used + 1 > budget:
                break
            length = torch.where(good.view(-1, 1, 1, 1), length, length / 2)
        for image in live.tolist():
            progress.iterations[image] += steps
            progress.passes[image] = used
        if used + 1 <= budget:
            for image in live[~good].tolist():
                progress.status[image] = "stagnated"
        live, field, at = live[good], trial[good], [each[good] for each in reached]
        inner *= GROWTH
    return fields


def _linearise(tasks: Sequence[Task], field: torch.Tensor) -> list[Any]:
    """The layers at the images of fields."""
    images = tasks[0].prior.mean + tasks[0].prior.crop(field)
    return [task.operator.linearise(images) for task in tasks]


def _gaps(tasks: Sequence[Task], live: torch.Tensor, at: Sequence[Any]) -> list[Gap]:
    """What each layer's responses lack of what is known."""
    return [task.known[live].residual(each.responses) for task, each in zip(tasks, at, strict=True)]


def _weights(tasks: Sequence[Task], live: torch.Tensor, misfits: Sequence[torch.Tensor]) -> Weights:
    """The weights of layers' squared residuals and that of |w|^2: of one layer 1 and its noise.

    Signs that are still wrong disturb the linear problem as noise of the residual's size.
    """
    if len(tasks) == 1 and tasks[0].linear and not tasks[0].noise:
        return [torch.ones(len(live), 1, 1, 1, device=live.device)], None
    noises = []
    for task, misfit in zip(tasks, misfits, strict=True):
        # What a residual shows of a linear layer's noise it shows at the end only.
        known = task.linear and task.noise > 0
        level = torch.full_like(misfit, task.noise) if known else misfit.clamp_min(task.noise)
        noises.append(NOISE_WEIGHT * level.square().view(-1, 1, 1, 1) * task.power[live])
    least = torch.stack(noises).amin(0)
    return [least / noise.clamp_min(1e-30) for noise in noises], least


def _step(
    tasks: Sequence[Task],
    normal: Normal,
    weights: Weights,
    field: torch.Tensor,
    at: Sequence[Any],
    gaps: Sequence[Gap],
    steps: int,
) -> torch.Tensor:
    """The Gauss-Newton step, by this many conjugate-gradient iterations."""
    prior, (shares, ridge) = tasks[0].prior, weights

    def pull(values: Sequence[torch.Tensor]) -> torch.Tensor:
        images = torch.zeros_like(prior.crop(field))
        for task, each, (_, active), share, responses in zip(tasks, at, gaps, shares, values, strict=True):
            heard = responses if active is None else responses * active
            images = images + task.operator.transposed(each, share * heard)
        return prior.extend(images)

    def curvature(values: torch.Tensor) -> torch.Tensor:
        images = prior.crop(values)
        curved = pull([task.operator.product(each, images) for task, each in zip(tasks, at, strict=True)])
        if ridge is not None:
            curved = curved + ridge * prior.whiten_adjoint(prior.whiten(values))
        return curved

    right = pull([residual for residual, _ in gaps])
    if ridge is not None:
        right = right - ridge * prior.whiten_adjoint(prior.whiten(field))
    return conjugate_gradients(curvature, right, normal.precondition, steps)


def _objective(prior: Prior, weights: Weights, field: torch.Tensor, gaps: Sequence[Gap]) -> torch.Tensor:
    shares, ridge = weights
    value = torch.zeros(len(field), device=field.device)
    for share, (residual, _) in zip(shares, gaps, strict=True):
        value = value + (share * residual.square()).flatten(1).sum(1)
    if ridge is not None:
        value = value + (ridge * prior.whiten(field).square()).flatten(1).sum(1)
    return value
