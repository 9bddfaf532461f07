import math
import warnings
from typing import Any

import numpy
import pyarrow
import pytest
from scipy import stats

from reconstruct.errors import CallError
from reconstruct.report.compare import Place, compare, paired
from reconstruct.results import SCHEMA
from tests.test_results import failure, row


def table(rows: list[dict[str, Any]]) -> pyarrow.Table:
    return pyarrow.Table.from_pylist(rows, schema=SCHEMA)


def run(psnr: numpy.ndarray, **changes: Any) -> list[dict[str, Any]]:
    return [row(index, float(value), ssim=float(value) / 100, **changes) for index, value in enumerate(psnr)]


def test_paired_differences_are_scipys() -> None:
    draw = numpy.random.default_rng(0)
    first = draw.normal(30, 5, 40)
    second = first + draw.normal(0.7, 2, 40)
    (found,) = compare(table(run(first)), table(run(second)))
    assert found.first == found.second == Place("conv1", "map")
    assert (found.pairs, found.infinite, found.failed, found.single) == (40, 0, 0, 0)
    for measured, scale in ((found.psnr, 1), (found.ssim, 100)):
        interval = stats.ttest_rel(second / scale, first / scale).confidence_interval(0.95)
        assert measured.mean == pytest.approx((second - first).mean() / scale)
        assert (measured.low, measured.high) == pytest.approx((interval.low, interval.high))
        assert measured.better == pytest.approx((second > first).mean())


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Of 2,000 normal samples of 12, some 95 %; the bounds are four standard errors of the binomial's."""
    draw = numpy.random.default_rng(1)
    found = [paired(draw.normal(0.3, 1, 12)) for _ in range(2000)]
    covered = sum(each.low <= 0.3 <= each.high for each in found if each.low is not None and each.high is not None)
    assert abs(covered - 1900) < 4 * math.sqrt(2000 * 0.95 * 0.05)


def test_images_are_matched_by_name_and_what_has_no_pair_is_counted() -> None:
    first = [row(0, 30.0), row(1, 31.0), row(2, math.inf), row(3, 33.0), failure(4), row(5, 35.0), row(6, 36.0)]
    # Other numbers of the same images: another listing.
    second = [
        row(90, 36.5, image="6.png"), row(91, 29.0, image="0.png"), row(92, 32.0, image="2.png"),
        failure(93, image="3.png", layer="conv1", method="map"), row(94, 30.0, image="4.png"),
        row(95, 99.0, image="new"),
    ]  # fmt: skip
    (found,) = compare(table(first), table(second))
    assert found.pairs == 2  # 0 and 6
    assert found.psnr.mean == pytest.approx((-1.0 + 0.5) / 2)
    assert found.psnr.better == 0.5
    assert (found.infinite, found.failed, found.single) == (1, 2, 3)  # 2; 3 and 4; 1, 5 and new


def test_few_pairs_and_equal_ones_have_the_intervals_they_can_have() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert paired(numpy.array([])) == paired(numpy.empty(0))
        assert paired(numpy.array([])).mean is None
        one = paired(numpy.array([2.0]))
        assert (one.mean, one.low, one.high, one.better) == (2.0, None, None, 1.0)
        same = paired(numpy.full(7, 0.1))
        assert (same.mean, same.low, same.high) == (0.1, 0.1, 0.1)
        (nothing,) = compare(table(run(numpy.array([math.inf]))), table(run(numpy.array([3.0]))))
        assert (nothing.pairs, nothing.psnr.mean, nothing.infinite) == (0, None, 1)


def test_what_is_compared_with_what() -> None:
    def held(*places: tuple[str, str]) -> pyarrow.Table:
        return table([row(index, layer=layer, method=method) for index in (0, 1) for layer, method in places])

    def pairs(first: pyarrow.Table, second: pyarrow.Table) -> list[tuple[tuple[str, str], tuple[str, str]]]:
        return [(tuple(each.first), tuple(each.second)) for each in compare(first, second)]  # type: ignore[misc]

    shared = (("conv2", "map"), ("conv2", "map"))
    assert pairs(held(("conv1", "map"), ("conv2", "map")), held(("conv2", "map"), ("conv3", "map"))) == [shared]
    # By layer, where each run has one method only.
    assert pairs(held(("conv1", "map"), ("conv2", "map")), held(("conv2", "wiener"), ("conv1", "wiener"))) == [
        (("conv1", "map"), ("conv1", "wiener")),
        (("conv2", "map"), ("conv2", "wiener")),
    ]
    # By method, where each has one layer only.
    assert pairs(held(("conv1", "map"), ("conv1", "linear")), held(("c1", "linear"))) == [
        (("conv1", "linear"), ("c1", "linear"))
    ]
    with pytest.raises(CallError, match="one holds conv1 by map, conv2 by linear, the other conv3 by wiener"):
        compare(held(("conv1", "map"), ("conv2", "linear")), held(("conv3", "wiener")))
