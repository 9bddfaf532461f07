"""Method ``linear``: the learning-free algorithm of Shang et al. 2016 (Proposition 2.1, Algorithm 1).

By default each layer is damped, which is ours; a damping of 0 is theirs.

Layer by layer from the top: subtract the bias, apply the pseudoinverse of the convolution, take the difference of the
two CReLU phases, go on with the layer before, down to the image. Three forms of the pseudoinverse:

``global``
    of the whole layer as one operator, borders included: the least-squares solution of minimum norm, or damped.
    By conjugate gradients with the layer's symbol as preconditioner.
``patch``
    of the K x (C kh kw) filter matrix: every response vector becomes a patch, and overlapping patches are
    averaged. One small matrix, and wrong wherever neighbouring patches should constrain each other.
``direct``
    as ``global``, but the layer next to the image is factorised once a size (``solvers.direct``) and conjugate
    gradients go on from what that gives: for many images, since the factor takes as long as some tens of them.

An average pooling on the way is a layer like the others, a convolution of each channel by itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypedDict, get_args

import torch

from reconstruct.errors import CallError
from reconstruct.inversion.result import Inverted
from reconstruct.network.activations import linear_responses
from reconstruct.network.architecture import Layer, Size
from reconstruct.network.kept import kept_or_made
from reconstruct.network.network import Network
from reconstruct.operators import arrays
from reconstruct.operators.convolution import Convolution, convolution_of, upper_bound
from reconstruct.operators.pooling import AvgPool
from reconstruct.prior.gaussian import Prior
from reconstruct.solvers import direct
from reconstruct.solvers.least_squares import Solution, cgls, cgne, relative_norms

if TYPE_CHECKING:
    from reconstruct.operators.arrays import Array

Form = Literal["global", "patch", "direct"]
Damping = float | Mapping[str, float] | Literal["auto"]
"""Tikhonov damping of each layer's least squares, in units of the layer's largest squared singular value (upper
frame bound): one number for all layers, one a layer, or ``auto``."""

DAMPING = 0.1
# The layer next to the image is solved more closely than those above it, whose features lose far more to what the
# next layers down cannot see: at conv4, 1e-4 instead of 1e-3 doubles the work and gains 0.1 dB.
IMAGE_TOLERANCE = 1e-4
FEATURE_TOLERANCE = 1e-3
BUDGET = 300.0

# The preconditioner is (M^H M + shift R)^-1, shift in units of the upper frame bound. Smaller shifts invert more of
# the spectrum but fit the torus where the layer has borders, whose jump then bleeds into the image; on the way to
# features that costs nothing. R is the identity, or for an ill-conditioned layer next to the image the inverse
# covariance of natural images (its mean diagonal 1): small for what images are made of, large for what they hardly
# have. docs/linear.md has the measurement.
IMAGE_SHIFT = 0.03
ROUGH_SHIFT = 0.06
FEATURE_SHIFT = 0.003
UNEVEN = 1e-4
"""Smallest by largest eigenvalue below which a layer is ill-conditioned."""
EXPONENT = 1.0
"""Of the images' amplitude spectrum, for the preconditioner."""
FLOOR = 1e-3
"""Of R, as a multiple of the identity: keeps the sum invertible in single precision."""
DIRECT_SHIFT = 3e-7
"""Of R in the direct solve, in units of the upper frame bound. What it gives has a residual of at most 1e-4, which is
``IMAGE_TOLERANCE``, on 46 photographs of 131 x 131 pixels, and 54.4 dB; at 1e-6 five of them are above it."""

# float32 follows float64 to 0.05 dB over 300 iterations of a trained conv1 and takes a third of the time, but its
# residuals stop falling near 1e-6 of the responses.
FLOAT64_BELOW = 1e-5


