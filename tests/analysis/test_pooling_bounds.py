import functools
import math
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv_transpose2d, pad, unfold

from reconstruct import load_image, load_model
from reconstruct.analysis.pooling_bounds import ZERO, Regions, random_filters, region_bounds
from reconstruct.errors import CallError
from reconstruct.network.architecture import Layer
from reconstruct.network.network import Network
from tests.conftest import SAMPLES

NUMBERS = ("reconstruction_ratio", "relative_error", "bound_measured", "bound_model", "lambda_min", "lambda_max")


class Case(NamedTuple):
    inputs: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None
    layer: Layer
    pool: Layer

    def bounds(self) -> Regions:
        return region_bounds(*self)


def case(
    seed: int, channels: int, layer: Layer, pool: Layer, size: tuple[int, int], biases: bool, count: int = 2
) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weight = normal(layer.filters, channels, layer.kernel, layer.kernel)
    return Case(normal(count, channels, *size), weight, normal(layer.filters) if biases else None, layer, pool)


@functools.cache
def trained() -> torch.Tensor:
    """96 x 3 x 3 x 3."""
    return load_model("convpool_cnn_c_crelu").convolution("conv1").weight.double()


@functools.cache
def normalised() -> torch.Tensor:
    """A photograph, 3 x 227 x 227."""
    return (load_image(SAMPLES[0], 227).double() - 0.45) / 0.22


