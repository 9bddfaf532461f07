"""Charts of results: small pictures, drawn by matplotlib, as elements of a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy

from reconstruct.report.pages.svg import COLOURS, INK, LINE, SOFT, as_svg, colour_of
from reconstruct.report.pages.wording import MINUS, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PIXELS = 72
"""An inch of matplotlib's, so that its points are the page's pixels."""
WIDTH = 360
ROW, HEADING, AXIS = 30, 16, 44
LEFT, RIGHT = 84, 50
MOST_BINS = 60
TEXT = 11
"""The size of text in pixels, where a chart is as wide as drawn."""
FEWEST_FOR_BINS = 25
"""With fewer values, each is a tick of its own."""
MARKERS = "os^DvPX*"
SHOWN_MARKERS = "●■▲◆▼✚✖✱"
"""The same marks as a page's text has them."""


class Spread(NamedTuple):
    """A row of a chart of distributions."""

    heading: str
    label: str
    colour: int
    values: numpy.ndarray


class Work(NamedTuple):
    """A point of a chart of quality against work.

    Attributes
    ----------
    label, colour : the method, and the number of its colour.
    passes : forward passes of an image, without preparing.
    preparation : forward passes of preparing, once.
    median, low, high : PSNR in dB: its median, and its 5th and 95th percentile.
    """

    label: str
    colour: int
    passes: float
    preparation: float
    median: float
    low: float
    high: float


class Interval(NamedTuple):
    """A row of a forest plot; no interval where there were too few pairs."""

    heading: str
    label: str
    colour: int
    mean: float
    low: float | None
    high: float | None


def distributions(rows: Sequence[Spread], axis: str, digits: int, description: str) -> str:
    """A chart of distributions, one ridge a row: a histogram, the median as a dot, 5 to 95 % as a line.

    Only finite values count. Where there are fewer than 25 each is a tick.

    Parameters
    ----------
    axis : what the values are.
    digits : of the median, printed at the right.
    description : what a reader who does not see the chart is told.
    """
    figure, axes, places = _rows([(row.heading, row.label) for row in rows])
    for row, place in zip(rows, places, strict=True):
        values = row.values[numpy.isfinite(row.values)]
        if not len(values):
            _note(axes, place, "all exact" if numpy.isinf(row.values).any() else "none")
            continue
        colour = colour_of(row.colour)
        low, median, high = numpy.quantile(values, (0.05, 0.5, 0.95)).tolist()
        lowest, highest = float(values.min()), float(values.max())
        if len(values) >= FEWEST_FOR_BINS and highest > lowest:
            # Rice's rule.
            counts, edges = numpy.histogram(values, min(MOST_BINS, math.ceil(2 * len(values) ** (1 / 3))))
            heights = place - (ROW - 8) * counts / counts.max()
            axes.stairs(heights, edges, baseline=place, fill=True, facecolor=colour, alpha=0.3, linewidth=0)
            axes.stairs(heights, edges, baseline=place, color=colour, linewidth=0.8)
        else:
            axes.vlines(numpy.unique(values), place - 11, place, color=colour, alpha=0.6, linewidth=1.5)
        axes.plot([low, high], [place, place], color=colour, linewidth=3, solid_capstyle="butt")
        axes.plot([median], [place], "o", markersize=6, color=colour, markeredgecolor=INK, markeredgewidth=1)
        _note(axes, place, f"{median:.{digits}f}")
    axes.set_xlabel(axis)
    _widen(axes)
    return as_svg(figure, description)


