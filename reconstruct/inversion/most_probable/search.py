"""The second stage of ``map``: L-BFGS in white noise w on weighted residuals, through a network that is first smoothed.

For tau falling to 0 minimises

    r^T (G + N(tau) + e g I)^-1 r / 2 + ridge |w|^2 / 2,    r = z - f_tau(x(w)),

the first summed over the layers that are read. f_tau is the network with every activation below replaced by its mean
over responses that are uncertain by tau times their deviation under the prior: signs are not decided before the
responses are known that well. N(tau) is the covariance of what f_tau misses of f, so that it is not fitted as if it
were the image. G is the covariance of the responses that the prior and the network's average Jacobian give, and g its
mean diagonal (``prior.estimates``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby

import torch

from reconstruct.errors import CallError
from reconstruct.inversion.known import Exact
from reconstruct.inversion.most_probable.task import Progress, Task, together
from reconstruct.inversion.result import Watch
from reconstruct.network.architecture import Size
from reconstruct.operators.torus import inverse
from reconstruct.prior.estimates import Smoothing, response_covariance, smoothing
from reconstruct.prior.lags import spectrum, variance
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
NOISE_WHITE, MOST_WHITE, NOISE_WEIGHT = 30.0, 0.5, 3.0
"""By the square of the features' noise: the white part of the residual's covariance beside G, and the most of it; and
the weight of |w|^2. Noise is white where G is not: weighed by G alone, its quiet directions would be fitted."""

COARSE, COARSE_EVALUATIONS = 1.0, 25
"""e at first where there is nothing to smooth below and the features say less than the responses, and for how long."""


@dataclass(frozen=True)
class Step:
    """One stage of a search: tau, whether e of the residual's weight is ``COARSE``, and evaluations."""

    tau: float
    coarse: bool
    evaluations: int


Plan = list[Step]
Report = Callable[[torch.Tensor, torch.Tensor], None] | None
Weigh = Callable[[torch.Tensor], torch.Tensor]
Inverses = Callable[[int, float, bool], Weigh]
"""By the layer's place, the tau of N(tau), and whether the weight is coarse."""


@dataclass(frozen=True)
class Weighting:
    """The covariance of a layer's responses, and what is known of smoothed ones.

    Attributes
    ----------
    grid : of the layer's responses, g x g'.
    matrices : g x (g'/2 + 1) x K x K, G at every frequency of the layer's grid.
    typical : their mean variance, g in the formula above.
    fine : e of the residual's weight, but in coarse stages.
    smoothing : deviations and errors of the smoothed networks.
    waits : whether the layer's residual counts only once tau is 0.
    deep : whether the first stage has coarse weights.
    cost : forward passes that preparing it took, and inverting it at every stage will.
    """

    grid: Size
    matrices: torch.Tensor
    typical: float
    fine: float
    smoothing: Smoothing
    waits: bool
    deep: bool
    cost: float

    @property
    def smooth(self) -> bool:
        """Whether there are activations that can be smoothed."""
        return any(spread is not None for spread in self.smoothing.spreads)

    def inverse(self, tau: float, coarse: bool, noise: float) -> Weigh:
        """(G + N(tau) + (e + white) g I)^-1, white by the noise of the features; N(0) is 0."""
        matrices = self.matrices
        if tau:
            matrices = matrices + spectrum(self.smoothing.error(tau), self.grid)
        white = min(NOISE_WHITE * noise**2, MOST_WHITE)
        return inverse(matrices, ((COARSE if coarse else self.fine) + white) * self.typical)

    def heard(self, tau: float) -> float:
        """The tau of N(tau); 0 where nothing is smoothed, or where its variance is below e g: it changes nothing there,
        and what was inverted without it serves again."""
        audible = tau and self.smooth and variance(self.smoothing.error(tau)) > self.fine * self.typical
        return tau if audible else 0.0

    def spreads(self, tau: float) -> Sequence[torch.Tensor | None] | None:
        """The deviations of what goes into the activations below, at this tau; None where nothing is smoothed."""
        return self.smoothing.spread(tau) if tau and self.smooth else None


