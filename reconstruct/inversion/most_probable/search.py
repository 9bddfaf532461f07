"""The second stage of ``map``: L-BFGS in white noise w on weighted residuals, through a network that is first smoothed.

For tau falling to 0 minimises

    r^T (G + N(tau) + e g I)^-1 r / 2 + ridge |w|^2 / 2,    r = z - f_tau(x(w)).

f_tau is the network with every activation below replaced by its mean over responses that are uncertain by tau times
their deviation under the prior: signs are not decided before the responses are known that well. N(tau) is the
covariance of what f_tau misses of f, so that it is not fitted as if it were the image. G is the covariance of the
responses that the prior and the network's average Jacobian give, and g its mean diagonal (``prior.estimates``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

import torch

from reconstruct.inversion.known import Exact
from reconstruct.inversion.most_probable.task import Progress, Task
from reconstruct.inversion.result import Watch
from reconstruct.network.architecture import Size
from reconstruct.prior.estimates import Smoothing, response_covariance, smoothing
from reconstruct.prior.lags import inverse, spectrum, variance
from reconstruct.solvers.lbfgs import Evaluate, Stage, lbfgs

EVALUATION = 3
"""Forward passes of an evaluation, forward and backward, by convention."""
FINE, FINE_POOLED = 1e-3, 0.03
"""e of the residual's weight; of what a deep max-pooling gives, whose switches move with the image, it is more."""
FIRST_TAU, LAST_TAU = 0.5, 0.03
STAGES, SHORTEST_STAGE = 5, 6
"""How many stages there are from the first tau to the last, and their evaluations at least: few have fewer stages."""
UNSURE, LONGEST_UNSURE = 0.15, 24
"""Above this tau no stage has more evaluations: what a smoothed network gets wrong of a flat sky lies outside N(tau),
which is of images that are rough everywhere, and twice as many evaluations would fit it."""
SMOOTH = 0.75
"""The share of the evaluations at tau above 0, where nothing comes after the search."""
PRIOR_WEIGHT, PRIOR_WEIGHT_UNDETERMINED, PRIOR_WEIGHT_RECTIFIED = 1e-4, 1e-2, 0.1
"""The weight of |w|^2 beside the weighted residual where features carry no noise; and in smoothed searches of layers
with fewer responses than the image has numbers, where signs that are wrong to the end are noise of some size; of those
more where a ReLU has hidden half of them."""

COARSE, COARSE_EVALUATIONS = 1.0, 25
"""e at first where there is nothing to smooth below and the features say less than the responses, and for how long."""


@dataclass(frozen=True)
class Step:
    """One stage of a search: tau, e of the residual's weight, and evaluations."""

    tau: float
    e: float
    evaluations: int


Plan = list[Step]
Weigh = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Weighting:
    """The covariance of a layer's responses, and what is known of smoothed ones.

    Attributes
    ----------
    grid : of the layer's responses, g x g'.
    matrices : g x (g'/2 + 1) x K x K, G at every frequency of the layer's grid.
    typical : their mean variance, g in the formula above.
    smoothing : deviations and errors of the smoothed networks.
    cost : forward passes that preparing it took, and inverting it at every stage will.
    """

    grid: Size
    matrices: torch.Tensor
    typical: float
    smoothing: Smoothing
    cost: float

    @property
    def smooth(self) -> bool:
        """Whether there are activations that can be smoothed."""
        return any(spread is not None for spread in self.smoothing.spreads)

    def inverse(self, tau: float, share: float) -> Weigh:
        """(G + N(tau) + share g I)^-1."""
        matrices = self.matrices
        if tau:
            matrices = matrices + spectrum(self.smoothing.error(tau), self.grid)
        return inverse(matrices, share * self.typical)


def prepare(task: Task) -> Weighting:
    """The weighting of a task's residuals, estimated once a network and layer."""
    lags, cost = response_covariance(task.net, task.layer)
    smooth, more = smoothing(task.net, task.layer) if task.smoothed else (Smoothing([], {}), 0.0)
    matrices = spectrum(lags, task.operator.grid)
    inverses = (STAGES + 1 if smooth.spreads else 1) * task.passes_to_invert(matrices)
    return Weighting(task.operator.grid, matrices, variance(lags), smooth, cost + more + inverses)


