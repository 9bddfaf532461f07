import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reconstruct.errors import CallError
from reconstruct.inversion.known import Box, at_switches, intervals
from reconstruct.network.activations import activate
from reconstruct.network.architecture import Layer
from reconstruct.operators.pooling import MaxPool
from tests.builders.networks import randn


@st.composite
def pools(draw: st.DrawFn) -> MaxPool:
    """Windows that overlap, touch or leave gaps, with and without padding, on grids that they need not fill."""
    kernel, stride = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    layer = Layer("pool", kernel=kernel, stride=stride, padding=draw(st.integers(0, kernel // 2)), kind="max_pool")
    return MaxPool(layer, (draw(st.integers(kernel, 9)), draw(st.integers(kernel, 9))))


def windows(pool: MaxPool) -> list[list[tuple[int, int]]]:
    """Positions of each window, by rows of windows."""
    kernel, stride, padding = pool.layer.kernel, pool.layer.stride, pool.layer.padding
    return [
        [
            (row, column)
            for row in range(top * stride - padding, top * stride - padding + kernel)
            for column in range(left * stride - padding, left * stride - padding + kernel)
            if 0 <= row < pool.size[0] and 0 <= column < pool.size[1]
        ]
        for top in range(pool.grid[0])
        for left in range(pool.grid[1])
    ]


@given(pools(), st.integers(0, 99))
def test_tightest_by_looking_at_every_window(pool: MaxPool, seed: int) -> None:
    values = randn(2, 3, *pool.grid, seed=seed)
    expected = torch.full((2, 3, *pool.size), math.inf)
    for number, places in enumerate(windows(pool)):
        for row, column in places:
            own = values.flatten(2)[:, :, number]
            expected[:, :, row, column] = torch.minimum(expected[:, :, row, column], own)
    assert torch.equal(pool.tightest(values), expected)


@given(pools(), st.sampled_from(("crelu", "relu", "avr")), st.integers(0, 99))
def test_responses_lie_in_their_intervals(pool: MaxPool, activation: str, seed: int) -> None:
    """In each of them, and at a maximum the bound is the response itself."""
    responses = randn(2, 3, *pool.size, seed=seed)
    features = activate(responses, activation)
    switches = pool.switches(features)
    pooled = pool.gather(features, switches)
    box = intervals(pool, pooled, activation)
    assert ((box.lower <= responses) & (responses <= box.upper)).all()
    # Two-sided but for ReLU, where a window looks at all.
    looked = pool.tightest(pooled[:, :3]).isfinite()
    assert torch.equal(box.lower.isfinite(), looked & (activation != "relu"))
    assert torch.equal(box.upper.isfinite(), looked)
    positive = pooled[:, :3]
    reached = pool.gather(responses if activation != "avr" else responses.abs(), switches[:, :3])
    assert torch.equal(reached[positive > 0], positive[positive > 0])
    # Moved to the nearest point of the box, nothing has moved.
    residual, active = box.residual(responses)
    assert not residual.any()
    assert active is None or not active[~box.known].any()


@given(pools(), st.sampled_from(("crelu", "relu")), st.integers(0, 99))
def test_switches_say_responses(pool: MaxPool, activation: str, seed: int) -> None:
    """The response at the place of every maximum that is not 0 is known, and nothing of any other place."""
    responses = randn(2, 3, *pool.size, seed=seed)
    features = activate(responses, activation)
    switches = pool.switches(features)
    pooled = pool.gather(features, switches)
    box = at_switches(pool, pooled, switches, activation)
    expected = torch.zeros(2, 3, *pool.size, dtype=torch.bool)
    for sign in (1, -1) if activation == "crelu" else (1,):
        for places in windows(pool):
            for image in range(2):
                for channel in range(3):
                    best = max(places, key=lambda place: float(sign * responses[image, channel][place]))
                    if sign * responses[image, channel][best] > 0:
                        expected[image, channel][best] = True
    assert torch.equal(box.known, expected)
    assert torch.equal(box.lower[expected], responses[expected])
    assert (box.lower[~expected] == -math.inf).all()
    assert (box.upper[~expected] == math.inf).all()
    # Both together: known where the switches are, bounded elsewhere.
    both = intervals(pool, pooled, activation).narrowed(box)
    assert torch.equal(both.known & expected, expected)
    assert ((both.lower <= responses) & (responses <= both.upper)).all()


@given(st.integers(0, 99))
def test_the_residual_of_a_box_is_the_shortest_way_in(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    lower, width, responses, other = (torch.randn(1, 2, 3, 3, generator=generator) for _ in range(4))
    box = Box(lower, lower + width.relu())
    residual, active = box.residual(responses)
    inside = responses + residual
    assert ((box.lower - 1e-6 <= inside) & (inside <= box.upper + 1e-6)).all()
    # No other point of the box is nearer, in any entry.
    elsewhere = torch.minimum(torch.maximum(other, box.lower), box.upper)
    assert (residual.abs() <= (elsewhere - responses).abs() + 1e-6).all()
    assert active is not None
    outside = (responses < box.lower) | (responses > box.upper)
    assert torch.equal(active.bool() | ~outside, torch.ones_like(outside))


def test_the_inner_part_of_a_box() -> None:
    lower, upper = torch.tensor([[-2.0, 0.0, -math.inf, 1.0]]), torch.tensor([[4.0, 8.0, 3.0, 1.0]])
    inner = Box(lower, upper).inner(0.5)
    assert torch.equal(inner.lower, torch.tensor([[-0.5, 2.0, -math.inf, 1.0]]))
    assert torch.equal(inner.upper, torch.tensor([[2.5, 6.0, 3.0, 1.0]]))


@given(pools())
def test_centres_are_in_the_middle(pool: MaxPool) -> None:
    centres = pool.centres(torch.zeros(1, 1, *pool.grid))
    pool.check(centres, torch.zeros(1, 1, *pool.grid))
    kernel, stride, padding = pool.layer.kernel, pool.layer.stride, pool.layer.padding
    for top in range(pool.grid[0]):
        row = int(centres[0, 0, top, 0]) // pool.size[1]
        assert row == min(top * stride - padding + kernel // 2, pool.size[0] - 1)


@given(pools(), st.integers(0, 99))
def test_switches_are_checked(pool: MaxPool, seed: int) -> None:
    values = randn(1, 2, *pool.size, seed=seed)
    switches = pool.switches(values)
    features = pool.gather(values, switches)
    pool.check(switches, features)
    with pytest.raises(CallError, match="int64, one a feature"):
        pool.check(switches[:, :1], features)
    with pytest.raises(CallError, match="int64, one a feature"):
        pool.check(switches.int(), features)
    for wrong in (-1, pool.size[0] * pool.size[1]):
        with pytest.raises(CallError, match="a switch of pool lies outside its window"):
            pool.check(torch.where(torch.arange(2).view(2, 1, 1) == 1, wrong, switches), features)


def test_activations_that_bound_nothing_are_refused() -> None:
    pool = MaxPool(Layer("pool", kernel=2, stride=2, kind="max_pool"), (4, 4))
    features = torch.zeros(1, 2, 2, 2)
    with pytest.raises(CallError, match="not of leaky_relu"):
        intervals(pool, features, "leaky_relu")
    with pytest.raises(CallError, match="not of avr"):
        at_switches(pool, features, pool.centres(features), "avr")
