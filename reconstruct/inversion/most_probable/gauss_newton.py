"""The last stage of ``map`` where few rectifications lie on the way: Gauss-Newton on the image.

By then nearly all signs and switches are right, and the linear problem that is left is solved by conjugate gradients on
fields of the prior's torus, with the preconditioner (E[J^T J] + shift P^-1 + floor)^-1. Signs that are still wrong act
as noise of the residual's size, and |w|^2 weighs accordingly. Early steps are few, because wrong signs would be fitted;
every round takes more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from reconstruct.inversion.most_probable.task import Progress, Task
from reconstruct.inversion.result import Watch
from reconstruct.operators.polyphase import polyphase, unpolyphase
from reconstruct.prior.estimates import exact_image_gram, image_gram
from reconstruct.prior.gaussian import Prior
from reconstruct.prior.lags import inverse, spectrum, variance
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


@dataclass(frozen=True)
class Normal:
    """E[J^T J] on the polyphase components of the prior's torus, and its inverse as a preconditioner.

    Attributes
    ----------
    matrices : g x (g/2 + 1) x C s^2 x C s^2, one a frequency.
    precondition : fields N x C x H' x W' to the same, symmetric positive definite.
    cost : forward passes that preparing it took.
    """

    matrices: torch.Tensor
    precondition: Callable[[torch.Tensor], torch.Tensor]
    cost: float


def prepare(task: Task) -> Normal:
    """The normal matrices of a task: exact for a first layer, estimated once a network and layer for others."""
    prior, step = task.prior, task.operator.step
    _, height, width = prior.shape
    chain = task.net.as_chain(task.layer)
    assert chain is not None  # few bends are known of a chain alone
    gram, cost = (exact_image_gram(chain, task.layer), 0.0) if task.linear else image_gram(chain, task.layer)
    matrices = spectrum(gram, (height // step, width // step))
    typical = variance(gram)
    shift = SHIFT_LINEAR if task.linear else SHIFT_OVER if task.determined else SHIFT_UNDER
    solve = inverse(matrices + shift * typical * prior.precision(step), FLOOR * typical)

    def precondition(field: torch.Tensor) -> torch.Tensor:
        return unpolyphase(solve(polyphase(field, step)), step)

    return Normal(matrices, precondition, cost + task.passes_to_invert(matrices))


def gauss_newton(
    task: Task,
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
    tolerance : relative residual at which an image has converged.
    budget : forward passes for each image, those that ``progress`` has spent included.
    """
    prior, operator = task.prior, task.operator
    live = progress.live()
    fields, field = field.clone(), field[live]
    used = max((progress.passes[image] for image in live.tolist()), default=0.0) + 1
    at = operator.linearise(prior.mean + prior.crop(field))
    # A linear problem is one solve.
    inner = budget if task.linear else float(INNER)
    while len(live):
        residual, active = task.known[live].residual(at.responses)
        misfit = task.misfit(residual, live)
        fitted = misfit <= tolerance
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
        live, field, at, residual = live[keep], field[keep], at[keep], residual[keep]
        if steps < 1 or not len(live):
            break
        ridge = _ridge(task, live, misfit[keep])
        change = _step(task, normal, ridge, field, at, residual, None if active is None else active[keep], steps)
        used += 2 * steps
        before, known = _objective(prior, residual, ridge, field), task.known[live]
        length = torch.ones(len(live), 1, 1, 1, device=field.device)
        for _ in range(HALVINGS + 1):
            trial = field + length * change
            reached = operator.linearise(prior.mean + prior.crop(trial))
            used += 1
            good = _objective(prior, known.residual(reached.responses)[0], ridge, trial) <= before
            if good.all() or used + 1 > budget:
                break
            length = torch.where(good.view(-1, 1, 1, 1), length, length / 2)
        for image in live.tolist():
            progress.iterations[image] += steps
            progress.passes[image] = used
        if used + 1 <= budget:
            for image in live[~good].tolist():
                progress.status[image] = "stagnated"
        live, field, at = live[good], trial[good], reached[good]
        inner *= GROWTH
    return fields


def _step(
    task: Task,
    normal: Normal,
    ridge: torch.Tensor | None,
    field: torch.Tensor,
    at: Any,
    residual: torch.Tensor,
    active: torch.Tensor | None,
    steps: int,
) -> torch.Tensor:
    """The Gauss-Newton step, by this many conjugate-gradient iterations."""
    prior, operator = task.prior, task.operator

    def pull(responses: torch.Tensor) -> torch.Tensor:
        return prior.extend(operator.transposed(at, responses if active is None else responses * active))

    def curvature(values: torch.Tensor) -> torch.Tensor:
        curved = pull(operator.product(at, prior.crop(values)))
        if ridge is not None:
            curved = curved + ridge * prior.whiten_adjoint(prior.whiten(values))
        return curved

    right = pull(residual)
    if ridge is not None:
        right = right - ridge * prior.whiten_adjoint(prior.whiten(field))
    return conjugate_gradients(curvature, right, normal.precondition, steps)


def _ridge(task: Task, live: torch.Tensor, misfit: torch.Tensor) -> torch.Tensor | None:
    """The weight of |w|^2: signs that are still wrong disturb the linear problem as noise of the residual's size."""
    if task.linear and not task.noise:
        return None
    level = torch.full_like(misfit, task.noise) if task.linear else misfit.clamp_min(task.noise)
    return NOISE_WEIGHT * level.square().view(-1, 1, 1, 1) * task.power[live]


def _objective(prior: Prior, residual: torch.Tensor, ridge: torch.Tensor | None, field: torch.Tensor) -> torch.Tensor:
    value = residual.square().flatten(1).sum(1)
    if ridge is not None:
        value = value + (ridge * prior.whiten(field).square()).flatten(1).sum(1)
    return value