def invert_linear(
    net: Network,
    features: torch.Tensor,
    layer: str,
    size: Size,
    *,
    linear_form: Form = "global",
    damping: Damping = "auto",
    tolerance: float | None = None,
    budget: float | None = None,
) -> Inverted:
    """Images, N x 3 x H x W, from features of a layer by Algorithm 1, or by the same damped.

    Parameters
    ----------
    features : valid features of ``layer``; its activation and those below must be invertible (CReLU).
    size : height and width of the image.
    damping : see ``Damping``. ``auto`` takes the values that the model's specification records for this layer;
        where it records none, ``layer`` is not damped, its responses being exact, and those below by ``DAMPING``. 0
        is the paper's Algorithm 1.
    tolerance : relative residual at which a layer's solve stops (see ``least_squares.cgls``); default 1e-4 for the
        layer next to the image, 1e-3 for those above.
    budget : work in forward passes through all layers up to ``layer``; default 300. Each layer's solve is
        given budget / 2 iterations, of 2 passes each through that layer.
    """
    chain = net.up_to(layer)
    factors = damping_factors(net, layer, damping)
    tolerances = dict.fromkeys(factors, FEATURE_TOLERANCE if tolerance is None else tolerance)
    tolerances[chain[0].name] = IMAGE_TOLERANCE if tolerance is None else tolerance
    iterations = max(1, int((BUDGET if budget is None else budget) / 2))
    dtype = torch.float64 if min(tolerances.values()) < FLOAT64_BELOW else torch.float32

    began = time.perf_counter()
    sizes = net.shapes(size, layer)
    inputs = [size, *(sizes[each.name] for each in chain[:-1])]
    with arrays.using(features.device):
        inverses = [
            _prepared(net, each.name, area, linear_form, factors[each.name], dtype)
            for each, area in zip(chain, inputs, strict=True)
        ]
        prepare_seconds = time.perf_counter() - began
        total = sum(net.multiplications(layer, size).values())
        values = features.to(dtype)
        status, counts, passes = ["converged"] * len(values), [0] * len(values), [0.0] * len(values)
        for each, (inverse, _) in zip(reversed(chain), reversed(inverses), strict=True):
            responses = linear_responses(values, each.activation, each.slope)
            bias = net.convolution(each.name).bias if each.has_weights else None
            if bias is not None:
                responses = responses - bias.detach().to(dtype).view(1, -1, 1, 1)
            # A pooling's channels are solved for as if each were an image.
            channels = 1 if each.has_weights else each.channels
            given = responses if each.has_weights else responses.flatten(0, 1).unsqueeze(1)
            solved = inverse.solve(arrays.array_of(given), tolerances[each.name], iterations)
            values = arrays.to_torch(solved.value)
            if not each.has_weights:
                values = values.squeeze(1).unflatten(0, responses.shape[:2])
            share = 2 * inverse.operator.multiplications / total
            for image in range(len(responses)):
                own = slice(image * channels, (image + 1) * channels)
                counts[image] += max(solved.iterations[own])
                passes[image] += share * sum(solved.iterations[own]) + inverse.solve_multiplications / total
                status[image] = next((how for how in solved.status[own] if how != "converged"), status[image])
    images = (values * net.std + net.mean).float()
    fresh = [inverse.prepare_multiplications / total for inverse, made in inverses if made]
    return Inverted(images, status, counts, passes, prepare_seconds, sum(fresh))


def check_options(net: Network | None, layer: str, linear_form: str, damping: Damping) -> None:
    """Refuses a form or a damping that there is not, before any method has worked; ``net`` is None for no chain."""
    if linear_form not in get_args(Form):
        raise CallError(f"linear_form is 'global', 'patch' or 'direct', not '{linear_form}'")
    if net is not None:
        damping_factors(net, layer, damping)


def damping_factors(net: Network, layer: str, damping: Damping) -> dict[str, float]:
    """The damping of each layer up to this one, by name, in units of its upper frame bound.

    Raises
    ------
    CallError : a damping is below 0, or not finite.
    """
    names = [each.name for each in net.up_to(layer)]
    if damping == "auto":
        recorded = net.architecture.damping.get(layer)
        return recorded or {name: 0.0 if name == layer else DAMPING for name in names}
    if isinstance(damping, Mapping):
        factors = {name: float(damping.get(name, 0.0)) for name in names}
    else:
        factors = dict.fromkeys(names, float(damping))
    for name, factor in factors.items():
        if not 0 <= factor < float("inf"):
            raise CallError(f"damping of {name} is {factor:g}; it must be a finite number, 0 or above")
    return factors


class _Stop(TypedDict):
    tolerance: float
    iterations: int


