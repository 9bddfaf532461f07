"""What CReLU costs: parameters, neurons, and Rademacher complexity (Shang et al. 2016, Theorem 4.1).

The empirical Rademacher complexity of a class on points x_1 ... x_n is ``R(F) = E sup_f |sum_i e_i f(x_i)| / n`` over
random signs e; some write 2 / n, which changes no ratio. Theorem 4.1: a linear map of norm at most B on the rectified
values of d functions out of F, both phases of each under CReLU, has at most ``sqrt(d) B R(F)``, as under ReLU, although
CReLU gives it twice the weights. The paper draws from it that complexity "does not necessarily increase". Its main text
does not define the complexity, and the proof, in its supplement, was not seen. Without the absolute value nothing like
the theorem holds: of a class of one function ``E sup_f sum_i e_i f(x_i)`` is 0, and the linear maps on it have more.

``estimate`` takes F so small that the supremum is exact: linear functions of norm 1 on the plane. With S = sum e f and
T = sum e |f|, the sums over the two phases are (S + T) / 2 and (T - S) / 2. So the class has sqrt(d) B / n times the
expected supremum of |S + T| / 2 under ReLU, of sqrt((S^2 + T^2) / 2) under CReLU, of |T| under AVR.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy

from reconstruct.errors import CallError
from reconstruct.network.activations import phases
from reconstruct.network.architecture import Architecture
from reconstruct.network.network import Network

ENUMERATED = 12
"""Points up to which every one of the 2^n sign vectors is taken."""

PROVED = {"relu": 1.5, "crelu": 3 / math.sqrt(2), "avr": 2.0}
"""Bounds that hold for every F, symmetric or not, in units of sqrt(d) B R(F).

