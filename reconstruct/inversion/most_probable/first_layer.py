"""``map`` of a first layer whose responses are known: one linear least-squares problem, one solve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from reconstruct.inversion.most_probable.gauss_newton import Normal
from reconstruct.inversion.most_probable.task import Progress, Task
from reconstruct.inversion.result import Watch
from reconstruct.operators import arrays
from reconstruct.solvers.least_squares import cgls


@dataclass(frozen=True)
class _OnTorus:
    """J of fields on the prior's torus, for the solver: the same J for every image of the batch."""

    task: Task
    at: Any

    def apply(self, inputs: arrays.Array, /) -> arrays.Array:
        images = self.task.prior.crop(arrays.to_torch(inputs))
        return arrays.array_of(self.task.operator.product(self.at, images).contiguous())

    def adjoint(self, responses: arrays.Array, /) -> arrays.Array:
        images = self.task.operator.transposed(self.at, arrays.to_torch(responses))
        return arrays.array_of(self.task.prior.extend(images).contiguous())


def solve(
    task: Task,
    normal: Normal,
    field: torch.Tensor,
    progress: Progress,
    *,
    tolerance: float,
    budget: float,
    watch: Watch | None,
) -> torch.Tensor:
    """The fields, N x C x H' x W', of least norm that give the responses; writes down ``progress``.

    Arguments as of ``gauss_newton.gauss_newton``.
    """
    prior = task.prior
    at = task.operator.linearise(prior.mean.expand(1, *prior.shape[:1], *prior.size))
    right, _ = task.known.residual(at.responses)
    found = cgls(
        _OnTorus(task, at),
        arrays.array_of(right),
        norm=float(torch.linalg.eigvalsh(normal.matrices).max()) ** 0.5,
        precondition=lambda values: arrays.array_of(normal.precondition(arrays.to_torch(values))),
        tolerance=tolerance,
        iterations=max(0, int((budget - 1) // 2)),
    )
    field = field + arrays.to_torch(found.value)
    progress.images = prior.mean + prior.crop(field)
    progress.status, progress.iterations = found.status, found.iterations
    progress.passes = [2.0 * count + 1 for count in found.iterations]
    if watch is not None:
        watch(max(progress.passes), progress.images)
    return field