class LayerInverse:
    """The pseudoinverse of one layer, prepared once (symbol, preconditioner) and applied often.

    Parameters
    ----------
    damping : in units of the largest squared singular value, of the layer on a torus for ``global``, of the
        filter matrix for ``patch``.
    image : is what comes out an image, whose preconditioner knows what images are like.
    """

    def __init__(self, operator: Convolution, form: Form, damping: float, image: bool = False) -> None:
        self.operator = operator
        self.prepare_multiplications = 0.0
        self.patches: Array | None = None
        self.direct: direct.DirectInverse | None = None
        # Where windows neither overlap nor reach into padding, the layer is one small matrix at every position
        # and the two forms are the same.
        if form == "patch" or (not operator.overlaps and operator.padding == 0):
            self.patches = _patches(operator, damping)
            return
        self.side = operator.smaller_side()
        _check_memory(operator)
        gram = operator.gram(self.side, single=True)
        upper = upper_bound(gram)
        self.norm = upper**0.5
        self.damping = damping * upper
        frequencies, n = math.prod(gram.shape[:-2]), gram.shape[-1]
        # A complex inverse takes about n^3 complex multiplications, of four real ones each.
        self.prepare_multiplications = 4.0 * frequencies * n**3
        self.precondition: Callable[[Array], Array] | None = None
        evenness = self._evenness()
        if self.damping or evenness > 0:
            if image and self.side == "inputs" and operator.groups == 1 and evenness < UNEVEN:
                gram = gram + ROUGH_SHIFT * upper * _roughness(operator, operator.grid)
                inverse = operator.torus_inverse(self.side, gram, self.damping)
            else:
                shift = IMAGE_SHIFT if image else FEATURE_SHIFT
                inverse = operator.torus_inverse(self.side, gram, shift * upper + self.damping)
            seen = operator.column_energy > 0
            everywhere = bool(seen.all())
            if self.side == "responses" or everywhere:
                self.precondition = inverse
            else:
                # Pixels that no response depends on must stay at 0, their minimum-norm value.
                self.precondition = lambda values: seen * inverse(seen * values)
        if image and form == "direct":
            self._prepare_direct(upper)

    @property
    def solve_multiplications(self) -> float:
        """Of what a solve does for each image before its iterations: the direct solve, and one pass to check it."""
        return 0.0 if self.direct is None else self.direct.multiplications + self.operator.multiplications

    def _prepare_direct(self, upper: float) -> None:
        operator = self.operator
        if not direct.serves(operator):
            raise CallError(
                "the layer next to the image has no direct solve: that takes windows that overlap, no padding, one "
                "group, and at least as many responses as pixels; take the form global"
            )
        needed, there = direct.memory(operator), arrays.memory(operator.weight.device)
        if needed > 0.8 * there:
            raise CallError(
                f"an input of {operator.input_shape[1]} x {operator.input_shape[2]} needs about {needed / 1e9:.0f} GB "
                f"for its factor, and {there / 1e9:.0f} GB are there: take the form global, or a smaller image (--size)"
            )
        # float64: the inverse of a regularisation that spans eight decades comes of it.
        roughness = arrays.to_torch(_roughness(operator, direct.torus_of(operator))).to(torch.complex128)
        eye = torch.eye(roughness.shape[-1], device=roughness.device)
        self.direct = direct.DirectInverse(operator, DIRECT_SHIFT * upper * roughness + self.damping * eye)
        self.prepare_multiplications += self.direct.prepare_multiplications

    def _evenness(self) -> float:
        """Smallest by largest eigenvalue on the smaller side; 0 where A lacks rank there.

        Where it does not, preconditioning leaves the minimum-norm solution alone. Read off the symbol at a sample of
        frequencies that holds the lowest and the highest, where filters without a mean, or without detail, lose rank;
        dependent filters lose it everywhere.
        """
        operator = self.operator
        xp = arrays.namespace(operator.column_energy)
        columns = int((operator.column_energy > 0).sum())
        if self.side == "inputs":
            possible = columns <= operator.rows
        else:
            ones = xp.ones((1, *operator.input_shape), dtype=operator.column_energy.dtype)
            energy = Convolution(
                operator.weight**2,
                operator.stride,
                operator.padding,
                operator.input_shape[1:],
                groups=operator.groups,
                dilation=operator.dilation,
            )
            possible = operator.rows <= columns and bool((energy.apply(ones.astype("float64")) > 0).all())
        if not possible:
            return 0.0
        values = xp.linalg.eigvalsh(operator.gram_sample(self.side))
        lowest, highest = float(values.min()), float(values.max())
        return lowest / highest if lowest > highest * values.shape[-1] * xp.finfo(xp.float64).eps else 0.0

    def solve(self, responses: Array, tolerance: float, iterations: int) -> Solution:
        """Inputs, N x C x H x W, for responses without their bias, N x K x h x w."""
        if self.patches is not None:
            return self._overlap(responses)
        stop: _Stop = {"tolerance": tolerance, "iterations": iterations}
        if self.direct is not None:
            return self._solve_directly(self.direct, responses, stop)
        if self.precondition is None or self.side == "inputs":
            return cgls(
                self.operator, responses, norm=self.norm, damping=self.damping, precondition=self.precondition, **stop
            )
        found = cgne(self.operator, responses, damping=self.damping, precondition=self.precondition, **stop)
        if self.damping or "stagnated" not in found.status:
            return found
        # At its borders the real layer can lack the rank that its symbol has (fewer pixels in a corner's window
        # than filters), and A x = z then has no solution. What cgne found is in the range of A^T, where
        # conjugate gradients on the inputs need no preconditioner to end in the minimum norm.
        again = cgls(self.operator, responses, norm=self.norm, start=found.value, **stop)
        # The work of both counts.
        return replace(again, iterations=[a + b for a, b in zip(found.iterations, again.iterations, strict=True)])

    def _solve_directly(self, inverse: direct.DirectInverse, responses: Array, stop: _Stop) -> Solution:
        value = arrays.array_of(inverse.solve(arrays.to_torch(responses)))
        residual = relative_norms(responses - self.operator.apply(value), responses)
        found = Solution(value, ["converged"] * len(value), residual, [0] * len(value))
        # Undamped, a small residual is the end. Where none can be small, or the least squares are damped, conjugate
        # gradients say whether this is their solution, and go on where it is not.
        others = [image for image, each in enumerate(residual) if self.damping or not each <= stop["tolerance"]]
        if others:
            again = cgls(
                self.operator,
                responses[others],
                norm=self.norm,
                damping=self.damping,
                precondition=self.precondition,
                start=value[others],
                **stop,
            )
            value[others] = again.value
            for place, image in enumerate(others):
                found.status[image] = again.status[place]
                found.residual[image] = again.residual[place]
                found.iterations[image] = again.iterations[place]
        return found

    def _overlap(self, responses: Array) -> Solution:
        assert self.patches is not None
        xp = arrays.namespace(responses)
        summed = self.operator.overlap_add(responses, self.patches)
        value = summed / xp.maximum(self.operator.coverage, 1)
        return Solution(
            value,
            ["converged"] * len(value),
            relative_norms(responses - self.operator.apply(value), responses),
            [1] * len(value),
        )