def plan(
    task: Task,
    weighting: Weighting,
    budget: float,
    *,
    first: float = FIRST_TAU,
    last: float = LAST_TAU,
    smooth: float = SMOOTH,
) -> Plan:
    """The stages for a budget in forward passes: tau falls geometrically, and is 0 in the last stage.

    ``smooth`` : the share of the evaluations at tau above 0; with 1, whatever comes next takes over from the last tau.
    """
    evaluations = int(budget // EVALUATION)
    pooled = not task.shallow and task.operator.layer.kind == "max_pool"
    fine = FINE_POOLED if pooled else FINE
    if not weighting.smooth:
        coarse = min(COARSE_EVALUATIONS, evaluations // 2)
        return [Step(0.0, COARSE, coarse), Step(0.0, fine, evaluations - coarse)]
    count = min(STAGES, int(smooth * evaluations) // SHORTEST_STAGE)
    if not count:
        return [Step(0.0, fine, evaluations)]
    # Each smoothed stage looks at the network itself once.
    evaluations = int((budget - count) // EVALUATION)
    ratio = (last / first) ** (1 / max(1, count - 1))
    # A short search begins late rather than stops early.
    taus = [last / ratio**step for step in reversed(range(count))]
    left = int(smooth * evaluations)
    steps = []
    for place, tau in enumerate(taus):
        most = LONGEST_UNSURE if tau > UNSURE else left
        steps.append(Step(tau, fine, min(most, left // (count - place))))
        left -= steps[-1].evaluations
    return [*steps, Step(0.0, fine, evaluations - sum(step.evaluations for step in steps))]


def search(
    task: Task,
    weighting: Weighting,
    white: torch.Tensor,
    progress: Progress,
    stages: Plan,
    *,
    tolerance: float,
    watch: Watch | None,
    contrast: torch.Tensor | None = None,
) -> torch.Tensor:
    """L-BFGS from white noise N x C x H' x W'; returns where it ends, and writes down ``progress``.

    Parameters
    ----------
    tolerance : relative residual at which an image has converged.
    contrast : N x 1 x H' x W', how much of w is expected where; default as much everywhere. |w / contrast|^2 then
        takes the place of |w|^2.
    """
    for _, steps in groupby(stages, lambda step: step.e):
        white = _search(task, weighting, white, progress, list(steps), tolerance, watch, contrast)
    return white


def _search(
    task: Task,
    weighting: Weighting,
    white: torch.Tensor,
    progress: Progress,
    stages: Plan,
    tolerance: float,
    watch: Watch | None,
    contrast: torch.Tensor | None,
) -> torch.Tensor:
    """The stages that share e: what is known of the curvature at one says nothing of it at another."""
    live = progress.live()
    spent = max((progress.passes[image] for image in live.tolist()), default=0.0)
    shown, count = progress.images.clone(), 0
    local = torch.ones_like(white[live, :1]) if contrast is None else contrast[live]

    def note(images: torch.Tensor, pictures: torch.Tensor) -> None:
        nonlocal count
        count += 1
        if watch is not None:
            shown[images] = pictures
            watch(spent + EVALUATION * count + looks(stages, count), shown)

    def functions() -> Iterator[Stage]:
        for step in stages:
            yield _objective(task, weighting, step, live, local, tolerance, note), step.evaluations

    found = lbfgs(functions(), white[live] / local)
    for place, image in enumerate(live.tolist()):
        progress.iterations[image] += found.evaluations[place]
        progress.passes[image] += EVALUATION * found.evaluations[place] + looks(stages, found.evaluations[place])
        if found.status[place] == "converged":
            progress.status[image] = "converged"
    white = white.index_copy(0, live, found.point * local)
    progress.images[live] = task.prior.image(white[live])
    return white


def looks(stages: Plan, evaluations: int) -> int:
    """How many stages had a look at the network itself, by the evaluations that were made: a forward pass each."""
    begun = [sum(step.evaluations for step in stages[:place]) for place, step in enumerate(stages) if step.tau]
    return sum(evaluations > before for before in begun)


def _objective(
    task: Task,
    weighting: Weighting,
    step: Step,
    live: torch.Tensor,
    local: torch.Tensor,
    tolerance: float,
    note: Callable[[torch.Tensor, torch.Tensor], None],
) -> Evaluate:
    """The function of w / local that is minimised, its gradient, and whether the residual is small enough."""
    weigh = weighting.inverse(step.tau, step.e + task.noise**2)
    spreads = weighting.smoothing.spread(step.tau) if weighting.smooth else None
    floor = PRIOR_WEIGHT
    if weighting.smooth and not task.determined:
        floor = PRIOR_WEIGHT_UNDETERMINED if isinstance(task.known, Exact) else PRIOR_WEIGHT_RECTIFIED
    begins = True

    def evaluate(points: torch.Tensor, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        nonlocal begins
        chosen = live[images]
        scale = local[images]
        pictures = task.prior.image(scale * points)
        at = task.operator.linearise(pictures, spreads)
        residual, active = task.known[chosen].residual(at.responses)
        weighted = weigh(residual)
        ridge = floor + task.noise**2 * task.power[chosen] / weighting.typical
        value = 0.5 * (residual * weighted).flatten(1).sum(1)
        value = value + 0.5 * (ridge * points.square()).flatten(1).sum(1)
        pulled = weighted if active is None else weighted * active
        field = task.prior.extend(task.operator.transposed(at, pulled))
        gradient = ridge * points - scale * task.prior.field_adjoint(field)
        note(chosen, pictures)
        if spreads is not None and begins:
            # What converges is the network itself, not the smoothed one: looked at once a stage, for a forward pass.
            begins = False
            residual, _ = task.known[chosen].residual(task.operator.linearise(pictures).responses)
        elif spreads is not None:
            return value, gradient, torch.zeros_like(value, dtype=torch.bool)
        return value, gradient, task.misfit(residual, chosen) <= tolerance

    return evaluate
