"""Two runs held against each other, image by image."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy
import pyarrow
import pyarrow.compute

from reconstruct.errors import CallError

CONFIDENCE = 0.95


class Place(NamedTuple):
    """A place where runs are compared: reconstructions from a layer by a method."""

    layer: str
    method: str


@dataclass(frozen=True)
class Paired:
    """Differences of a measure, second minus first, over the pairs of a comparison.

    Attributes
    ----------
    mean : mean difference; None without pairs.
    low, high : 95 % confidence interval of the mean by Student's t; None with fewer than two pairs.
    better : share of the pairs in which the second is larger; None without pairs.
    """

    mean: float | None
    low: float | None
    high: float | None
    better: float | None


@dataclass(frozen=True)
class Difference:
    """A layer and method of one run against one of another.

    Attributes
    ----------
    first, second : what was compared; the same layer and method where the runs share any.
    pairs : images of which both runs have a finite PSNR; both measures are over these, SSIM over those that have one.
    psnr, ssim : differences in dB, and of SSIM.
    infinite, failed, single : images left out: a PSNR is infinite; a row failed; in one run only.
    """

    first: Place
    second: Place
    pairs: int
    psnr: Paired
    ssim: Paired
    infinite: int
    failed: int
    single: int


class Rows(NamedTuple):
    """The rows of a run at one place: the images that succeeded with PSNR and SSIM, and those that failed."""

    images: numpy.ndarray
    psnr: numpy.ndarray
    ssim: numpy.ndarray
    failed: numpy.ndarray


def compare(first: pyarrow.Table, second: pyarrow.Table) -> list[Difference]:
    """Differences of the second run to the first, paired by the images' names.

    There is one for each layer and method that both hold. If they share none, methods are ignored where each run has
    only one, else layers.

    Parameters
    ----------
    first, second : rows of ``reconstruct.evaluation.results``.

    Raises
    ------
    CallError : nothing in the one corresponds to anything in the other.
    """
    return [
        _difference(one, other, _rows(first, one), _rows(second, other)) for one, other in corresponding(first, second)
    ]


def corresponding(first: pyarrow.Table, second: pyarrow.Table) -> list[tuple[Place, Place]]:
    """The places of two runs that are compared, in the order of the first; see ``compare``.

    Raises
    ------
    CallError : nothing in the one corresponds to anything in the other.
    """
    ones, others = places(first), places(second)
    shared = [(one, one) for one in ones if one in others]
    if shared:
        return shared
    if _alone(one.method for one in ones) and _alone(other.method for other in others):
        shared = [(one, other) for one in ones for other in others if one.layer == other.layer]
    if not shared and _alone(one.layer for one in ones) and _alone(other.layer for other in others):
        shared = [(one, other) for one in ones for other in others if one.method == other.method]
    if not shared:
        raise CallError(
            "the runs share no layer and method, and which correspond is not clear: "
            f"one holds {_listed(ones)}, the other {_listed(others)}"
        )
    return shared


def places(table: pyarrow.Table) -> list[Place]:
    """The layers and methods of a run, failed or not, in the order of their first appearance."""
    named = table.filter(pyarrow.compute.and_(table["layer"].is_valid(), table["method"].is_valid()))
    found = named.group_by(Place._fields, use_threads=False).aggregate([]).to_pylist()
    return [Place(**each) for each in found]


def rows_at(table: pyarrow.Table, place: Place) -> pyarrow.Table:
    """The rows of a layer and method, failed or not."""
    same = [pyarrow.compute.equal(table[name], value) for name, value in place._asdict().items()]
    return table.filter(pyarrow.compute.and_(*same))


def _rows(table: pyarrow.Table, place: Place) -> Rows:
    here = rows_at(table, place)
    done = here.filter(here["error"].is_null())
    # What could not be read has no layer, and failed at each.
    unread = table.filter(pyarrow.compute.and_(table["layer"].is_null(), table["error"].is_valid()))
    failed = [*here.filter(here["error"].is_valid())["image"].to_pylist(), *unread["image"].to_pylist()]
    return Rows(
        numpy.array(done["image"].to_pylist(), dtype=object),
        done["psnr"].to_numpy().astype(float),
        done["ssim"].to_numpy().astype(float),
        numpy.array(failed, dtype=object),
    )


def _difference(one: Place, other: Place, first: Rows, second: Rows) -> Difference:
    at = {name: number for number, name in enumerate(second.images.tolist())}
    both = [(number, at[name]) for number, name in enumerate(first.images.tolist()) if name in at]
    left, right = numpy.array(both, dtype=int).reshape(-1, 2).T
    finite = numpy.isfinite(first.psnr[left]) & numpy.isfinite(second.psnr[right])
    left, right = left[finite], right[finite]
    failures = set(first.failed.tolist()) | set(second.failed.tolist())
    names = [{*rows.images.tolist(), *rows.failed.tolist()} for rows in (first, second)]
    return Difference(
        one,
        other,
        len(left),
        paired(second.psnr[right] - first.psnr[left]),
        paired(_known(second.ssim[right] - first.ssim[left])),
        infinite=len(both) - len(left),
        failed=len(failures & names[0] & names[1]),
        single=len(names[0] ^ names[1]),
    )


def paired(differences: numpy.ndarray) -> Paired:
    """The mean, its interval and the share above zero of differences, one a pair."""
    from scipy.special import stdtrit

    number = len(differences)
    if not number:
        return Paired(None, None, None, None)
    mean, better = float(differences.mean()), float((differences > 0).mean())
    if number < 2:
        return Paired(mean, None, None, better)
    if differences.min() == differences.max():
        # Rounding in the mean would give it a width.
        same = float(differences[0])
        return Paired(same, same, same, better)
    half = float(stdtrit(number - 1, (1 + CONFIDENCE) / 2) * differences.std(ddof=1)) / math.sqrt(number)
    return Paired(mean, mean - half, mean + half, better)


def _known(values: numpy.ndarray) -> numpy.ndarray:
    """The values without NaN, which stands for the SSIM of images that are too small for it."""
    return values[~numpy.isnan(values)]


def _alone(names: Iterable[str]) -> bool:
    return len(set(names)) == 1


def _listed(found: list[Place]) -> str:
    return ", ".join(f"{place.layer} by {place.method}" for place in found) or "none"