def _check_memory(operator: Convolution) -> None:
    """Refuse what would end with the process killed: the symbol's Gram matrices of a very large image."""
    rows, columns = operator.frequencies
    n = min(operator.symbol_shape)
    # complex64; the Gram matrices, two shifted copies, their inverses and what the inversion works in.
    needed = 5 * 8 * rows * (columns // 2 + 1) * operator.groups * n**2
    there = arrays.memory(operator.weight.device)
    if needed > 0.8 * there:
        raise CallError(
            f"an input of {operator.input_shape[1]} x {operator.input_shape[2]} needs about {needed / 1e9:.0f} GB for "
            f"its preconditioner, and {there / 1e9:.0f} GB are there: take a smaller image (--size), or the form patch"
        )


def _roughness(operator: Convolution, grid: Size) -> Array:
    """The inverse covariance of natural images at the frequencies of half a torus: mean diagonal 1, and a floor."""
    step = operator.stride
    torus = (grid[0] * step, grid[1] * step)
    prior = Prior(
        torus, operator.input_shape[0], step=step, torus=True, exponent=EXPONENT, device=operator.weight.device
    )
    precision = prior.precision(step)
    mean = precision.diagonal(dim1=-2, dim2=-1).real.mean()
    eye = torch.eye(precision.shape[-1], device=precision.device)
    return arrays.array_of(precision / mean + FLOOR * eye)


def _patches(operator: Convolution, damping: float) -> Array:
    """Rows of the (damped) pseudoinverse of the filter matrix, as K x C x kh x kw: with groups, of each one's."""
    # float64: singular values of trained filters span four decades, their squares eight.
    filters = arrays.array_of(operator.weight.double())
    xp = arrays.namespace(filters)
    each = filters.reshape(operator.groups, len(filters) // operator.groups, -1)
    left, values, right = xp.linalg.svd(each, full_matrices=False)
    largest = values.max()
    kept = values > largest * max(each.shape[1:]) * xp.finfo(xp.float64).eps
    gains = xp.where(kept, values / xp.where(kept, values**2 + damping * largest**2, 1), 0)
    patches = ((left * gains[:, None, :]) @ right).reshape(filters.shape)
    dtype = arrays.array_of(operator.weight).dtype
    return xp.ascontiguousarray(patches, dtype=dtype)


def _prepared(
    net: Network, layer: str, size: Size, form: Form, damping: float, dtype: torch.dtype
) -> tuple[LayerInverse, bool]:
    """The inverse of a layer, and whether it had to be made."""

    def make() -> LayerInverse:
        operator = _operator(net, net.layer(layer), size, dtype)
        return LayerInverse(operator, form, damping, image=layer == net.layer_names[0])

    return kept_or_made(net, ("inverse", layer, size, form, damping, dtype), make)


def _operator(net: Network, layer: Layer, size: Size, dtype: torch.dtype) -> Convolution:
    """The operator of a convolution, or of one channel of an average pooling."""
    if not layer.has_weights:
        operator = AvgPool(layer, size, dtype=dtype, device=net.mean.device).operator
        assert isinstance(operator, Convolution)
        return operator
    weight = net.convolution(layer.name).weight
    return convolution_of(layer, weight, size, dtype)