def work(points: Sequence[Work], title: str, passes: tuple[float, float], quality: tuple[float, float]) -> str:
    """A chart of PSNR against forward passes: filled, an image's own; hollow, with all that is prepared for it.

    Parameters
    ----------
    passes, quality : the limits of the axes, shared by the charts of a page; see ``work_limits``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / PIXELS, 240 / PIXELS), dpi=PIXELS)
    axes = figure.add_axes((50 / WIDTH, 46 / 240, (WIDTH - 64) / WIDTH, (240 - 76) / 240))
    for point in points:
        colour, marker = colour_of(point.colour), MARKERS[point.colour % COLOURS]
        own, alone = (max(each, passes[0]) for each in (point.passes, point.passes + point.preparation))
        axes.plot([own, own], [point.low, point.high], color=colour, linewidth=2, solid_capstyle="butt", alpha=0.6)
        if point.preparation:
            axes.plot([own, alone], [point.median] * 2, color=colour, linewidth=1, dashes=(2, 2))
            axes.plot(
                [alone], [point.median], marker, markersize=8, color="none", markeredgecolor=colour, markeredgewidth=1.5
            )
        axes.plot([own], [point.median], marker, markersize=8, color=colour, markeredgecolor=INK, markeredgewidth=0.8)
    axes.set_xscale("log")
    axes.set(xlim=passes, ylim=quality, xlabel="forward passes an image", ylabel="PSNR, dB")
    axes.text(
        0, 1.05, short(title, 40), transform=axes.transAxes, weight="bold", color=INK, size=TEXT, parse_math=False
    )
    axes.xaxis.set_major_formatter(_power)
    _quiet(axes, both=True)
    told = "; ".join(
        f"{point.label}: median {point.median:.1f} dB for {point.passes:.3g} passes"
        + (f", {point.passes + point.preparation:.3g} with preparation" if point.preparation else "")
        for point in points
    )
    return as_svg(figure, f"PSNR against forward passes at {title}. {told}.")


def work_limits(points: Sequence[Work]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Limits of the axes that hold all points: whole decades of passes, and PSNR with a margin."""
    # A millionth of a pass is none: whoever says so has measured nothing.
    found = [each for point in points for each in (point.passes, point.passes + point.preparation) if each > 1e-6]
    low = 10.0 ** math.floor(math.log10(min(found, default=1)) - 0.05)
    high = 10.0 ** math.ceil(math.log10(max(found, default=1)) + 0.05)
    lowest, highest = min(point.low for point in points), max(point.high for point in points)
    margin = 0.08 * (highest - lowest) or 1
    return (low, high), (lowest - margin, highest + margin)


