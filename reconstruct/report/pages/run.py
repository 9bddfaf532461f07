"""The content of the page of a run: sentences, charts, pictures and failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pyarrow
from markupsafe import Markup

from reconstruct.evaluation.results import SCHEMA, Key, by_key, gallery, read_rows, read_run, summarise, thumbnail
from reconstruct.report.pages import charts
from reconstruct.report.pages.svg import COLOURS
from reconstruct.report.pages.thumbnails import Album, Picture
from reconstruct.report.pages.wording import counted, fixed, flat, text

GALLERY = 4
"""Pictures of each kind where ``run.json`` does not say how many ``evaluate`` kept."""
FAILURES = 200
"""Failures that are listed."""
COLUMNS = [name for name in SCHEMA.names if name not in ("noise", "device", "output")]


@dataclass(frozen=True)
class Pair:
    """An image before and after, and how good it is."""

    image: str
    original: Picture
    rebuilt: Picture
    psnr: float
    ssim: float | None


@dataclass
class Gallery:
    """The pictures of a layer and method.

    Attributes
    ----------
    groups : pairs by group: worst, median, best.
    missing : how many have no thumbnail.
    left_out : how many did not fit into the page.
    """

    layer: str
    method: str
    groups: dict[str, list[Pair]]
    missing: int = 0
    left_out: int = 0


def run(folder: Path) -> dict[str, Any]:
    """The values that ``run.html`` is filled with."""
    call, table = read_run(folder), read_rows(folder, COLUMNS)
    summary = summarise(table, {"sessions": [], **call})
    rows = by_key(table)
    colours = colours_of(key.method for key in rows)
    album = Album()
    failed = table.filter(table["error"].is_valid())
    return {
        "kind": "run",
        "title": f"{model_name(call, folder)}: images rebuilt from features",
        "model": model_name(call, folder),
        "source": source_name(call),
        "layers": list(dict.fromkeys(each["layer"] for each in summary["results"])),
        "methods": list(dict.fromkeys(each["method"] for each in summary["results"])),
        "sentences": sentences(summary, call),
        "summary": summary,
        "colours": colours,
        "markers": charts.SHOWN_MARKERS,
        "distributions": distribution_charts(rows, colours),
        "works": work_charts(rows, colours),
        "galleries": galleries(folder, rows, album, int(call.get("gallery", GALLERY))),
        "album": album,
        "failures": listed_failures(failed),
        "failure_rows": len(failed),
        **made(call),
    }


def made(call: Mapping[str, Any]) -> dict[str, Any]:
    """The values that tell how a run came about, for the end of the page."""
    sessions = call.get("sessions") or []
    return {
        "call": text(call.get("call")),
        "trained_on": call.get("trained_on"),
        "settings": _listed({name: call.get(name) or {} for name in ("settings", "selection")}),
        "versions": _listed(call.get("versions") or {}),
        "machine": _listed(call.get("machine") or {}),
        "sessions": sessions,
        "resumed": max(0, len(sessions) - 1),
    }


def _listed(settings: Mapping[str, Any]) -> dict[str, str]:
    return {name.removeprefix("settings."): text(value) for name, value in flat(settings).items() if value != {}}


def model_name(call: Mapping[str, Any], folder: Path) -> str:
    """The model that the features are of."""
    return str(_inside(call, "settings", "model", "name") or folder.resolve().name)


def source_name(call: Mapping[str, Any]) -> str:
    """The folder or file that the images are from."""
    return str(_inside(call, "settings", "source", "path") or "images that the run does not name")


def _inside(call: object, *names: str) -> Any:
    for name in names:
        call = call.get(name) if isinstance(call, Mapping) else None
    return call


def colours_of(names: Any) -> dict[str, int]:
    """One colour a name, in the order of first appearance."""
    return {name: number % COLOURS for number, name in enumerate(dict.fromkeys(names))}


def sentences(summary: Mapping[str, Any], call: Mapping[str, Any]) -> list[str]:
    """The result in plain words."""
    images, failed = summary["images"], summary["failed"]
    found = [
        f"{counted(images - failed, 'image')} of {images:,} {'was' if images - failed == 1 else 'were'} rebuilt without"
        f" a failure; {f'{failed:,} failed at least once' if failed else 'none failed'}."
    ]
    selected = _inside(call, "selection", "images")
    if isinstance(selected, int) and images < selected:
        found.append(f"The run is not finished: {images:,} of {counted(selected, 'image')} so far.")
    rated = sorted(
        (each for each in summary["results"] if each["psnr"]["mean"] is not None), key=lambda each: each["psnr"]["mean"]
    )
    if len(rated) == 1:
        found.append(f"On average: {_rated(rated[0])}.")
    elif rated:
        found.append(f"Worst on average: {_rated(rated[0])}. Best: {_rated(rated[-1])}.")
    exact = sum(each["exact"] for each in summary["results"])
    if exact:
        found.append(
            f"{counted(exact, 'reconstruction')} {'is' if exact == 1 else 'are'} exact: an infinite PSNR, in no mean."
        )
    return found


def _rated(result: Mapping[str, Any]) -> str:
    said = f"{result['layer']} by {result['method']} with a PSNR of {fixed(result['psnr']['mean'], 1)} dB"
    ssim = result["ssim"]["mean"]
    # Images smaller than its window have none.
    return said if ssim is None else f"{said} and an SSIM of {fixed(ssim, 3)}"


def distribution_charts(rows: Mapping[Key, pyarrow.Table], colours: Mapping[str, int]) -> list[dict[str, Any]]:
    """Charts of the PSNR and the SSIM of each layer and method."""
    if not rows:
        return []
    layers = {key.layer: [other for other in rows if other.layer == key.layer] for key in rows}
    found = []
    for name, axis, digits in (("psnr", "PSNR, dB", 1), ("ssim", "SSIM", 2)):
        spreads = [
            charts.Spread(key.layer, key.method, colours[key.method], rows[key][name].to_numpy())
            for keys in layers.values()
            for key in keys
        ]
        infinite = sum(int(numpy.isinf(spread.values).sum()) for spread in spreads)
        medians = ", ".join(
            f"{spread.heading} by {spread.label} {_median(spread.values, digits)}" for spread in spreads
        )
        found.append(
            {
                "svg": Markup(
                    charts.distributions(spreads, axis, digits, f"{axis}, distributions. Medians: {medians}.")
                ),
                "name": name.upper(),
                "infinite": infinite,
            }
        )
    return found


def _median(values: numpy.ndarray, digits: int) -> str:
    finite = values[numpy.isfinite(values)]
    return fixed(float(numpy.median(finite)), digits) if len(finite) else "none"


def work_charts(rows: Mapping[Key, pyarrow.Table], colours: Mapping[str, int]) -> list[Markup]:
    """Charts of PSNR against forward passes, one a layer, on common axes."""
    points: dict[str, list[charts.Work]] = {}
    for key, table in rows.items():
        psnr = table["psnr"].to_numpy()
        finite = psnr[numpy.isfinite(psnr)]
        if len(finite):
            low, median, high = numpy.quantile(finite, (0.05, 0.5, 0.95)).tolist()
            # What is prepared once is in the rows of the images that it was prepared for.
            once = float(numpy.nanmax(table["prepare_passes"].to_numpy(), initial=0))
            passes = float(numpy.nanmean(table["forward_passes"].to_numpy()))
            points.setdefault(key.layer, []).append(
                charts.Work(key.method, colours[key.method], passes, once, median, low, high)
            )
    if not points:
        return []
    limits = charts.work_limits([point for each in points.values() for point in each])
    return [Markup(charts.work(each, layer, *limits)) for layer, each in points.items()]


def galleries(folder: Path, rows: Mapping[Key, pyarrow.Table], album: Album, count: int = GALLERY) -> list[Gallery]:
    """The worst, median and best of each layer and method, up to ``count`` of each, as many as fit into the page."""
    found: list[Gallery] = []
    rounds: list[list[tuple[Gallery, str, Pair]]] = [[] for _ in range(3 * count)]
    for key, table in rows.items():
        picked = gallery(table, count)
        here = Gallery(key.layer, key.method, {name: [] for name in picked})
        found.append(here)
        for group, (name, indices) in enumerate(picked.items()):
            for rank, pair in enumerate(_pairs(folder, key, table, indices, album)):
                if pair is None:
                    here.missing += 1
                else:
                    rounds[3 * rank + group].append((here, name, pair))
    full = False
    for number, each in enumerate(rounds):
        # The first round, each layer's and method's worst, as far as it fits; the others whole.
        for part in [[one] for one in each] if number == 0 else [each]:
            full = full or not album.take(picture for *_, pair in part for picture in (pair.original, pair.rebuilt))
            for here, name, pair in part:
                if full:
                    here.left_out += 1
                else:
                    here.groups[name].append(pair)
    return found


def _pairs(folder: Path, key: Key, table: pyarrow.Table, indices: Sequence[int], album: Album) -> list[Pair | None]:
    """The pictures of each index, or None where one is missing."""
    places = numpy.searchsorted(table["index"].to_numpy(), indices)
    found: list[Pair | None] = []
    for index, row in zip(indices, table.take(places).to_pylist(), strict=True):
        original = album.find(thumbnail(folder, index))
        rebuilt = album.find(thumbnail(folder, index, key.layer, key.method))
        found.append(
            None
            if original is None or rebuilt is None
            else Pair(row["image"], original, rebuilt, row["psnr"], row["ssim"])
        )
    return found


def listed_failures(failed: pyarrow.Table) -> list[dict[str, Any]]:
    """The first failures: those of whole images first, then by layer and method."""
    rows = failed.select(["index", "image", "layer", "method", "error"]).to_pylist()
    order = list(dict.fromkeys((row["layer"], row["method"]) for row in rows))
    rank = {each: (each[0] is not None, number) for number, each in enumerate(order)}
    return sorted(rows, key=lambda row: rank[row["layer"], row["method"]])[:FAILURES]
