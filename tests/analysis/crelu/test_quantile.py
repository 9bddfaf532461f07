import math

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reconstruct.analysis.crelu.quantile import QuantileSketch
from reconstruct.errors import CallError

ROUNDING = 1 + 1e-9
"""At the very edge of a bin the error is alpha, and a float64 logarithm of up to 14 over 0.004 is off by 1e-12 bins."""


def numbers() -> st.SearchStrategy[float]:
    """Zeros, and all of the default range, evenly in the logarithm."""
    return st.one_of(
        st.just(0.0), st.floats(math.log(1e-6), math.log(1e6)).map(lambda x: min(1e6, max(1e-6, math.exp(x))))
    )


@given(st.lists(st.tuples(numbers(), numbers(), numbers()), min_size=1, max_size=60), st.floats(0, 1))
def test_quantiles_are_within_the_guarantee(values: list[tuple[float, ...]], share: float) -> None:
    rows = torch.tensor(values, dtype=torch.float64)
    sketch = QuantileSketch(3)
    sketch.add(rows)
    # Not numpy.quantile, which may round a share such as 1/3 to another rank.
    rank = math.floor(share * (len(rows) - 1))
    exact = rows.sort(0).values[rank]
    assert (abs(sketch.quantile(share) - exact) <= 0.002 * exact * ROUNDING).all()


@pytest.mark.parametrize("accuracy", [0.05, 0.002])
def test_quantiles_of_many_values_are_those_of_numpy(accuracy: float, generator: torch.Generator) -> None:
    """The values are float32 features after ReLU, with channels on axis 1, and are counted in unequal parts."""
    features = torch.randn(5, 4, 30, 31, generator=generator).relu() * torch.tensor([1e-4, 1, 3, 1e4]).view(4, 1, 1)
    sketch = QuantileSketch(4, accuracy=accuracy)
    for part in features.split((1, 3, 1)):
        sketch.add(part)
    flat = features.transpose(0, 1).flatten(1).double().numpy()
    for share in (0.0, 0.3, 0.6, 0.9, 0.99, 0.999, 1.0):
        exact = torch.from_numpy(numpy.quantile(flat, share, axis=1, method="lower"))
        assert (abs(sketch.quantile(share) - exact) <= accuracy * exact * ROUNDING).all()


def test_merged_sketches_are_those_of_all_values(generator: torch.Generator) -> None:
    values = torch.randn(50, 3, 7, generator=generator)
    whole, first, second = (QuantileSketch(3) for _ in range(3))
    whole.add(values)
    first.add(values[:20])
    second.add(values[20:])
    first.merge(second)
    assert torch.equal(first.counts, whole.counts)
    assert torch.equal(whole.counts.sum(1), torch.full((3,), 350))


def test_what_lies_outside_the_range() -> None:
    """Below it, and negative: 0. Above: as the largest. Its two ends are within."""
    sketch = QuantileSketch(1, smallest=0.5, largest=20)
    sketch.add(torch.tensor([-3.0, 0.0, 0.49, 0.5, 20.0, 1e9, math.inf]).view(-1, 1))
    found = [float(sketch.quantile(k / 6)) for k in range(7)]
    assert found[:3] == [0, 0, 0]
    assert found[3] == pytest.approx(0.5, rel=0.002 * ROUNDING)
    assert found[4:] == [pytest.approx(20, rel=0.002 * ROUNDING)] * 3


def test_memory_is_as_documented() -> None:
    assert QuantileSketch(2).counts.shape == (2, 1 + 6908)


def test_wrong_calls_are_refused() -> None:
    sketch = QuantileSketch(3)
    with pytest.raises(CallError, match="nothing has been counted"):
        sketch.quantile(0.5)
    with pytest.raises(CallError, match=r"N x 3 or N x 3 x \.\.\.; these are 5 x 4"):
        sketch.add(torch.rand(5, 4))
    with pytest.raises(CallError, match=r"share lies in \[0, 1\], not 1.5"):
        sketch.quantile(1.5)
    with pytest.raises(CallError, match="sketches merge if channels, accuracy and range are equal"):
        sketch.merge(QuantileSketch(3, accuracy=0.01))
    with pytest.raises(CallError, match="0 < smallest < largest"):
        QuantileSketch(3, smallest=2, largest=1)