Contraction (Ledoux and Talagrand 1991, Theorem 4.12) gives E sup |T| <= 2 E sup |S| for any class, since the modulus is
a contraction that is 0 at 0. Then |S + T| / 2 <= (|S| + |T|) / 2 and sqrt((S^2 + T^2) / 2) <= (|S| + |T|) / sqrt(2).
"""


@dataclass(frozen=True)
class Estimate:
    """Complexity of the rectified class beside Theorem 4.1's bound; both for sqrt(d) B = 1, to which both are linear.

    Attributes
    ----------
    activation : ``relu``, ``crelu`` or ``avr``.
    points : n.
    value : E sup / n over the signs drawn, or over all of them.
    standard_error : of ``value``; 0 where all signs were taken.
    bound : R(F) on the same signs.
    ratio : value / bound; above 1 the theorem's bound does not hold.
    ratio_error : the standard error of ``ratio``.
    proved : the ratio that cannot be exceeded (``PROVED``).
    """

    activation: str
    points: int
    value: float
    standard_error: float
    bound: float
    ratio: float
    ratio_error: float
    proved: float

    def record(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return dict(vars(self))


def estimate(points: numpy.ndarray, draws: int = 2000, seed: int = 0) -> list[Estimate]:
    """The complexities of the rectified class on points of the plane, under ReLU, CReLU and AVR.

    Parameters
    ----------
    points : n x 2.
    draws : how many sign vectors are drawn; up to ``ENUMERATED`` points all there are are taken.
    seed : of the draws.

    Raises
    ------
    CallError : points of another shape, not finite, or all 0.
    """
    points = numpy.asarray(points, dtype=numpy.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not numpy.isfinite(points).all() or not points.any():
        raise CallError(f"points of the plane are n x 2, finite and not all 0; these are {points.shape}")
    count = len(points)
    exact = count <= ENUMERATED
    if exact:
        signs = numpy.array(list(product((1.0, -1.0), repeat=count)))
    else:
        signs = numpy.random.default_rng(seed).choice((1.0, -1.0), size=(draws, count))
    linear = numpy.linalg.norm(signs @ points, axis=1) / count
    found = []
    for activation, suprema in _suprema(points, signs).items():
        value, bound = float(suprema.mean()) / count, float(linear.mean())
        # The ratio of two means over the same draws, to first order.
        spread = float((suprema / count - value / bound * linear).std(ddof=1)) / math.sqrt(len(signs)) / bound
        error = float(suprema.std(ddof=1)) / count / math.sqrt(len(signs))
        found.append(
            Estimate(
                activation, count, value, 0.0 if exact else error, bound, value / bound,
                0.0 if exact else spread, PROVED[activation],
            )
        )  # fmt: skip
    return found


def sample_estimates(draws: int = 2000, seed: int = 0) -> tuple[list[Estimate], list[Estimate]]:
    """Estimates on samples of 2 to 256 normal points of the plane, and on the points 1 and -1 of a line.

    On those two the class of CReLU takes any two values of norm B, whose supremum against signs is sqrt(2) B for all of
    them, and linear functions w, -w with |w| at most 1, whose supremum is 2 or 0: sqrt(2) times the theorem's bound.

    Parameters
    ----------
    draws, seed : as in ``estimate``.

    Returns
    -------
    The estimates on the samples, from the smallest to the largest, and those on the two points.
    """
    random = numpy.random.default_rng(seed)
    sizes = [2**power for power in range(1, 9)]
    found = [each for size in sizes for each in estimate(random.standard_normal((size, 2)), draws, seed)]
    return found, estimate(numpy.array([[1.0, 0.0], [-1.0, 0.0]]))


def _suprema(points: numpy.ndarray, signs: numpy.ndarray) -> dict[str, numpy.ndarray]:
    """For each sign vector the supremum over directions w of what each activation's class has of it; exact.

    Where w turns past a right angle to a point, that point changes phase. Between two such angles the phases' sums are
    linear in w, <w, a> and <w, b>, and each supremum is that of a quadratic form.
    """
    angles = numpy.arctan2(points[:, 1], points[:, 0])
    turns = numpy.sort(numpy.concatenate((angles + numpy.pi / 2, angles - numpy.pi / 2)) % (2 * numpy.pi))
    begins, ends = turns, numpy.concatenate((turns[1:], [turns[0] + 2 * numpy.pi]))
    middles = (begins + ends) / 2
    within = numpy.stack((numpy.cos(middles), numpy.sin(middles)))
    active = (points @ within > 0).astype(numpy.float64)  # n x arcs
    a = numpy.stack([(signs * points[:, axis]) @ active for axis in (0, 1)])
    b = -numpy.stack([(signs * points[:, axis]) @ (1 - active) for axis in (0, 1)])
    return {
        "relu": _largest(a[None], begins, ends),
        "crelu": _largest(numpy.stack((a, b)), begins, ends),
        "avr": _largest((a + b)[None], begins, ends),
    }


def _largest(vectors: numpy.ndarray, begins: numpy.ndarray, ends: numpy.ndarray) -> numpy.ndarray:
    """sqrt(max sum_k <w, v_k>^2) over all arcs: vectors k x 2 x draws x arcs, w = (cos t, sin t), t in each arc.

    The sum is m + r cos(2 t - phi), largest at t = phi / 2 modulo pi where that lies in the arc, else at an end of it.
    """
    x, y = vectors[:, 0], vectors[:, 1]
    mean = (x**2 + y**2).sum(0) / 2
    cosine, sine = (x**2 - y**2).sum(0) / 2, (x * y).sum(0)
    radius, peak = numpy.hypot(cosine, sine), numpy.arctan2(sine, cosine) / 2
    inside = (peak - begins) % numpy.pi <= ends - begins
    at_ends = numpy.maximum(*(cosine * numpy.cos(2 * each) + sine * numpy.sin(2 * each) for each in (begins, ends)))
    squares = mean + numpy.where(inside, radius, at_ends)
    return numpy.sqrt(squares.max(axis=1).clip(min=0.0))


@dataclass(frozen=True)
class LayerComplexity:
    """A layer's size, and by how much what is built on it may multiply complexity.

    Attributes
    ----------
    layer, activation : its name; its activation.
    parameters : how many, without biases.
    responses : linear responses to one image of the model's own size.
    neurons : features of that image: as many, or under CReLU twice as many.
    inputs : d, the responses that one unit of the next convolution sees; None at the last.
    factor : sqrt(d) B of Theorem 4.1, B the largest norm of such a unit's weights; None without weights.
    """

    layer: str
    activation: str
    parameters: int
    responses: int
    neurons: int
    inputs: int | None
    factor: float | None

    def record(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return dict(vars(self))


def layer_complexity(architecture: Architecture, net: Network | None = None) -> list[LayerComplexity]:
    """The size of every convolution of a model, and with its network also the factor of the theorem.

    Parameters
    ----------
    net : the same model with weights; None leaves the factors out.
    """
    sizes = architecture.response_sizes((architecture.input_size, architecture.input_size))
    layers = [layer for layer in architecture.layers if layer.has_weights]
    found = []
    for layer, upper in zip(layers, (*layers[1:], None), strict=True):
        height, width = sizes[layer.name]
        inputs = factor = None
        # Of phases that lie in several groups a filter sees one or the other, and the theorem is of both.
        if upper is not None and (upper.groups == 1 or phases(layer.activation) == 1):
            inputs = layer.filters // upper.groups * upper.kernel**2
            if net is not None and upper.name in net.layer_names:
                norms = net.convolution(upper.name).weight.detach().flatten(1).double().norm(dim=1)
                factor = math.sqrt(inputs) * float(norms.max())
        found.append(
            LayerComplexity(
                layer.name, layer.activation, architecture.parameters(layer.name), layer.filters * height * width,
                layer.channels * height * width, inputs, factor,
            )
        )  # fmt: skip
    return found