def course(curve: Sequence[tuple[float, float]], budget: float, label: str) -> str:
    """A chart of PSNR in dB against forward passes, as one reconstruction goes on.

    Parameters
    ----------
    curve : forward passes and PSNR; exact images, whose PSNR is infinite, are left out.
    budget : how far the axis reaches at least, so that it stands still while the line grows.
    label : what is reconstructed, and how.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(640 / PIXELS, 165 / PIXELS), dpi=PIXELS)
    axes = figure.add_axes((48 / 640, 42 / 165, 576 / 640, 113 / 165))
    shown = [(passes, each) for passes, each in curve if math.isfinite(each)]
    passes, values = [each[0] for each in shown], [each[1] for each in shown]
    axes.plot(passes, values, color=colour_of(0), linewidth=2)
    axes.plot(passes[-1:], values[-1:], "o", markersize=6, color=colour_of(0), markeredgecolor=INK, markeredgewidth=0.8)
    # PSNR below 0 is possible, of nothing one would look at; steps of 10 keep the axis from creeping.
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    top = max(20.0, 10 * math.ceil((high + 1) / 10))
    axes.set(xlim=(0, 1.02 * max([budget, *passes])), ylim=(min(0.0, 10 * math.floor(low / 10)), top))
    axes.set(xlabel="forward passes", ylabel="PSNR, dB")
    _quiet(axes, both=True)
    told = f"{values[-1]:.1f} dB after {passes[-1]:.0f} passes" if values else "nothing yet"
    return as_svg(figure, f"PSNR against forward passes of {label}: {told}.")


def forest(rows: Sequence[Interval], axis: str, digits: int, description: str) -> str:
    """A chart of mean differences with their intervals, one row each, beside zero.

    Parameters
    ----------
    axis, digits, description : as in ``distributions``.
    """
    figure, axes, places = _rows([(row.heading, row.label) for row in rows], ROW - 4)
    axes.axvline(0, color=SOFT, linewidth=1)
    for row, place in zip(rows, places, strict=True):
        colour, middle = colour_of(row.colour), place - 8
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [middle, middle], color=colour, linewidth=3, solid_capstyle="butt")
            axes.vlines([row.low, row.high], middle - 4, middle + 4, color=colour, linewidth=1.5)
        marker = MARKERS[row.colour % COLOURS]
        axes.plot([row.mean], [middle], marker, markersize=7, color=colour, markeredgecolor=INK, markeredgewidth=0.8)
        _note(axes, place, f"{row.mean:+.{digits}f}".replace("-", MINUS))
    axes.set_xlabel(axis)
    _widen(axes)
    return as_svg(figure, description)


def _rows(labels: Sequence[tuple[str, str]], height: int = ROW) -> tuple[Figure, Axes, list[float]]:
    """A figure of labelled rows below headings, and where the rows' foot is, downward in pixels."""
    from matplotlib.figure import Figure

    places: list[float] = []
    headings: list[tuple[float, str]] = []
    below = 4.0
    for number, (heading, _) in enumerate(labels):
        if heading and (number == 0 or labels[number - 1][0] != heading):
            # The first ridge reaches up beside its heading.
            below += HEADING if number else 2
            headings.append((below + 9, heading))
        below += height
        places.append(below)
    below += 8
    tall = below + AXIS
    figure = Figure(figsize=(WIDTH / PIXELS, tall / PIXELS), dpi=PIXELS)
    axes = figure.add_axes((LEFT / WIDTH, AXIS / tall, (WIDTH - LEFT - RIGHT) / WIDTH, below / tall))
    axes.set_ylim(below, 0)
    axes.set_yticks([])
    _quiet(axes)
    edge = -LEFT / (WIDTH - LEFT - RIGHT)
    across = axes.get_yaxis_transform()
    for place, heading in headings:
        text = short(heading, 48)
        axes.text(
            edge, place, text, transform=across, va="bottom", weight="bold", color=INK, size=TEXT, parse_math=False
        )
    for place, (heading, label) in zip(places, labels, strict=True):
        left = edge * (0.94 if heading else 1)
        text = short(label, 13)
        axes.text(left, place, text, transform=across, va="bottom", color=INK, size=TEXT, parse_math=False)
    return figure, axes, places


def _note(axes: Axes, place: float, text: str) -> None:
    """Write at the right of a row."""
    axes.text(1.03, place, text, transform=axes.get_yaxis_transform(), va="bottom", color=SOFT, size=TEXT)


def _widen(axes: Axes) -> None:
    """Set limits that leave room around the values, even around a single one."""
    low, high = axes.dataLim.intervalx
    if not (math.isfinite(low) and math.isfinite(high)):
        low, high = 0.0, 1.0
    # Below it, ticks would need an offset to tell values apart.
    least = max(1e-3 * max(abs(low), abs(high)), 1e-9)
    margin = max(0.04 * (high - low), 0.1 * max(abs(high), 1e-6) if high - low < least else 0)
    axes.set_xlim(low - margin, high + margin)


def _quiet(axes: Axes, both: bool = False) -> None:
    """Take away all of the axes that the values do not need; ``both`` keeps the vertical one."""
    from matplotlib.ticker import MaxNLocator

    axes.set_facecolor("none")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", *([] if both else ["left"])]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(LINE)
    axes.tick_params(colors=SOFT, labelcolor=SOFT, labelsize=TEXT, length=3, which="major")
    axes.tick_params(length=0, which="minor")
    axes.grid(axis="both" if both else "x", color=LINE, linewidth=0.6)
    if axes.get_xscale() == "linear":
        axes.xaxis.set_major_locator(MaxNLocator(5))
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(SOFT)
        label.set_fontsize(TEXT)


def _power(value: float, _position: float) -> str:
    """A power of ten, written as a person writes it."""
    if value >= 1e5:
        return f"10{str(round(math.log10(value))).translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
    return f"{value:,.10g}"