def prepare(task: Task) -> Weighting:
    """The weighting of a layer's residuals, estimated once a network and layer.

    Raises
    ------
    CallError : the layer gives the same for every image, as one whose scale is still 0 where its training began.
    """
    lags, cost = response_covariance(task.net, task.layer)
    if not variance(lags) > 0:
        raise CallError(f"{task.layer} of {task.net.name} gives the same for every image: nothing of one is in it")
    smooth, more = smoothing(task.net, task.layer) if task.smoothed else (Smoothing([], {}), 0.0)
    matrices = spectrum(lags, task.operator.grid)
    weighting = Weighting(
        task.operator.grid,
        matrices,
        variance(lags),
        FINE_POOLED if task.pooled else FINE,
        smooth,
        # The signs of a layer that cannot be smoothed are best sought once those of others have been found.
        waits=not smooth.spreads and task.operator.bends > 0,
        deep=task.deep,
        cost=cost + more,
    )
    inverses = 1 + sum(weighting.heard(tau) > 0 for tau in _taus(STAGES, FIRST_TAU, LAST_TAU))
    return replace(weighting, cost=weighting.cost + inverses * task.passes_to_invert(matrices))


def plan(
    weightings: Sequence[Weighting],
    budget: float,
    *,
    first: float = FIRST_TAU,
    last: float = LAST_TAU,
    smooth: float = SMOOTH,
    again: bool = False,
) -> Plan:
    """The stages for a budget in forward passes: tau falls geometrically, and is 0 in the last stage.

    Parameters
    ----------
    smooth : the share of the evaluations at tau above 0; with 1, whatever comes next takes over from the last tau.
    again : whether the search begins at an image that another has found, and not at the prior's mean.
    """
    evaluations = int(budget // EVALUATION)
    if not any(each.smooth for each in weightings):
        coarse = min(COARSE_EVALUATIONS, evaluations // 2)
        return [Step(0.0, True, coarse), Step(0.0, False, evaluations - coarse)]
    count = min(STAGES, int(smooth * evaluations) // SHORTEST_STAGE)
    if not count:
        return [Step(0.0, False, evaluations)]
    # Each smoothed stage looks at the network itself once.
    evaluations = int((budget - count) // EVALUATION)
    left = int(smooth * evaluations)
    steps = []
    for place, tau in enumerate(_taus(count, first, last)):
        most = LONGEST_UNSURE if tau > UNSURE else left
        # From grey on, a deep network's fine weights may choose the picture's negative.
        coarse = place == 0 and not again and any(each.deep for each in weightings)
        steps.append(Step(tau, coarse, min(most, left // (count - place))))
        left -= steps[-1].evaluations
    return [*steps, Step(0.0, False, evaluations - sum(step.evaluations for step in steps))]


def _taus(count: int, first: float, last: float) -> list[float]:
    """From the first to the last, geometrically. A short search begins late rather than stops early."""
    ratio = (last / first) ** (1 / max(1, count - 1))
    return [last / ratio**step for step in reversed(range(count))]


def search(
    tasks: Sequence[Task],
    weightings: Sequence[Weighting],
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
    tasks, weightings : the layers that are read of the same images, one or several, under one prior.
    tolerance : relative residual at which an image has converged, over all responses that are read.
    contrast : N x 1 x H' x W', how much of w is expected where; default as much everywhere. |w / contrast|^2 then
        takes the place of |w|^2.
    """
    if contrast is None:
        contrast = torch.ones_like(white[:, :1])
    prior, weigh = tasks[0].prior, _inverses(tasks, weightings)
    # What is known of the curvature at one e says nothing of it at another.
    for _, group in groupby(stages, lambda step: step.coarse):
        steps = list(group)
        live = progress.live()
        spent = max((progress.passes[image] for image in live.tolist()), default=0.0)
        report = None if watch is None else _report(watch, progress, steps, spent)

        def functions(steps: Plan = steps, live: torch.Tensor = live, report: Report = report) -> Iterator[Stage]:
            for step in steps:
                yield (
                    _objective(tasks, weightings, weigh, step, live, contrast[live], tolerance, report),
                    step.evaluations,
                )

        found = lbfgs(functions(), white[live] / contrast[live])
        for place, image in enumerate(live.tolist()):
            progress.iterations[image] += found.evaluations[place]
            progress.passes[image] += EVALUATION * found.evaluations[place] + looks(steps, found.evaluations[place])
            if found.status[place] == "converged":
                progress.status[image] = "converged"
        white = white.index_copy(0, live, found.point * contrast[live])
        progress.images[live] = prior.image(white[live])
    return white


def _inverses(tasks: Sequence[Task], weightings: Sequence[Weighting]) -> Inverses:
    """Inverses for every stage, of which the last of each layer is kept: they are large, and often serve again."""

    @lru_cache(maxsize=len(tasks))
    def weigh(place: int, tau: float, coarse: bool) -> Weigh:
        return weightings[place].inverse(tau, coarse, tasks[place].noise)

    return weigh


def _report(watch: Watch, progress: Progress, steps: Plan, spent: float) -> Report:
    """What tells whoever watches of every evaluation: the images that it was of, and those images."""
    shown, count = progress.images.clone(), 0

    def report(images: torch.Tensor, pictures: torch.Tensor) -> None:
        nonlocal count
        count += 1
        shown[images] = pictures
        watch(spent + EVALUATION * count + looks(steps, count), shown)

    return report


def looks(stages: Plan, evaluations: int) -> int:
    """How many stages had a look at the network itself, by the evaluations that were made: a forward pass each."""
    begun = [sum(step.evaluations for step in stages[:place]) for place, step in enumerate(stages) if step.tau]
    return sum(evaluations > before for before in begun)


def _objective(
    tasks: Sequence[Task],
    weightings: Sequence[Weighting],
    weigh: Inverses,
    step: Step,
    live: torch.Tensor,
    local: torch.Tensor,
    tolerance: float,
    report: Report,
) -> Evaluate:
    """The function of w / local that is minimised, its gradient, and whether the residual is small enough."""
    prior = tasks[0].prior
    heard = [
        (task, weigh(place, each.heard(step.tau), step.coarse), each.spreads(step.tau), _ridge(task, each))
        for place, (task, each) in enumerate(zip(tasks, weightings, strict=True))
        if not (step.tau and each.waits)
    ]
    least = torch.stack([ridge for *_, ridge in heard]).amin(0)
    begins = True

    def evaluate(points: torch.Tensor, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        nonlocal begins
        chosen, scale = live[images], local[images]
        pictures = prior.image(scale * points)
        pulled = torch.zeros_like(pictures)
        value = 0.5 * (least[chosen] * points.square()).flatten(1).sum(1)
        misfits = []
        for task, inverted, spreads, ridge in heard:
            at = task.operator.linearise(pictures, spreads)
            residual, active = task.known[chosen].residual(at.responses)
            # By their ridges apart, each layer's term is what it would be alone beside one |w|^2.
            weighted = least[chosen] / ridge[chosen] * inverted(residual)
            value = value + 0.5 * (residual * weighted).flatten(1).sum(1)
            pulled = pulled + task.operator.transposed(at, weighted if active is None else weighted * active)
            misfits.append(task.misfit(residual, chosen))
        gradient = least[chosen] * points - scale * prior.field_adjoint(prior.extend(pulled))
        if report is not None:
            report(chosen, pictures)
        if not step.tau:
            return value, gradient, together(tasks, misfits) <= tolerance
        if not begins:
            return value, gradient, torch.zeros_like(value, dtype=torch.bool)
        # What converges is the network itself, not the smoothed one: looked at once a stage, for a forward pass.
        begins = False
        return value, gradient, misfit(tasks, pictures, chosen) <= tolerance

    return evaluate


def misfit(tasks: Sequence[Task], pictures: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """The relative residual of the images with these indices, over all responses that are read: a forward pass."""
    found = []
    for task in tasks:
        residual, _ = task.known[images].residual(task.operator.linearise(pictures).responses)
        found.append(task.misfit(residual, images))
    return together(tasks, found)


def _ridge(task: Task, weighting: Weighting) -> torch.Tensor:
    """The weight of |w|^2 beside a layer's weighted residual, N x 1 x 1 x 1."""
    floor = PRIOR_WEIGHT
    if weighting.smooth and not task.determined:
        floor = PRIOR_WEIGHT_UNDETERMINED if isinstance(task.known, Exact) else PRIOR_WEIGHT_RECTIFIED
    return floor + NOISE_WEIGHT * task.noise**2 * task.power / weighting.typical
