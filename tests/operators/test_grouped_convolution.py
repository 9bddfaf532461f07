"""Grouped and dilated convolutions as operators, against the same filters written out and against matrices."""

import itertools
import math

import numpy
import pytest
import torch

from reconstruct.errors import CallError
from reconstruct.inversion.linear import LayerInverse
from reconstruct.network.dense_filters import dense_filters
from reconstruct.operators.convolution import Convolution, PeriodicConvolution, frame, upper_bound
from tests.builders.networks import dense

# groups, dilation, channels a group, filters a group, kernel, stride, padding: depthwise (few and many channels), with
# a multiplier, of the 2012 AlexNet's kind, dilated alone, both, strides larger than the window.
SHAPES = [
    (3, 1, 1, 1, (3, 3), 1, 1),
    (3, 1, 1, 2, (3, 2), 2, 1),
    (8, 1, 1, 1, (3, 3), 2, 1),
    (2, 1, 3, 4, (5, 5), 1, 2),
    (2, 1, 2, 9, (3, 3), 2, 0),
    (1, 2, 2, 3, (3, 3), 1, 2),
    (1, 3, 5, 4, (2, 3), 2, 1),
    (2, 2, 2, 3, (3, 3), 2, 2),
    (5, 2, 1, 1, (2, 2), 4, 0),
]


def pair(shape: tuple, size: tuple[int, int] = (12, 9)) -> tuple[Convolution, Convolution]:
    """The operator, and the one of its filters written out."""
    groups, dilation, channels, filters, kernel, stride, padding = shape
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(groups * filters, channels, *kernel, generator=generator, dtype=torch.float64)
    own = Convolution(weight, stride, padding, size, groups=groups, dilation=dilation)
    return own, Convolution(dense_filters(weight, groups, dilation), stride, padding, size)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_operator_is_torch_and_its_adjoint_the_transpose(shape: tuple) -> None:
    op, plain = pair(shape)
    x = torch.randn(2, *op.input_shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    wanted = torch.nn.functional.conv2d(x, op.weight, None, op.stride, op.padding, op.dilation, op.groups)
    torch.testing.assert_close(op.convolve(x), wanted, rtol=0, atol=1e-12)
    matrix = dense(plain)
    numpy.testing.assert_allclose(dense(op), matrix, rtol=0, atol=1e-12)
    z = numpy.random.default_rng(3).standard_normal((1, *op.output_shape))
    numpy.testing.assert_allclose(op.adjoint(z).ravel(), matrix.T @ z.ravel(), rtol=0, atol=1e-11)
    numpy.testing.assert_allclose(op.column_energy.ravel(), (matrix**2).sum(0), rtol=1e-12, atol=1e-12)
    windows = (matrix.reshape(len(op.weight), -1, op.columns)[0] != 0).sum(0).reshape(op.input_shape)[0]
    assert numpy.array_equal(op.coverage[0, 0], windows)  # filter 0 sees the first channel
    assert op.multiplications == op.rows * math.prod(op.weight.shape[1:])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_symbol_is_block_diagonal(shape: tuple) -> None:
    """Its blocks have the spectrum of the filters written out, on a torus of the same size."""
    op, plain = pair(shape)
    assert op.grid == plain.grid
    for side in ("inputs", "responses"):
        blocks, whole = op.gram(side), plain.gram(side)
        n = blocks.shape[-1]
        for group in range(op.groups):
            own = slice(group * n, (group + 1) * n)
            block = blocks[:, :, group] if op.groups > 1 else blocks
            numpy.testing.assert_allclose(block, whole[:, :, own, own], rtol=0, atol=1e-10)
        assert numpy.square(abs(blocks)).sum() == pytest.approx(numpy.square(abs(whole)).sum(), rel=1e-10)
        assert upper_bound(blocks) == pytest.approx(upper_bound(whole), rel=1e-10)
    found, wanted = frame(op), frame(plain)
    assert found.upper == pytest.approx(wanted.upper, rel=1e-10)
    assert found.lower == pytest.approx(wanted.lower, rel=1e-6)
    assert (found.rank, found.unknowns) == (wanted.rank, wanted.unknowns)


@pytest.mark.parametrize(("shape", "side"), [*itertools.product(SHAPES, ["inputs", "responses"])])
def test_the_torus_inverse_is_that_of_the_filters_written_out(shape: tuple, side: str) -> None:
    op, plain = pair(shape)
    given = op.input_shape if side == "inputs" else op.output_shape
    values = numpy.random.default_rng(4).standard_normal((2, *given))
    upper = upper_bound(plain.gram(side))
    found, wanted = (
        each.torus_inverse(side, each.gram(side), 0.1 * upper)(values) * 0.1 * upper for each in (op, plain)
    )
    numpy.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_on_a_torus(shape: tuple) -> None:
    groups, dilation, _, _, _, stride, padding = shape
    op, _ = pair(shape)
    own = PeriodicConvolution(op.weight, stride, padding, (12, 12), groups, dilation)
    plain = PeriodicConvolution(dense_filters(op.weight, groups, dilation), stride, padding, (12, 12))
    x = torch.randn(2, op.input_shape[0], 12, 12, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    torch.testing.assert_close(own.convolve(x), plain.convolve(x), rtol=0, atol=1e-12)
    z = torch.randn(own.convolve(x).shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    left, right = float((own.convolve(x) * z).sum()), float((x * own.transpose(z)).sum())
    assert left == pytest.approx(right, rel=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_pseudoinverse(shape: tuple) -> None:
    """Undamped, of responses that there are: the input of least norm, as NumPy's pseudoinverse of the matrix gives."""
    op, plain = pair(shape)
    x = numpy.random.default_rng(7).standard_normal((1, *op.input_shape))
    responses = op.apply(x)
    found = LayerInverse(op, "global", 0.0).solve(responses, 1e-9, 3000)
    residual = op.apply(found.value) - responses
    assert numpy.linalg.norm(residual) <= 1e-5 * numpy.linalg.norm(responses)
    matrix = dense(plain)
    values = numpy.linalg.svd(matrix, compute_uv=False)
    smallest = values[values > 1e-10 * values[0]].min()
    wanted = numpy.linalg.pinv(matrix, rcond=1e-10) @ responses.ravel()
    # What the residual leaves open, and no more.
    error = numpy.linalg.norm(found.value.ravel() - wanted)
    assert error <= 1.01 * numpy.linalg.norm(residual) / smallest + 1e-6 * numpy.linalg.norm(wanted)


@pytest.mark.parametrize("shape", [each for each in SHAPES if each[1] == 1])
def test_the_patch_form_is_that_of_the_filters_written_out(shape: tuple) -> None:
    op, plain = pair(shape)
    responses = numpy.random.default_rng(8).standard_normal((1, *op.output_shape))
    found, wanted = (LayerInverse(each, "patch", 0.01).solve(responses, 1e-4, 1).value for each in (op, plain))
    numpy.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10)


def test_groups_divide_the_filters() -> None:
    with pytest.raises(CallError, match="5 filters are not 2 groups"):
        Convolution(torch.ones(5, 1, 1, 1), 1, 0, (4, 4), groups=2)
