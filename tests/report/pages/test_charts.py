import math
import re

import numpy
import pytest

from reconstruct.report.pages import charts


def test_charts_are_the_same_every_time_and_take_the_pages_colours() -> None:
    values = numpy.random.default_rng(1).normal(25, 3, 500)
    spreads = [charts.Spread("conv1", "$x_1$ <b>", 0, values), charts.Spread("conv2", "map", 1, values[:3])]
    drawn = charts.distributions(spreads, "PSNR, dB", 1, 'said "so"')
    assert drawn == charts.distributions(spreads, "PSNR, dB", 1, 'said "so"')
    assert not re.search(r"#[0-9a-f]{6}|https?:|<!--|<metadata|DejaVu", drawn)
    assert {"var(--ink)", "var(--c0)", "var(--c1)"} <= set(re.findall(r"var\(--\w+\)", drawn))
    assert "$x_1$ &lt;b&gt;" in drawn
    assert f">{numpy.median(values):.1f}<" in drawn
    assert 'aria-label="said &#34;so&#34;"' in drawn


@pytest.mark.parametrize("values", [[25.0], [25.0] * 60, [math.inf], [math.inf, 3.0], [0.0, 0.0], []])
def test_charts_of_little(values: list[float]) -> None:
    drawn = charts.distributions([charts.Spread("conv1", "map", 0, numpy.array(values))], "PSNR, dB", 1, "said")
    assert "nan" not in drawn
    assert "inf" not in drawn
    said = ">all exact<" if values == [math.inf] else ">none<" if not values else ">25.0<" if 25 in values else "<svg"
    assert said in drawn


def test_work_is_drawn_with_and_without_preparation() -> None:
    points = [
        charts.Work("map", 0, 30.0, 970.0, 25.0, 20.0, 30.0),
        charts.Work("linear", 1, 0.0, 0.0, 20.0, 20.0, 20.0),
    ]
    limits = charts.work_limits(points)
    assert limits[0] == (10.0, 10_000.0)
    drawn = charts.work(points, "conv1", *limits)
    assert "median 25.0 dB for 30 passes, 1e+03 with preparation" in drawn
    assert ">10,000<" in drawn


def test_the_course_of_a_reconstruction_is_told_without_its_exact_images() -> None:
    curve = [(3.0, 11.0), (6.0, 18.0), (9.0, 24.26)]
    drawn = charts.course(curve, 30, "conv2 by map")
    assert 'aria-label="PSNR against forward passes of conv2 by map: 24.3 dB after 9 passes."' in drawn
    # An exact image has no place on the axis.
    assert charts.course([*curve, (12.0, float("inf"))], 30, "conv2 by map") == drawn
    assert "nothing yet" in charts.course([], 30, "conv2 by map")
