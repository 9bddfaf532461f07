"""Method ``map``: the most probable image under the natural-image prior, through the whole network, without learning.

    x = argmin |f(x) - z|^2 / sigma^2 + |w|^2,   x = mean + M crop(S w)

f is the true, piecewise-linear network up to the layer's linear responses z (for a pooling: up to its features) and
w white noise (``prior``). In three stages, of which the network's shapes say which apply:

1. *Step over* (``step_over``): a layer with more responses than its input has features is solved for that input, and
   the layer below inverted instead: it holds the same information, and is cheaper and better conditioned.
2. *L-BFGS in w on weighted residuals*: r^T (G + e g I)^-1 r, G the covariance of the responses that the prior and the
   mean-field network give (``covariance``), g its mean diagonal. The Gauss-Newton step of this problem is
   P J^T (J P J^T)^-1 r, and G stands in for J P J^T at the price of two Fourier transforms. e = 1 finds the signs of
   the large responses, e = 0.001 (of what a deep max-pooling gives 0.03) the rest.
3. *Gauss-Newton* for layers with at most two rectifications or max-poolings below: by then nearly all signs and
   switches are right, and the linear problem that is left is solved by conjugate gradients on the image with the
   preconditioner (E[J^T J] + shift P^-1 + floor)^-1. Signs that are still wrong act as noise of the residual's size,
   and |w|^2 weighs accordingly. Early steps are few, because wrong signs would be fitted; every round takes more.

Features after ReLU say z where they are positive and z <= 0 where they are 0: the residual there is max(z, 0). Those of
AVR say |z|: the residual is taken to the nearer of +-|z|.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from reconstruct.inversion.most_probable.step_over import step_over, steps_over
from reconstruct.inversion.result import Inverted, Watch
from reconstruct.network.activations import is_invertible, linear_responses
from reconstruct.network.module import TorchNetwork
from reconstruct.network.network import Layer, Network, Size
from reconstruct.operators import arrays
from reconstruct.operators.autodiff import chain_of
from reconstruct.operators.layer_stack import multiplications
from reconstruct.operators.pooling import Box
from reconstruct.prior.estimates import (
    exact_image_gram,
    image_gram,
    inverse,
    polyphase,
    response_covariance,
    spectrum,
    unpolyphase,
)
from reconstruct.prior.gaussian import Prior
from reconstruct.solvers.lbfgs import conjugate_gradients, lbfgs
from reconstruct.solvers.least_squares import cgls

BUDGET = 450.0
TOLERANCE = 1e-5

EVALUATION = 3
"""Forward passes of an evaluation, forward and backward, by convention."""
COARSE, FINE, FINE_POOLED = 1.0, 1e-3, 0.03
"""e of the residual's weight, in the first evaluations and after; of what a deep max-pooling gives, whose switches move
with the image, G is trusted less."""
COARSE_EVALUATIONS = 25
PRIOR_WEIGHT = 1e-4
"""Of |w|^2 beside the weighted residual where features carry no noise."""

SHALLOW = 2
"""Rectifications and max-poolings on the way up to which Gauss-Newton takes over: the preconditioner is a mean over
their signs and switches."""
SEARCH = 1 / 2
"""Share of the budget for L-BFGS before Gauss-Newton takes over."""
INNER, GROWTH = 8, 1.5
"""Conjugate-gradient iterations of the first Gauss-Newton step, and from each step to the next."""
SHIFT_LINEAR, SHIFT_OVER, SHIFT_UNDER = 0.003, 0.001, 0.1
"""Of P^-1 in the preconditioner, in units of the mean diagonal of E[J^T J]: for a first layer, for others with at least
as many responses as the image has numbers, and with fewer."""
FLOOR = 0.1
HALVINGS = 6
NOISE_WEIGHT = 8.0
"""Of |w|^2 in Gauss-Newton, in units of the noise's variance, or of the residual's where that is more: the prior's flat
spectrum believes in too much detail."""

SURE = 3.0
"""Deviations of the noise up to which a feature behind a ReLU is taken for a 0."""
STEP_OVER_SHARE = 0.7
STEP_OVER_NOISE = 1e-4
"""Above this noise a layer is not stepped over: exact recovery would amplify the noise."""


@dataclass(frozen=True)
class _Modulus:
    """AVR's |z|, N x K x h x w: z is one of two."""

    values: torch.Tensor

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, chosen: torch.Tensor) -> _Modulus:
        return _Modulus(self.values[chosen])

    def norm(self) -> torch.Tensor:
        return self.values.flatten(1).norm(dim=1)

    def residual(self, responses: torch.Tensor) -> tuple[torch.Tensor, None]:
        """To the nearer of the two."""
        return torch.where(responses >= 0, self.values, -self.values) - responses, None


