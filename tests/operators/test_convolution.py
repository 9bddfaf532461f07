import itertools
import math

import numpy
import pytest
import torch

from reconstruct.errors import CallError
from reconstruct.operators.convolution import Convolution, frame, upper_bound
from tests.builders.networks import dense, operator

EPS = numpy.finfo(numpy.float64).eps

# filters, channels, kernel, stride, padding, size: odd and unequal, every stride, gaps, with and without padding,
# tall and wide, a kernel that is not square, few channels (polyphase) and many (direct).
LAYERS = [
    (filters, channels, kernel, stride, padding, size)
    for (filters, channels), (kernel, padding), stride, size in itertools.product(
        [(7, 2), (3, 5)], [((3, 3), 0), ((3, 3), 1), ((5, 4), 2), ((1, 1), 0), ((2, 3), 0)], [1, 2, 3, 4], [(11, 8)]
    )
]


@pytest.mark.parametrize("layer", LAYERS)
def test_apply_is_torch_and_adjoint_is_its_transpose(layer: tuple) -> None:
    op = operator(*layer)
    rng = numpy.random.default_rng(0)
    x, z = rng.standard_normal((2, *op.input_shape)), rng.standard_normal((2, *op.output_shape))
    expected = torch.nn.functional.conv2d(torch.from_numpy(x), op.weight, stride=op.stride, padding=op.padding).numpy()
    applied, pulled = op.apply(x), op.adjoint(z)
    terms = math.prod(op.weight.shape[1:])
    numpy.testing.assert_allclose(applied, expected, rtol=0, atol=8 * terms * EPS * abs(x).max() * abs(op.weight).max())
    # Both inner products sum rows * terms products; |<Ax, z> - <x, A'z>| <= count * eps * sum of moduli.
    left, right = (applied * z).sum(axis=(1, 2, 3)), (x * pulled).sum(axis=(1, 2, 3))
    moduli = operator_moduli(op, x, z)
    assert (abs(left - right) <= op.rows * EPS * moduli).all(), (left, right)


def operator_moduli(op: Convolution, x: numpy.ndarray, z: numpy.ndarray) -> numpy.ndarray:
    positive = Convolution(op.weight.abs(), op.stride, op.padding, op.input_shape[1:])
    return (positive.apply(abs(x)) * abs(z)).sum(axis=(1, 2, 3))


@pytest.mark.parametrize("layer", LAYERS)
def test_coverage_and_column_energy(layer: tuple) -> None:
    op = operator(*layer)
    matrix = dense(op)
    numpy.testing.assert_allclose(op.column_energy.ravel(), (matrix**2).sum(axis=0), rtol=1e-12, atol=1e-12)
    seen = (matrix.reshape(op.output_shape[0], -1, op.columns)[0] != 0).sum(axis=0)  # no weight is exactly 0
    assert numpy.array_equal(op.coverage.ravel(), seen.reshape(op.input_shape)[0].ravel())


def torus_matrix(op: Convolution) -> numpy.ndarray:
    """The layer on its torus, as a matrix, by indices: no Fourier transform, no polyphase components."""
    rows, columns = op.grid
    step = op.stride
    filters, channels, tall, wide = op.weight.shape
    matrix = numpy.zeros((filters, rows, columns, channels, rows * step, columns * step))
    for i, j, a, b in itertools.product(range(rows), range(columns), range(tall), range(wide)):
        y, x = (i * step + a) % (rows * step), (j * step + b) % (columns * step)
        matrix[:, i, j, :, y, x] += op.weight[:, :, a, b].numpy()
    return matrix.reshape(filters * rows * columns, -1)


@pytest.mark.parametrize(
    "layer",
    [
        (4, 2, (3, 3), 1, 1, (5, 4)),
        (3, 2, (3, 2), 2, 0, (7, 8)),
        (5, 1, (5, 5), 2, 2, (8, 6)),
        (9, 1, (4, 5), 3, 0, (10, 11)),
        (3, 2, (2, 2), 2, 0, (6, 6)),
    ],
)
def test_symbol_is_the_torus_matrix(layer: tuple) -> None:
    op = operator(*layer)
    values = numpy.linalg.svd(torus_matrix(op), compute_uv=False) ** 2
    found = frame(op)
    nonzero = values[values > values[0] * len(values) * EPS]
    assert found.upper == pytest.approx(values[0], rel=1e-10)
    assert found.lower == pytest.approx(nonzero[-1], rel=1e-8)
    assert found.condition_number == pytest.approx(math.sqrt(values[0] / nonzero[-1]), rel=1e-8)
    assert found.rank * math.prod(op.grid) == pytest.approx(len(nonzero))
    assert found.lost == pytest.approx(1 - len(nonzero) / torus_matrix(op).shape[1])
    for side in ("inputs", "responses"):
        assert upper_bound(op.gram(side)) == pytest.approx(values[0], rel=1e-10)


@pytest.mark.parametrize("layer", LAYERS)
def test_torus_bounds_the_real_layer_from_above(layer: tuple) -> None:
    op = operator(*layer)
    largest = numpy.linalg.norm(dense(op), 2) ** 2
    assert largest <= upper_bound(op.gram(op.smaller_side())) * (1 + op.columns * EPS)


def test_dependent_filters_lose_rank() -> None:
    weight = torch.randn(6, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight[3:] = -weight[:3]  # pairs of opposite phase
    op = Convolution(weight, 2, 1, (9, 9))
    assert frame(op).rank == 3
    assert frame(op).lost == pytest.approx(1 / 4)


def test_tight_frame_has_condition_one() -> None:
    # An orthonormal transform of 2 x 2 blocks.
    weight = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    found = frame(Convolution(weight.reshape(4, 1, 2, 2), 2, 0, (8, 8)))
    assert (found.lower, found.upper, found.lost) == pytest.approx((1, 1, 0), abs=1e-12)


@pytest.mark.parametrize("side", ["inputs", "responses"])
@pytest.mark.parametrize("layer", [(7, 2, (3, 3), 2, 1, (11, 8)), (3, 5, (5, 4), 1, 2, (9, 7))])
def test_torus_inverse_is_symmetric_and_positive(layer: tuple, side: str) -> None:
    op = operator(*layer)
    gram = op.gram(side)
    solve = op.torus_inverse(side, gram, 0.1 * upper_bound(gram))
    shape = op.input_shape if side == "inputs" else op.output_shape
    units = numpy.eye(math.prod(shape)).reshape(-1, *shape)
    matrix = solve(units).reshape(len(units), -1)
    # float32 inside.
    numpy.testing.assert_allclose(matrix, matrix.T, atol=1e-5 * abs(matrix).max())
    assert numpy.linalg.eigvalsh((matrix + matrix.T) / 2).min() > 0


def test_torus_inverse_solves_on_the_torus() -> None:
    """A delta far from the border: (G + shift) times the answer is the delta again."""
    op = operator(5, 2, (3, 3), 1, 0, (25, 23))
    gram = op.gram("inputs")
    shift = 0.5 * upper_bound(gram)
    delta = numpy.zeros((1, *op.input_shape))
    delta[0, 1, 12, 11] = 1
    answer = op.torus_inverse("inputs", gram, shift)(delta)
    numpy.testing.assert_allclose(op.adjoint(op.apply(answer)) + shift * answer, delta, atol=1e-4)


def test_kernel_larger_than_input_is_refused() -> None:
    with pytest.raises(CallError, match="11 x 11 does not fit an input of 9 x 30"):
        Convolution(torch.ones(1, 1, 11, 11), 4, 0, (9, 30))
