"""Least squares with a linear operator, by conjugate gradients, a batch at a time.

``cgls`` works on inputs (A^T A), ``cgne`` on responses (A A^T). Images of a batch converge independently: each has
its own step lengths, status and iteration count, and those that have finished cost nothing more. SciPy's solvers
(``scipy.sparse.linalg``) take one vector at a time and have no such bookkeeping; the tests use them as an
independent reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from reconstruct.operators import arrays

if TYPE_CHECKING:
    from reconstruct.operators.arrays import Array


class LinearOperator(Protocol):
    """What a solver needs of an operator."""

    def apply(self, inputs: Array, /) -> Array: ...

    def adjoint(self, responses: Array, /) -> Array: ...


DIVERGED = 1e3
"""A gradient (``cgls``) or residual (``cgne``) this much larger than the least so far has been lost to rounding; exact
iterations may let it rise for a while, but not by orders of magnitude."""

Precondition = Callable[["Array"], "Array"]
"""A symmetric positive definite map, close to the inverse of A^T A (for ``cgls``) or A A^T (for ``cgne``)."""


@dataclass(frozen=True)
class Solution:
    """What a solve returns, one entry an image.

    ``status``: ``converged`` where the solver's stopping inequality held, ``budget`` where the iterations ran out,
    ``stagnated`` where rounding ended progress first (the best value so far is returned). ``residual`` is
    |z - A x| / |z| (0 for z = 0), ``iterations`` counts applications of A and its adjoint.
    """

    value: Array
    status: list[str]
    residual: list[float]
    iterations: list[int]


def cgls(
    operator: LinearOperator,
    responses: Array,
    *,
    norm: float,
    damping: float = 0.0,
    precondition: Precondition | None = None,
    tolerance: float = 1e-6,
    iterations: int = 1000,
    start: Array | None = None,
) -> Solution:
    """Minimise |z - A x|^2 + damping |x|^2 over x, for each z of a batch (N x ...).

    Conjugate gradients on the normal equations, in the form that keeps the residual z - A x itself (Björck 1996,
    section 7.4), which loses less to rounding than forming A^T A. Without preconditioner and damping, from
    ``start`` = 0 or any start in the range of A^T, the limit is the minimum-norm solution, whatever the rank.

    Stops on an image when, with r = z - A x and s = A^T r - damping x,
    ``|r| <= tolerance |z|`` (undamped only) or ``|s| <= tolerance norm sqrt(|r|^2 + damping |x|^2)``;
    ``norm`` is the largest singular value of A, or a bound. These are the inequalities of LSQR (Paige and
    Saunders 1982).
    """
    xp = arrays.namespace(responses)
    scale = _norms(responses)
    x = xp.zeros_like(operator.adjoint(responses)) if start is None else start.copy()
    residual = responses - operator.apply(x)
    slope = operator.adjoint(residual) - damping * x if damping else operator.adjoint(residual)
    direction = slope if precondition is None else precondition(slope)
    power = _dots(slope, direction)

    def objective(x: Array, residual: Array) -> Array:
        fit = _dots(residual, residual)
        return fit + damping * _dots(x, x) if damping else fit

    def finished(slope: Array, value: Array, scale: Array) -> Array:
        done = _norms(slope) <= tolerance * norm * xp.sqrt(value)
        return done if damping else done | (xp.sqrt(value) <= tolerance * scale)

    value = objective(x, residual)
    best, flattest = x, _norms(slope)
    batch = _Batch(x, iterations)
    batch.finish(finished(slope, value, scale), x, 0)
    for count in range(1, iterations + 1):
        if batch.keep is not None:
            x, residual, direction, power, scale, value, best, flattest = (
                part[batch.keep] for part in (x, residual, direction, power, scale, value, best, flattest)
            )
        if not len(x):
            break
        image = operator.apply(direction)
        curvature = _dots(image, image) + (damping * _dots(direction, direction) if damping else 0)
        step = power / xp.where(curvature > 0, curvature, 1)
        x = _added(x, step, direction)
        residual = _added(residual, -step, image)
        slope = operator.adjoint(residual)
        if damping:
            slope = slope - damping * x
        conjugate = slope if precondition is None else precondition(slope)
        fresh = _dots(slope, conjugate)
        steepness, lowest = _norms(slope), value
        value = objective(x, residual)
        better = steepness < flattest
        best, flattest = _chosen(better, x, best), xp.where(better, steepness, flattest)
        # Every exact step lowers the objective. Once rounding has eaten the conjugacy, steps raise it.
        lost = (value > 1.01 * lowest) | (steepness > DIVERGED * flattest)
        stuck = lost | ~((curvature > 0) & (fresh > 0))
        direction = _added(conjugate, fresh / xp.where(power > 0, power, 1), direction)
        power = fresh
        batch.finish(finished(slope, value, scale), _chosen(stuck, best, x), count, stuck)
    return batch.solution(operator, responses, x)


def cgne(
    operator: LinearOperator,
    responses: Array,
    *,
    damping: float = 0.0,
    precondition: Precondition | None = None,
    tolerance: float = 1e-6,
    iterations: int = 1000,
) -> Solution:
    """x = A^T (A A^T + damping I)^-1 z for each z of a batch: the minimum-norm solution, damped or not.

    Conjugate gradients on the responses (Craig's method; Björck 1996, section 7.4). Undamped, A x = z must have
    a solution. Stops on an image when ``|z - A x - damping y| <= tolerance |z|``, where x = A^T y.
    """
    xp = arrays.namespace(responses)
    limit = tolerance * _norms(responses)
    residual = responses
    direction = residual if precondition is None else precondition(residual)
    power = _dots(residual, direction)
    x = xp.zeros_like(operator.adjoint(responses))
    best, lowest = x, _norms(residual)
    batch = _Batch(x, iterations)
    batch.finish(lowest <= limit, x, 0)
    for count in range(1, iterations + 1):
        if batch.keep is not None:
            x, residual, direction, power, limit, best, lowest = (
                part[batch.keep] for part in (x, residual, direction, power, limit, best, lowest)
            )
        if not len(x):
            break
        pulled = operator.adjoint(direction)
        curvature = _dots(pulled, pulled) + (damping * _dots(direction, direction) if damping else 0)
        step = power / xp.where(curvature > 0, curvature, 1)
        x = _added(x, step, pulled)
        image = operator.apply(pulled)
        residual = _added(residual, -step, image + damping * direction if damping else image)
        conjugate = residual if precondition is None else precondition(residual)
        fresh = _dots(residual, conjugate)
        misfit = _norms(residual)
        better = misfit < lowest
        best, lowest = _chosen(better, x, best), xp.where(better, misfit, lowest)
        stuck = (misfit > DIVERGED * lowest) | ~((curvature > 0) & (fresh > 0))
        direction = _added(conjugate, fresh / xp.where(power > 0, power, 1), direction)
        power = fresh
        batch.finish(misfit <= limit, best, count, stuck)
    return batch.solution(operator, responses, best)


class _Batch:
    """The images of a batch that are still being solved, and the results of those that are not."""

    def __init__(self, x: Array, budget: int) -> None:
        self.value = x.copy()
        self.status = ["budget"] * len(x)
        self.iterations = [budget] * len(x)
        self.active = list(range(len(x)))
        self.keep: Array | None = None
        """Which of the images of the last round go on; None if all do."""

    def finish(self, done: Array, x: Array, count: int, stuck: Array | None = None) -> None:
        """Take out the images that are done, or that cannot go on."""
        over = (done if stuck is None else done | stuck).tolist()
        if not any(over):
            self.keep = None
            return
        for row, (image, is_over, is_done) in enumerate(zip(self.active, over, done.tolist(), strict=True)):
            if is_over:
                self.value[image] = x[row]
                self.status[image] = "converged" if is_done else "stagnated"
                self.iterations[image] = count
        going = [row for row, is_over in enumerate(over) if not is_over]
        self.keep = arrays.namespace(x).asarray(going, dtype=int)
        self.active = [self.active[row] for row in going]

    def solution(self, operator: LinearOperator, responses: Array, x: Array) -> Solution:
        if self.keep is not None:
            x = x[self.keep] if len(x) != len(self.active) else x
        for row, image in enumerate(self.active):
            self.value[image] = x[row]
        residual = relative_norms(responses - operator.apply(self.value), responses)
        return Solution(self.value, self.status, residual, self.iterations)


def _dots(a: Array, b: Array) -> Array:
    """Inner product of each image of a batch, N."""
    n, length = len(a), math.prod(a.shape[1:])
    products: Array = (a.reshape(n, 1, length) @ b.reshape(n, length, 1)).reshape(n)
    return products


def _norms(a: Array) -> Array:
    return arrays.namespace(a).sqrt(_dots(a, a))


def relative_norms(a: Array, b: Array) -> list[float]:
    """|a| / |b| of each image of a batch; |a| where b is 0."""
    scale = _norms(b)
    ratios: list[float] = (_norms(a) / arrays.namespace(a).where(scale > 0, scale, 1)).tolist()
    return ratios


def _added(a: Array, factors: Array, b: Array) -> Array:
    """a + factors * b, one factor an image; one new array, where the expression makes two."""
    product = _each(factors, b) * b
    product += a
    return product


def _chosen(first: Array, a: Array, b: Array) -> Array:
    """Images of a where ``first`` holds, else of b: not copied where all come from one."""
    if first.all():
        return a
    return arrays.namespace(a).where(_each(first, a), a, b) if first.any() else b


def _each(factors: Array, like: Array) -> Array:
    """One factor an image, shaped to multiply a batch."""
    return factors.reshape(-1, *[1] * (like.ndim - 1))