@st.composite
def cases(draw: st.DrawFn, extent: int = 8) -> Case:
    """Random and trained filters, on inputs that are up to ``extent`` larger than a region."""
    kernel, window, channels = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    layer = Layer(
        "conv", draw(st.integers(1, 6)), kernel, draw(st.integers(1, 3)), draw(st.integers(0, kernel - 1)),
        draw(st.sampled_from(("crelu", "relu"))),
    )  # fmt: skip
    pool = Layer(
        "pool", kernel=window, stride=draw(st.integers(1, 3)), padding=draw(st.integers(0, window // 2)),
        kind="max_pool",
    )  # fmt: skip
    least = layer.kernel + (window - 1) * layer.stride
    size = (draw(st.integers(least, least + extent)), draw(st.integers(least, least + extent)))
    found = case(draw(st.integers(0, 2**31)), channels, layer, pool, size, draw(st.booleans()))
    shapes = {
        "white": found.inputs,
        "constant": found.inputs[:, :, :1, :1].expand_as(found.inputs),
        "smooth": found.inputs.cumsum(2).cumsum(3),
        "sparse": found.inputs * (found.inputs > 1),
        "features": found.inputs.relu(),
    }
    if channels <= 3:
        top, left = (draw(st.integers(0, 227 - side)) for side in size)
        shapes["photograph"] = normalised()[None, :channels, top : top + size[0], left : left + size[1]]
    inputs = 10.0 ** draw(st.integers(-3, 3)) * shapes[draw(st.sampled_from(sorted(shapes)))]
    weight = found.weight
    if channels <= 3 and kernel <= 3 and draw(st.booleans()):
        first = draw(st.integers(0, 90))
        weight = trained()[first : first + layer.filters, :channels, :kernel, :kernel]
    # Filters that repeat themselves leave W^ without full rank.
    weight = weight[torch.arange(layer.filters) // draw(st.integers(1, 2))]
    return found._replace(inputs=inputs, weight=weight)


def dense(found: Case) -> dict[str, list[float]]:
    """Every number of ``Regions`` from a region's assembled matrices, by singular values."""
    margin = found.layer.padding
    inputs = pad(found.inputs, (margin,) * 4)
    channels, height, width = inputs.shape[1:]
    kernel, stride = found.layer.kernel, found.layer.stride
    grid = ((height - kernel) // stride + 1, (width - kernel) // stride + 1)
    # Which numbers of the input each position sees, and in which order a filter multiplies them.
    index = torch.arange(channels * height * width, dtype=torch.float64).view(1, channels, height, width)
    seen = unfold(index, kernel, stride=stride)[0].long().T.reshape(*grid, -1)
    flat = found.weight.flatten(1)
    numbers: dict[str, list[float]] = {name: [] for name in NUMBERS}
    regions = found.pool.output_size(grid)
    for image in inputs.flatten(1):
        for top in range(regions[0]):
            for left in range(regions[1]):
                first = (top * found.pool.stride - found.pool.padding, left * found.pool.stride - found.pool.padding)
                places = [
                    (row, column)
                    for row in range(first[0], first[0] + found.pool.kernel)
                    for column in range(first[1], first[1] + found.pool.kernel)
                    if 0 <= row < grid[0] and 0 <= column < grid[1]
                ]
                x = torch.zeros_like(image)
                for row, column in places:
                    x[seen[row, column]] = image[seen[row, column]]
                columns, known, larger = [], [], []
                for number, weights in enumerate(flat):
                    own = []
                    for sign in (1, -1) if found.layer.activation == "crelu" else (1,):
                        values = [float(weights @ image[seen[place]]) for place in places]
                        shift = 0.0 if found.bias is None else float(found.bias[number])
                        rectified = [sign * (value + shift) for value in values]
                        best = rectified.index(max(rectified))
                        if rectified[best] > 0:
                            column = torch.zeros_like(image)
                            column[seen[places[best]]] = weights
                            columns.append(column)
                            known.append(values[best])
                            own.append((abs(values[best]), column))
                    if own:
                        larger.append(max(own, key=lambda pair: pair[0])[1])
                for name, value in zip(NUMBERS, numbers_of(x, columns, known, larger), strict=True):
                    numbers[name].append(value)
    return numbers


def numbers_of(
    x: torch.Tensor, columns: list[torch.Tensor], known: list[float], larger: list[torch.Tensor]
) -> tuple[float, ...]:
    norm = float(x.norm())
    if not columns:
        return 0.0, 1.0, 1.0, 1.0, math.nan, math.nan
    matrix, m = torch.stack(columns), torch.tensor(known, dtype=torch.float64)
    back = torch.linalg.pinv(matrix) @ m
    largest = float(torch.linalg.svdvals(matrix)[0]) ** 2
    model = torch.stack(larger)
    values = torch.linalg.svdvals(model)
    smallest = float(values[values > 1e-6 * values[0]].min()) ** 2
    projected = float((torch.linalg.pinv(model, rtol=1e-6) @ (model @ x)).norm()) ** 2
    return (
        float(back.norm()) / norm,
        float((x - back).norm()) / norm,
        math.sqrt(max(0.0, 1 - float(m @ m) / (largest * norm**2))),
        math.sqrt(max(0.0, 1 - smallest * projected / (largest * norm**2))),
        smallest,
        largest,
    )


@pytest.mark.parametrize(
    ("channels", "layer", "pool", "biases"),
    [
        (1, Layer("conv", 3, 2, activation="crelu"), Layer("pool", kernel=2, stride=2, kind="max_pool"), False),
        (2, Layer("conv", 4, 3, 1, 1, "crelu"), Layer("pool", kernel=3, stride=2, padding=1, kind="max_pool"), True),
        (3, Layer("conv", 5, 2, 1, 0, "relu"), Layer("pool", kernel=3, stride=2, kind="max_pool"), True),
        (1, Layer("conv", 9, 3, 2, 2, "crelu"), Layer("pool", kernel=3, stride=3, kind="max_pool"), True),
    ],
)
def test_against_assembled_matrices(channels: int, layer: Layer, pool: Layer, biases: bool) -> None:
    """Singular values of matrices are good to eps of the largest; squared and compared near 1, errors to its root."""
    found = case(3, channels, layer, pool, (11, 12), biases)
    mine, theirs = found.bounds(), dense(found)
    for name in NUMBERS:
        expected = torch.tensor(theirs[name]).view_as(mine.relative_error)
        torch.testing.assert_close(getattr(mine, name), expected.double(), rtol=1e-6, atol=1e-6, equal_nan=True)
    assert mine.violations == mine.empty == 0


def hold(regions: Regions) -> None:
    assert regions.violations == 0
    there = ~regions.relative_error.isnan()
    # Pythagoras: x' is an orthogonal projection of x.
    whole = regions.reconstruction_ratio.square() + regions.relative_error.square()
    assert torch.allclose(whole[there], torch.ones_like(whole[there]), atol=4 * ZERO * 12 + 1e-12)
    assert regions.empty == int((~there).sum())


@given(cases())
def test_no_error_exceeds_its_bounds(found: Case) -> None:
    hold(found.bounds())


@pytest.mark.slow
def test_a_million_regions() -> None:
    counted = []

    @settings(max_examples=1500)
    @given(cases(extent=100))
    def look(found: Case) -> None:
        regions = found.bounds()
        hold(regions)
        counted.append(regions.relative_error.numel() - regions.empty)

    look()
    assert sum(counted) >= 10**6


@given(st.integers(0, 2**31), st.sampled_from(("bound_measured", "bound_model")), st.integers(1, 3))
def test_a_bound_spoilt_by_one_percent_is_noticed(seed: int, name: str, channels: int) -> None:
    """One filter and ReLU: W^ is one column, where both bounds are the error itself."""
    layer, pool = Layer("conv", 1, 3), Layer("pool", kernel=2, stride=2, kind="max_pool")
    found = case(seed, channels, layer, pool, (12, 12), False)
    regions = found.bounds()
    assert regions.violations == 0
    spoilt = replace(regions, **{name: 0.99 * getattr(regions, name)})
    some = (regions.selected > 0) & (regions.relative_error > 0.1)
    assert spoilt.violations >= int(some.sum()) > 0


@given(st.integers(0, 2**31), st.integers(1, 8), st.integers(1, 3), st.booleans())
def test_the_corollary(seed: int, filters: int, channels: int, tight: bool) -> None:
    """x of one shift a filter: |x - x'| <= sqrt((L - l) / L) |x|, l of the columns that x is made of, without bias.

    Orthonormal filters that do not overlap at different shifts are a tight frame: L = l and nothing is lost.
    """
    kernel, window = 3, 2
    stride = kernel if tight else 1
    layer = Layer("conv", filters, kernel, stride, activation="crelu")
    pool = Layer("pool", kernel=window, stride=window, kind="max_pool")
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(filters, channels, kernel, kernel, generator=generator, dtype=torch.float64)
    if tight:
        weight = torch.linalg.qr(weight.flatten(1).T)[0].T.reshape(weight.shape)
    shifts = torch.randint(window**2, (20, filters, 1), generator=generator)
    sizes = torch.randn(20, filters, 1, generator=generator, dtype=torch.float64)
    chosen = torch.zeros(20, filters, window**2, dtype=torch.float64).scatter_(2, shifts, sizes)
    inputs = conv_transpose2d(chosen.unflatten(2, (window, window)), weight, stride=stride)
    regions = region_bounds(inputs, weight, None, layer, pool)
    assert regions.violations == 0
    for i in range(20):
        one = torch.zeros(filters, filters, window**2, dtype=torch.float64)
        one[torch.arange(filters), torch.arange(filters), shifts[i, :, 0]] = 1
        columns = conv_transpose2d(one.unflatten(2, (window, window)), weight, stride=stride).flatten(1)
        values = torch.linalg.svdvals(columns).square()
        largest = float(regions.lambda_max[i])
        bound = math.sqrt(max(0.0, 1 - float(values.min()) / largest))
        error = float(regions.relative_error[i])
        assert error**2 <= bound**2 + 8 * filters * ZERO
        if float(values.min()) > 1e-9 * largest:
            assert bound < 1
        if tight:
            assert error**2 <= 8 * filters * ZERO
            assert bound < 1e-6


def test_regions_without_input_and_without_columns() -> None:
    layer = Layer("conv", 2, 2, activation="relu")
    pool = Layer("pool", kernel=2, stride=2, kind="max_pool")
    weight = torch.ones(2, 1, 2, 2, dtype=torch.float64)
    inputs = torch.zeros(1, 1, 5, 9, dtype=torch.float64)
    inputs[..., 5:] = -1
    regions = region_bounds(inputs, weight, None, layer, pool)
    # Of four regions in a row, 3 pixels wide and 2 apart, two see nothing but zeros.
    assert (regions.empty, regions.violations) == (4, 0)
    assert regions.relative_error[0, :, :2].isnan().all()
    last = [float(getattr(regions, name)[0, -1, -1]) for name in NUMBERS]
    assert last[:4] == [0, 1, 1, 1]
    assert all(math.isnan(value) for value in last[4:])


def test_random_filters_have_unit_norm_and_a_seed() -> None:
    weight = torch.zeros(5, 3, 4, 4)
    first = random_filters(weight, 0)
    assert first.shape == weight.shape
    assert torch.allclose(first.flatten(1).norm(dim=1), torch.ones(5, dtype=torch.float64))
    assert torch.equal(first, random_filters(weight, 0))
    assert not torch.equal(first, random_filters(weight, 1))


def test_the_default_model(net: Network, photograph: torch.Tensor) -> None:
    pool = Layer("pool", kernel=3, stride=2, kind="max_pool")
    window = ((photograph - net.mean) / net.std)[:, :, 40:140, 60:160]
    first = net.convolution("conv1")
    regions = region_bounds(window, first.weight, first.bias, net.layers[0], pool)
    assert regions.relative_error.shape == (1, 11, 11)
    assert regions.violations == regions.empty == 0
    assert float(regions.bound_measured.max()) < 1


def test_other_activations_are_refused() -> None:
    found = case(0, 1, Layer("conv", 2, 2, activation="avr"), Layer("pool", kernel=2, kind="max_pool"), (6, 6), False)
    with pytest.raises(CallError, match="CReLU and ReLU features; conv has avr"):
        found.bounds()