Known = Box | _Modulus


@dataclass
class _Images:
    """State of a batch on its way; lists hold one entry an image."""

    images: torch.Tensor
    status: list[str]
    iterations: list[int]
    passes: list[float]


def invert_map(
    net: Network,
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
    known = _known(features.float(), net.layer(layer), noise)
    work = multiplications(net, layer, size)
    passes, iterations = [0.0] * len(known), [0] * len(known)
    with arrays.using(features.device):
        while isinstance(known, Box) and known.exact and noise <= STEP_OVER_NOISE and steps_over(net, layer, size):
            share = 2 * work[layer] / sum(work.values())
            steps = int(STEP_OVER_SHARE * budget / share)
            if steps < 1:
                break
            target, counts = step_over(net, layer, size, known.upper, tolerance=0.01 * tolerance, iterations=steps)
            known = Box(target, target)
            passes = [spent + share * count for spent, count in zip(passes, counts, strict=True)]
            iterations = [each + count for each, count in zip(iterations, counts, strict=True)]
            layer = net.chain(layer)[-2].name
        # A forward pass of what is left, in forward passes of the layer that was asked for.
        unit = sum(multiplications(net, layer, size).values()) / sum(work.values())
        allowed = (budget - max(passes, default=0.0)) / unit
        report = None
        if watch is not None:
            spent = max(passes, default=0.0)

            def report(done: float, images: torch.Tensor) -> None:
                watch(spent + unit * done, images)

        found = invert_known(net, known, layer, size, tolerance=tolerance, budget=allowed, noise=noise, watch=report)
    return replace(
        found,
        iterations=[before + after for before, after in zip(iterations, found.iterations, strict=True)],
        forward_passes=[before + unit * after for before, after in zip(passes, found.forward_passes, strict=True)],
        prepare_passes=unit * found.prepare_passes,
    )


def invert_known(
    net: Network,
    known: Known,
    layer: str,
    size: Size,
    *,
    tolerance: float = TOLERANCE,
    budget: float = BUDGET,
    noise: float = 0.0,
    start: torch.Tensor | None = None,
    watch: Watch | None = None,
) -> Inverted:
    """Images, N x 3 x H x W, from what is known of a layer's linear responses, or of what a pooling gives.

    Arguments as of ``invert_map``, whose last two stages this is; they begin at ``start``, or at the prior's mean.
    """
    began = time.perf_counter()
    problem = _Problem(net, layer, size, known, noise)
    seconds = time.perf_counter() - began
    found = problem.solve(tolerance, budget, start, watch)
    return Inverted(found.images, found.status, found.iterations, found.passes, seconds, problem.prepare_passes)


def _known(features: torch.Tensor, last: Layer, noise: float) -> Known:
    """What a layer's features say of its responses, where noise has this share of the features' norm.

    Noise moves many of a ReLU's zeros above 0. What is within ``SURE`` of its deviations is taken for a zero, which
    says that the response is not above 0: taken for the response it would mislead.
    """
    if is_invertible(last.activation, last.slope):
        responses = linear_responses(features, last.activation, last.slope)
        return Box(responses, responses)
    rectified = features.clamp_min(0)
    if last.activation == "avr":
        return _Modulus(rectified)
    if noise:
        deviation = noise * features.flatten(1).square().mean(dim=1).sqrt().view(-1, 1, 1, 1)
        rectified = torch.where(rectified > SURE * deviation, rectified, 0)
    lower = torch.where(rectified > 0, rectified, -torch.inf)
    if last.activation == "relu6":
        rectified = torch.where(rectified < 6, rectified, torch.inf)
        lower = lower.clamp_max(6)
    return Box(lower, rectified)


def _open(state: _Images) -> list[int]:
    """The images that are not done."""
    return [image for image, status in enumerate(state.status) if status == "budget"]


class _Chain(Protocol):
    """What a solve asks of ``autodiff.chain_of``; ``at`` is what its ``linearise`` has given."""

    layers: tuple[Layer, ...]
    grid: Size

    @property
    def filters(self) -> int: ...

    def linearise(self, images: torch.Tensor) -> Any: ...

    def product(self, at: Any, images: torch.Tensor) -> torch.Tensor: ...

    def transposed(self, at: Any, responses: torch.Tensor) -> torch.Tensor: ...


class _Field:
    """J of fields on the prior's torus, for the solver: the same J for every image of the batch."""

    def __init__(self, problem: _Problem, at: Any) -> None:
        self.problem, self.at = problem, at

    def apply(self, inputs: arrays.Array, /) -> arrays.Array:
        prior, chain = self.problem.prior, self.problem.chain
        return arrays.from_torch(chain.product(self.at, prior.crop(arrays.to_torch(inputs))).contiguous())

    def adjoint(self, responses: arrays.Array, /) -> arrays.Array:
        prior, chain = self.problem.prior, self.problem.chain
        return arrays.from_torch(prior.extend(chain.transposed(self.at, arrays.to_torch(responses))).contiguous())


class _Problem:
    """Images of whose responses at a layer something is known: prepared, then solved."""

    def __init__(self, net: Network, layer: str, size: Size, known: Known, noise: float) -> None:
        self.net, self.layer = net, layer
        self.known, self.noise = known, noise
        module = isinstance(net, TorchNetwork)
        self.chain: _Chain = chain_of(net, layer, size)
        self.step = 1 if module else net.layers[0].stride
        self.prior = Prior(size, len(net.architecture.mean), step=self.step, device=net.mean.device)
        self.scale = known.norm()
        self.scale = torch.where(self.scale > 0, self.scale, 1)
        # Mean squared response, of which the noise is a share.
        numbers = self.chain.filters * self.chain.grid[0] * self.chain.grid[1]
        self.power = (self.scale.square() / numbers).view(-1, 1, 1, 1)
        # Every convolution below is one, by its activation, and a max-pooling is one itself; in a module nobody knows.
        *below, last = (each.kind for each in self.chain.layers)
        bends = SHALLOW + 1 if module else sum(kind != "avg_pool" for kind in below) + (last == "max_pool")
        self.linear = bends == 0 and isinstance(known, Box) and known.exact
        self.shallow = bends <= SHALLOW
        self.multiplications = sum(multiplications(net, layer, size).values())
        self.prepare_passes = 0.0
        self.lags: torch.Tensor | None = None
        if not self.linear:
            self.lags, cost = response_covariance(net, layer)
            self.prepare_passes += cost
            self.typical = float(self.lags[len(self.lags) // 2, len(self.lags) // 2].diagonal().mean())
            self.spectrum = spectrum(self.lags, self.chain.grid)
            self.prepare_passes += 2 * self._inversion(self.spectrum)
        if self.shallow:
            gram, cost = (exact_image_gram(net, layer), 0.0) if self.linear else image_gram(net, layer)
            self.prepare_passes += cost
            self.precondition = self._preconditioner(gram)

    def _preconditioner(self, gram: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        _, height, width = self.prior.shape
        matrices = spectrum(gram, (height // self.step, width // self.step))
        typical = float(gram[len(gram) // 2, len(gram) // 2].diagonal().mean())
        responses = self.chain.filters * self.chain.grid[0] * self.chain.grid[1]
        numbers = self.prior.shape[0] * self.prior.size[0] * self.prior.size[1]
        shift = SHIFT_LINEAR if self.linear else SHIFT_OVER if responses >= numbers else SHIFT_UNDER
        self.prepare_passes += self._inversion(matrices)
        self.norm = float(torch.linalg.eigvalsh(matrices).max()) ** 0.5 if self.linear else 1.0
        solve = inverse(matrices + shift * typical * self.prior.precision(self.step), FLOOR * typical)

        step = self.step  # not self: a cycle would keep each batch until Python's collector comes by

        def precondition(field: torch.Tensor) -> torch.Tensor:
            return unpolyphase(solve(polyphase(field, step)), step)

        return precondition

    def _inversion(self, matrices: torch.Tensor) -> float:
        """Forward passes that inverting these costs: some n^3 complex multiplications, of four real ones, a matrix."""
        return 4.0 * matrices.shape[0] * matrices.shape[1] * matrices.shape[2] ** 3 / self.multiplications

    def solve(self, tolerance: float, budget: float, start: torch.Tensor | None, watch: Watch | None) -> _Images:
        count = len(self.known)
        white = self.prior.mean.new_zeros(count, *self.prior.shape)
        if start is not None:
            white = self.prior.whiten(self.prior.fill(self.prior.extend(start - self.prior.mean), self.prior.size))
        state = _Images(self.prior.image(white), ["budget"] * count, [0] * count, [0.0] * count)
        if not count:
            return state
        if not self.linear:
            white = self._search(white, state, tolerance, SEARCH * budget if self.shallow else budget, watch)
        field = self.prior.field(white)
        if self.linear and not self.noise:
            field = self._one_solve(field, state, tolerance, budget, watch)
        elif self.shallow:
            field = self._gauss_newton(field, state, tolerance, budget, watch)
        size = self.prior.size
        if self.shallow and (seen := self.net.architecture.covered_size(size, self.layer)) != size:
            # Least squares leaves alone what no window sees; the prior does not.
            state.images = self.prior.mean + self.prior.crop(self.prior.fill(field, seen))
        return state

    def _one_solve(
        self, field: torch.Tensor, state: _Images, tolerance: float, budget: float, watch: Watch | None
    ) -> torch.Tensor:
        """A first layer: one linear problem."""
        at = self.chain.linearise(self.prior.mean.expand(1, *self.prior.shape[:1], *self.prior.size))
        operator = _Field(self, at)
        right, _ = self.known.residual(at.responses)
        found = cgls(
            operator,
            arrays.from_torch(right),
            norm=self.norm,
            precondition=lambda values: arrays.from_torch(self.precondition(arrays.to_torch(values))),
            tolerance=tolerance,
            iterations=max(0, int((budget - 1) // 2)),
        )
        field = field + arrays.to_torch(found.value)
        state.images = self.prior.mean + self.prior.crop(field)
        state.status, state.iterations = found.status, found.iterations
        state.passes = [2.0 * count + 1 for count in found.iterations]
        if watch is not None:
            watch(max(state.passes), state.images)
        return field

    def _search(
        self, white: torch.Tensor, state: _Images, tolerance: float, budget: float, watch: Watch | None
    ) -> torch.Tensor:
        """L-BFGS in w: coarse, then fine."""
        total = int(budget // EVALUATION)
        coarse = min(COARSE_EVALUATIONS, total // 2)
        shown = state.images.clone()
        fine = FINE if self.shallow or self.chain.layers[-1].kind != "max_pool" else FINE_POOLED
        for e, evaluations in ((COARSE, coarse), (fine, total - coarse)):
            live = torch.tensor(_open(state), dtype=torch.long, device=white.device)
            if not len(live) or evaluations < 1:
                continue
            variance = self.noise**2 * self.typical
            weigh = inverse(self.spectrum, e * self.typical + variance)
            done = max(state.passes)
            count = 0

            def evaluate(
                points: torch.Tensor,
                images: torch.Tensor,
                live: torch.Tensor = live,
                weigh: Callable[[torch.Tensor], torch.Tensor] = weigh,
                done: float = done,
            ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
                nonlocal count
                chosen = live[images]
                pictures = self.prior.image(points)
                at = self.chain.linearise(pictures)
                residual, active = self.known[chosen].residual(at.responses)
                weighted = weigh(residual)
                ridge = PRIOR_WEIGHT + self.noise**2 * self.power[chosen] / self.typical
                value = 0.5 * (residual * weighted).flatten(1).sum(1)
                value = value + 0.5 * (ridge * points.square()).flatten(1).sum(1)
                pulled = weighted if active is None else weighted * active
                field = self.prior.extend(self.chain.transposed(at, pulled))
                gradient = ridge * points - self.prior.field_adjoint(field)
                misfit = residual.flatten(1).norm(dim=1) / self.scale[chosen]
                count += 1
                if watch is not None:
                    shown[chosen] = pictures
                    watch(done + EVALUATION * count, shown)
                return value, gradient, misfit <= tolerance

            found = lbfgs(evaluate, white[live], evaluations=evaluations)
            white = white.index_copy(0, live, found.point)
            for place, image in enumerate(live.tolist()):
                state.iterations[image] += found.evaluations[place]
                state.passes[image] += EVALUATION * found.evaluations[place]
                if found.status[place] == "converged":
                    state.status[image] = "converged"
        state.images = self.prior.image(white)
        return white

    def _gauss_newton(
        self, field: torch.Tensor, state: _Images, tolerance: float, budget: float, watch: Watch | None
    ) -> torch.Tensor:
        """Gauss-Newton on the image, the rounds of conjugate gradients growing; the fields, and changes ``state``."""
        live = torch.tensor(_open(state), dtype=torch.long, device=field.device)
        fields, field = field.clone(), field[live]
        used = max((state.passes[image] for image in live.tolist()), default=0.0) + 1
        at = self.chain.linearise(self.prior.mean + self.prior.crop(field))
        # A linear problem is one solve.
        inner = budget if self.linear else float(INNER)
        while len(live):
            residual, active = self.known[live].residual(at.responses)
            misfit = residual.flatten(1).norm(dim=1) / self.scale[live]
            fitted = misfit <= tolerance
            self._record(state, live, field, used)
            fields[live] = field
            for image in live[fitted].tolist():
                state.status[image] = "converged"
            if watch is not None:
                watch(used, state.images)
            steps = min(round(inner), int((budget - used - 1) // 2))
            if steps < 1:
                break
            keep = ~fitted
            live, field, at, residual = live[keep], field[keep], at[keep], residual[keep]
            ridge = self._ridge(live, misfit[keep])
            active = None if active is None else active[keep]
            if not len(live):
                break
            change = self._step(ridge, field, at, residual, active, steps)
            used += 2 * steps
            before, known = self._objective(residual, ridge, field), self.known[live]
            length = torch.ones(len(live), 1, 1, 1, device=field.device)
            for _ in range(HALVINGS + 1):
                trial = field + length * change
                reached = self.chain.linearise(self.prior.mean + self.prior.crop(trial))
                used += 1
                good = self._objective(known.residual(reached.responses)[0], ridge, trial) <= before
                if good.all() or used + 1 > budget:
                    break
                length = torch.where(good.view(-1, 1, 1, 1), length, length / 2)
            for image in live.tolist():
                state.iterations[image] += steps
                state.passes[image] = used
            if used + 1 <= budget:
                for image in live[~good].tolist():
                    state.status[image] = "stagnated"
            live, field, at = live[good], trial[good], reached[good]
            inner *= GROWTH
        return fields

    def _step(
        self,
        ridge: torch.Tensor | None,
        field: torch.Tensor,
        at: Any,
        residual: torch.Tensor,
        active: torch.Tensor | None,
        steps: int,
    ) -> torch.Tensor:
        """The Gauss-Newton step, by this many conjugate-gradient iterations."""

        def pull(responses: torch.Tensor) -> torch.Tensor:
            return self.prior.extend(self.chain.transposed(at, responses if active is None else responses * active))

        def normal(values: torch.Tensor) -> torch.Tensor:
            curved = pull(self.chain.product(at, self.prior.crop(values)))
            if ridge is not None:
                curved = curved + ridge * self.prior.whiten_adjoint(self.prior.whiten(values))
            return curved

        right = pull(residual)
        if ridge is not None:
            right = right - ridge * self.prior.whiten_adjoint(self.prior.whiten(field))
        return conjugate_gradients(normal, right, self.precondition, steps)

    def _ridge(self, live: torch.Tensor, misfit: torch.Tensor) -> torch.Tensor | None:
        """Of |w|^2. Signs that are still wrong disturb the linear problem as noise of the residual's size would."""
        if self.linear and not self.noise:
            return None
        level = torch.full_like(misfit, self.noise) if self.linear else misfit.clamp_min(self.noise)
        return NOISE_WEIGHT * level.square().view(-1, 1, 1, 1) * self.power[live]

    def _objective(self, residual: torch.Tensor, ridge: torch.Tensor | None, field: torch.Tensor) -> torch.Tensor:
        value = residual.square().flatten(1).sum(1)
        if ridge is not None:
            value = value + (ridge * self.prior.whiten(field).square()).flatten(1).sum(1)
        return value

    def _record(self, state: _Images, live: torch.Tensor, field: torch.Tensor, used: float) -> None:
        state.images[live] = self.prior.mean + self.prior.crop(field)
        for image in live.tolist():
            state.passes[image] = used
