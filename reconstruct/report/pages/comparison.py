"""The content of the page of a comparison: sentences, charts, pictures, and what differs between the runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import pyarrow
from markupsafe import Markup

from reconstruct.errors import CallError
from reconstruct.evaluation.results import read_rows, read_run, summarise, thumbnail
from reconstruct.report.compare import Difference, Paired, Place, compare, rows_at
from reconstruct.report.pages import charts
from reconstruct.report.pages.run import COLUMNS, made, model_name, source_name
from reconstruct.report.pages.svg import COLOURS
from reconstruct.report.pages.thumbnails import Album, Picture
from reconstruct.report.pages.wording import counted, differing, fixed, signed

GALLERY = 4
"""Images of each layer and method that are shown: where the second does worst and best against the first."""
SENTENCES = 12


class Run(NamedTuple):
    """A run that is compared."""

    label: str
    folder: Path
    call: dict[str, Any]
    table: pyarrow.Table
    summary: dict[str, Any]


class Panel(NamedTuple):
    """A run's picture of an image; without PSNR it is the original."""

    label: str
    picture: Picture
    psnr: float | None = None


class Triple(NamedTuple):
    """An image, as it was and as each run rebuilt it."""

    image: str
    panels: list[Panel]


def comparison(folders: Sequence[Path]) -> dict[str, Any]:
    """The values that ``comparison.html`` is filled with.

    Raises
    ------
    CallError : a folder holds no results, or the first and another have nothing to compare.
    """
    runs, differences = compared(folders)
    first = runs[0]
    colours = {run.label: number % COLOURS for number, run in enumerate(runs)}
    album = Album()
    return {
        "kind": "comparison",
        "title": f"Comparison of {' and '.join(run.label for run in runs)}" if len(runs) == 2 else f"{len(runs)} runs",
        "runs": [
            {
                "label": run.label,
                "model": model_name(run.call, run.folder),
                "source": source_name(run.call),
                "summary": run.summary,
                **made(run.call),
            }
            for run in runs
        ],
        "sentences": [sentence(each, first.label, other.label) for other, each in differences[:SENTENCES]],
        "more_sentences": max(0, len(differences) - SENTENCES),
        "differences": [(other.label, each, _where(each)) for other, each in differences],
        "forests": _forests(differences, first, colours),
        "colours": colours,
        "markers": charts.SHOWN_MARKERS,
        "beside": _beside(runs),
        "differing": differing(
            [(run.call.get("settings") or {}) | {"selection": run.call.get("selection")} for run in runs]
        ),
        "galleries": _galleries(first, differences, album),
        "album": album,
    }


def compared(folders: Sequence[Path]) -> tuple[list[Run], list[tuple[Run, Difference]]]:
    """The runs, and the differences of each but the first to the first.

    Raises
    ------
    CallError : a folder holds no results, or the first and another have nothing to compare.
    """
    runs = [_run(folder, label) for folder, label in zip(folders, labels(folders), strict=True)]
    first, *others = runs
    differences: list[tuple[Run, Difference]] = []
    for other in others:
        try:
            differences += [(other, each) for each in compare(first.table, other.table)]
        except CallError as error:
            raise CallError(f"{first.folder} and {other.folder}: {error}") from error
    return runs, differences


def labels(folders: Sequence[Path]) -> list[str]:
    """The folders' names, made unique."""
    paths = [folder.resolve() for folder in folders]
    found = [path.name for path in paths]
    twice = {name for name, number in Counter(found).items() if number > 1}
    found = [f"{path.parent.name}/{name}" if name in twice else name for path, name in zip(paths, found, strict=True)]
    seen: Counter[str] = Counter()
    unique: list[str] = []
    for name in found:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return unique


def _run(folder: Path, label: str) -> Run:
    call, table = read_run(folder), read_rows(folder, COLUMNS)
    return Run(label, folder, call, table, summarise(table, {"sessions": [], **call}))


def _where(difference: Difference) -> str:
    """The place of a difference in words."""
    one, other = difference.first, difference.second
    if one == other:
        return f"{one.layer} by {one.method}"
    if one.layer == other.layer:
        return f"{one.layer}, {other.method} against {one.method}"
    return f"{one.method}, {other.layer} against {one.layer}"


def sentence(difference: Difference, first: str, second: str) -> str:
    """A difference in plain words."""
    where, psnr, pairs = _where(difference), difference.psnr, difference.pairs
    if psnr.mean is None:
        return f"At {where} no picture can be compared between {second} and {first}."
    words = "better" if psnr.mean > 0 else "worse"
    if psnr.low is None or psnr.high is None:
        return (
            f"{second} is {fixed(abs(psnr.mean), 2)} dB {words} than {first} at {where}, on one picture:"
            " too few for an interval."
        )
    interval = f"95 % interval {signed(psnr.low)} to {signed(psnr.high)}, on {counted(pairs, 'picture')}"
    if psnr.low == psnr.high == 0:
        return f"{second} and {first} are equal at {where}, on {counted(pairs, 'picture')}."
    if psnr.low <= 0 <= psnr.high:
        return f"{second} and {first} cannot be told apart at {where}: {signed(psnr.mean)} dB, {interval}."
    low, high = sorted((abs(psnr.low), abs(psnr.high)))
    return (
        f"{second} is {fixed(abs(psnr.mean))} dB {words} than {first} at {where}, "
        f"95 % interval {fixed(low)} to {fixed(high)}, on {counted(pairs, 'picture')}."
    )


