import math
from itertools import product

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from reconstruct import CallError, load_model
from reconstruct.analysis.crelu.complexity import PROVED, estimate, layer_complexity, sample_estimates
from reconstruct.zoo.specification import read_architecture

ANGLES = 20_000


def brute_force(points: numpy.ndarray) -> dict[str, float]:
    """Every sign vector, and directions on a grid: never too large, too small by the grid's step at most."""
    turn = numpy.linspace(0, 2 * numpy.pi, ANGLES, endpoint=False)
    responses = points @ numpy.stack((numpy.cos(turn), numpy.sin(turn)))
    signs = numpy.array(list(product((1.0, -1.0), repeat=len(points))))
    positive, negative = signs @ numpy.maximum(responses, 0), signs @ numpy.maximum(-responses, 0)
    values = {"relu": abs(positive), "crelu": numpy.hypot(positive, negative), "avr": abs(positive + negative)}
    return {name: float(each.max(axis=1).mean()) / len(points) for name, each in values.items()}


@pytest.mark.parametrize("count", [1, 2, 5, 7])
def test_suprema_are_exact(count: int) -> None:
    """The norm of a linear map of w, of norm at most sum |x|, changes by that times half a step at most."""
    points = numpy.random.default_rng(count).standard_normal((count, 2))
    least = brute_force(points)
    step = numpy.linalg.norm(points, axis=1).sum() / count * math.pi / ANGLES
    for each in estimate(points):
        assert each.standard_error == 0
        assert least[each.activation] - 1e-12 <= each.value <= least[each.activation] + math.sqrt(2) * step


def test_the_linear_class() -> None:
    """R(F) of two points x, y: half the mean of |x + y| and |x - y|."""
    x, y = numpy.array([3.0, 1.0]), numpy.array([-1.0, 2.0])
    expected = (numpy.linalg.norm(x + y) + numpy.linalg.norm(x - y)) / 4
    assert estimate(numpy.stack((x, y)))[0].bound == pytest.approx(expected, rel=1e-14)


def test_two_points_exceed_the_bound() -> None:
    """On 1 and -1 of a line, CReLU's class has sqrt(2) times the bound of Theorem 4.1 as it is stated."""
    _, example = sample_estimates(draws=10)
    values = {each.activation: each for each in example}
    assert values["crelu"].value == pytest.approx(math.sqrt(2) / 2, rel=1e-14)
    assert values["crelu"].bound == pytest.approx(0.5, rel=1e-14)
    assert values["relu"].ratio == pytest.approx(1, rel=1e-14)


@given(
    arrays(numpy.float64, st.tuples(st.integers(1, 7), st.just(2)), elements=st.integers(-8, 8).map(float)).filter(
        numpy.any
    )
)
def test_what_is_proved_holds(points: numpy.ndarray) -> None:
    """For any points, with repeated and vanishing ones, every sign vector being counted."""
    for each in estimate(points):
        assert each.ratio <= PROVED[each.activation] * (1 + 1e-12)


@given(arrays(numpy.float64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.integers(-8, 8).map(float)))
def test_what_is_proved_needs_no_symmetry(values: numpy.ndarray) -> None:
    """Any finite class, a row a function: without 0, and without the opposites of its functions."""
    signs = numpy.array(list(product((1.0, -1.0), repeat=values.shape[1])))
    plain, moduli = signs @ values.T, signs @ abs(values).T
    suprema = {
        "relu": abs(plain + moduli) / 2, "crelu": numpy.sqrt((plain**2 + moduli**2) / 2), "avr": abs(moduli)
    }  # fmt: skip
    bound = abs(plain).max(axis=1).mean()
    for activation, each in suprema.items():
        assert each.max(axis=1).mean() <= PROVED[activation] * bound * (1 + 1e-12)


def test_without_absolute_values_no_factor_is_enough() -> None:
    """A class of one function: its complexity is 0 then, and that of linear maps on its phases is not."""
    values = numpy.array([2.0, -1.0, 3.0])
    signs = numpy.array(list(product((1.0, -1.0), repeat=3)))
    assert (signs @ values).mean() == 0
    positive, negative = signs @ numpy.maximum(values, 0), signs @ numpy.maximum(-values, 0)
    assert numpy.hypot(positive, negative).mean() > 1


def test_drawn_signs_agree_with_all_of_them() -> None:
    """The sign of a point that is 0 does not matter: all signs of 12 points, beside drawn signs of these and a 0."""
    points = numpy.random.default_rng(0).standard_normal((12, 2))
    exact = estimate(points)
    drawn = estimate(numpy.concatenate((points, numpy.zeros((1, 2)))), draws=4000)
    for all_signs, some in zip(exact, drawn, strict=True):
        assert some.standard_error > 0
        # Means are over 12 and 13 points. Five standard errors: one in two million draws fails.
        assert abs(some.value * 13 / 12 - all_signs.value) < 5 * some.standard_error * 13 / 12
        assert abs(some.ratio - all_signs.ratio) < 5 * some.ratio_error


def test_points_that_are_none() -> None:
    for points in (numpy.zeros((3, 2)), numpy.ones((3, 3)), numpy.array([[1.0, math.nan]])):
        with pytest.raises(CallError, match="points of the plane"):
            estimate(points)


def test_crelu_doubles_neurons_and_what_the_next_layer_weighs() -> None:
    """CReLU at conv1 to conv4: twice the ReLU base's neurons of as many responses, and twice the weights above them."""
    crelu, relu = (layer_complexity(read_architecture(name)) for name in ("crelu_conv1_4", "all_cnn_b"))
    for below, (one, other) in enumerate(zip(crelu, relu, strict=True)):
        assert one.responses == other.responses
        assert one.neurons == (2 if below < 4 else 1) * other.neurons
        assert one.parameters == (2 if 1 <= below <= 4 else 1) * other.parameters
        assert one.factor is None
    assert sum(each.parameters for each in relu) == read_architecture("all_cnn_b").parameters()


def test_the_factor_of_a_layer() -> None:
    net = load_model("convpool_cnn_c_crelu")
    found = {each.layer: each for each in layer_complexity(net.architecture, net)}
    weight = net.convolution("conv2").weight
    norm = max(float(row.double().square().sum().sqrt()) for row in weight.detach())
    assert found["conv1"].inputs == weight[0].numel() // 2
    assert found["conv1"].factor == pytest.approx(math.sqrt(weight[0].numel() / 2) * norm)
