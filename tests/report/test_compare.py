"""Paired differences of two runs."""

import math
from typing import Any

import numpy
import pyarrow
import pytest
import scipy.stats

from reconstruct.errors import CallError
from reconstruct.evaluation.results import SCHEMA
from reconstruct.report.compare import Place, compare, paired
from tests.builders.results_folder import failure, random_rows, row


def table(rows: list[dict[str, Any]]) -> pyarrow.Table:
    return pyarrow.Table.from_pylist(rows, schema=SCHEMA)


def at(rows: list[dict[str, Any]], layer: str, method: str, name: str) -> dict[str, float]:
    return {each["image"]: each[name] for each in rows if (each["layer"], each["method"]) == (layer, method)}


def test_differences_are_paired_by_name_and_signed_second_minus_first() -> None:
    first = random_rows(30, ["conv1", "conv2"], ["linear", "map"], seed=1)
    # Other indices, another order: only names say which images are the same.
    second = random_rows(30, ["conv2", "conv1"], ["map", "linear"], seed=2)
    for each in second:
        each["index"] = 29 - each["index"]
    found = compare(table(first), table(second))
    assert [each.first for each in found] == [Place(a, b) for a in ("conv1", "conv2") for b in ("linear", "map")]
    for each in found:
        assert each.first == each.second
        assert each.pairs == 30
        for name, measured in (("psnr", each.psnr), ("ssim", each.ssim)):
            one, other = at(first, *each.first, name), at(second, *each.second, name)
            before, after = (numpy.array([held[image] for image in one]) for held in (one, other))
            interval = scipy.stats.ttest_rel(after, before).confidence_interval(0.95)
            assert measured.mean == pytest.approx(numpy.mean(after - before), rel=1e-12)
            assert (measured.low, measured.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
            assert measured.better == pytest.approx(numpy.mean(after > before))


def test_interval_is_students_t() -> None:
    values = numpy.array([1.0, 2.0, 4.0, 9.0])
    # t(0.975, 3) of printed tables.
    half = 3.182446305 * values.std(ddof=1) / 2
    found = paired(values)
    assert (found.low, found.high) == pytest.approx((4 - half, 4 + half), rel=1e-9)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    random = numpy.random.default_rng(7)
    covered = 0
    for _ in range(400):
        before = random.normal(25, 4, 12)
        after = before + random.normal(0.7, 1.5, 12)
        rows = [[row(i, "conv1", "map", psnr=float(value)) for i, value in enumerate(run)] for run in (before, after)]
        (found,) = compare(table(rows[0]), table(rows[1]))
        assert found.psnr.low is not None
        assert found.psnr.high is not None
        covered += found.psnr.low <= 0.7 <= found.psnr.high
    # Of 400 at 95 %, with a chance of one in ten thousand of being wrong.
    low, high = scipy.stats.binom.interval(1 - 1e-4, 400, 0.95)
    assert low <= covered <= high


def test_what_is_left_out_is_counted() -> None:
    first = [row(i, "conv1", "map", psnr=20.0 + i) for i in range(6)]
    second = [row(i, "conv1", "map", psnr=21.0 + i) for i in range(6)]
    first[0]["psnr"] = math.inf
    second[1]["psnr"] = math.inf
    second[2] = failure(2, "cannot be read")
    second[3] = row(3, "conv1", "map", psnr=None, ssim=None, error="out of memory")
    first.append(row(6, "conv1", "map"))
    second += [row(7, "conv1", "map"), failure(8, "cannot be read")]
    (found,) = compare(table(first), table(second))
    assert (found.pairs, found.infinite, found.failed, found.single) == (2, 2, 2, 3)
    assert found.psnr.mean == 1


def test_few_pairs() -> None:
    (one,) = compare(table([row(0, "conv1", "map", psnr=20.0)]), table([row(0, "conv1", "map", psnr=23.5)]))
    assert (one.pairs, one.psnr.mean, one.psnr.low, one.psnr.high, one.psnr.better) == (1, 3.5, None, None, 1.0)
    (none,) = compare(table([row(0, "conv1", "map")]), table([row(1, "conv1", "map")]))
    assert (none.pairs, none.psnr.mean, none.psnr.low, none.psnr.better, none.single) == (0, None, None, None, 2)


def test_equal_differences_have_an_interval_without_width() -> None:
    # Their mean rounds to another number.
    values = numpy.full(3, 0.1)
    assert values.mean() != 0.1
    found = paired(values)
    assert (found.mean, found.low, found.high) == (0.1, 0.1, 0.1)


def test_one_method_each_is_compared_by_layer() -> None:
    first = random_rows(5, ["conv1", "conv2"], ["linear"], seed=1)
    second = random_rows(5, ["conv2", "conv3"], ["map"], seed=2)
    found = compare(table(first), table(second))
    assert [(each.first, each.second) for each in found] == [(Place("conv2", "linear"), Place("conv2", "map"))]


def test_one_layer_each_is_compared_by_method() -> None:
    first = random_rows(5, ["conv1"], ["linear", "map"], seed=1)
    second = random_rows(5, ["relu5"], ["map", "gradient"], seed=2)
    found = compare(table(first), table(second))
    assert [(each.first, each.second) for each in found] == [(Place("conv1", "map"), Place("relu5", "map"))]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((["conv1"], ["linear"]), (["conv2"], ["map"])),
        ((["conv1", "conv2"], ["linear", "map"]), (["conv1"], ["gradient"])),
        ((["conv1"], ["linear"]), ([], [])),
    ],
)
def test_nothing_in_common_is_refused_with_what_there_is(
    one: tuple[list[str], list[str]], other: tuple[list[str], list[str]]
) -> None:
    first, second = (random_rows(3, *held, seed=1) or [failure(0, "cannot be read")] for held in (one, other))
    with pytest.raises(CallError) as caught:
        compare(table(first), table(second))
    for layers, methods in (one, other):
        for layer in layers:
            for method in methods:
                assert f"{layer} by {method}" in str(caught.value)