def _forests(
    differences: Sequence[tuple[Run, Difference]], first: Run, colours: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Mean differences of PSNR and SSIM with intervals, those of a layer and method together."""
    found = []
    order = list(dict.fromkeys(_where(each) for _, each in differences))
    together = sorted(differences, key=lambda each: order.index(_where(each[1])))
    for name, unit, digits in (("PSNR", ", dB", 2), ("SSIM", "", 3)):
        rows = []
        for run, each in together:
            measured: Paired = each.psnr if name == "PSNR" else each.ssim
            if measured.mean is not None:
                rows.append(
                    charts.Interval(
                        _where(each), run.label, colours[run.label], measured.mean, measured.low, measured.high
                    )
                )
        if rows:
            told = "; ".join(f"{row.heading}: {row.label} {signed(row.mean, digits)}" for row in rows)
            described = f"Mean difference of {name} to {first.label}{unit}, with 95 % intervals. {told}."
            drawn = charts.forest(rows, f"{name} less that of the first run{unit}", digits, described)
            found.append({"svg": Markup(drawn), "name": name})
    return found


def _beside(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Every layer and method that a run holds, with each run's results or None."""
    held = [{Place(each["layer"], each["method"]): each for each in run.summary["results"]} for run in runs]
    places = dict.fromkeys(place for results in held for place in results)
    return [{"place": place, "results": [results.get(place) for results in held]} for place in places]


def _galleries(
    first: Run, differences: Sequence[tuple[Run, Difference]], album: Album
) -> list[tuple[str, list[Triple]]]:
    """Images that the first run and another have pictures of, by layer and method, as many as fit."""
    found: dict[str, list[Triple]] = {}
    rounds: list[list[tuple[str, Triple]]] = [[] for _ in range(GALLERY)]
    kept = {run.label: {path.name for path in (run.folder / "thumbnails").glob("*")} for run, _ in differences}
    kept[first.label] = {path.name for path in (first.folder / "thumbnails").glob("*")}
    for one in dict.fromkeys(each.first for _, each in differences):
        same = [(run, each.second) for run, each in differences if each.first == one]
        name = _where(next(each for _, each in differences if each.first == one))
        found[name] = []
        for number, triple in enumerate(_triples(first, one, same, kept, album)):
            rounds[number].append((name, triple))
    for each in rounds:
        if not album.take(panel.picture for _, triple in each for panel in triple.panels):
            break
        for name, triple in each:
            found[name].append(triple)
    return [(name, triples) for name, triples in found.items() if triples]


def _triples(
    first: Run, one: Place, others: Sequence[tuple[Run, Place]], kept: Mapping[str, set[str]], album: Album
) -> list[Triple]:
    """Up to four images: where the first of the others does worst and best, in turn."""
    base = _pictured(first, one, kept[first.label])
    rest = [(run, place, _pictured(run, place, kept[run.label])) for run, place in others]
    names = [name for name in base if any(name in held for *_, held in rest)]

    def gain(name: str) -> float:
        other = next(held[name][1] for *_, held in rest if name in held)
        return 0.0 if other == base[name][1] else other - base[name][1]

    names.sort(key=lambda name: (gain(name), name))
    in_turn = [name for ends in zip(names, names[::-1], strict=True) for name in ends]
    found: list[Triple] = []
    for name in dict.fromkeys(in_turn):
        index, psnr = base[name]
        panels = [
            ("original", album.find(thumbnail(first.folder, index)), None),
            (first.label, album.find(thumbnail(first.folder, index, *one)), psnr),
            *(
                (run.label, album.find(thumbnail(run.folder, held[name][0], *place)), held[name][1])
                for run, place, held in rest
                if name in held
            ),
        ]
        shown = [Panel(label, picture, psnr) for label, picture, psnr in panels if picture is not None]
        if len(shown) == len(panels):
            found.append(Triple(name, shown))
        if len(found) == GALLERY:
            break
    return found


def _pictured(run: Run, place: Place, kept: set[str]) -> dict[str, tuple[int, float]]:
    """The index and PSNR, by name, of the images with a thumbnail at a layer and method."""
    indices = [int(name.split(".")[0]) for name in kept if name.split(".")[0].isdecimal()]
    wanted = sorted({index for index in indices if thumbnail(run.folder, index, *place).name in kept})
    rows = rows_at(run.table, place)
    rows = rows.filter(pyarrow.array(numpy.isin(rows["index"].to_numpy(), wanted) & rows["error"].is_null().to_numpy()))
    return {row["image"]: (row["index"], row["psnr"]) for row in rows.select(["image", "index", "psnr"]).to_pylist()}
