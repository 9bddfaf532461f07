"""Figures 3 and 4 of the CReLU paper on the networks of a table that were trained."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconstruct.commands.findings import write
from reconstruct.commands.terminal import progress, strict

if TYPE_CHECKING:
    import torch

    from reconstruct.network.network import Network
    from reconstruct.report.pages.table import Drawing
    from reconstruct.training.data import Pictures
    from reconstruct.zoo.paper_cells import Cell

PAIRED, SCORED = 4, 7
"""How many convolutions the paper's figures show: Figure 3 its first four, Figure 4 its first seven."""
BESIDE = 4
"""How many networks stand beside a table's first one in a figure of invariance."""


def draw_figures(
    cells: Sequence[Cell], test: Pictures, output: Path, *, count: int, device: str, silent: bool
) -> list[Drawing]:
    """Draw both figures of the networks of one table, where they do not lie there already; and write their numbers.

    Parameters
    ----------
    cells : the table's, whose networks lie in ``output``.
    test : pictures to measure invariance on, and ``count`` of how many at most.

    Returns
    -------
    The figures, Figure 3 first.
    """
    from reconstruct.images.atomic import write_atomically
    from reconstruct.report.pages.table import Drawing
    from reconstruct.training.tables import trained_network
    from reconstruct.zoo.load import load_network

    table, models = cells[0].table, list(dict.fromkeys(each.model for each in cells))
    count = min(count, len(test))
    settings = {"models": models, "pictures": count}
    first, *others = models
    groups = [[first, *others[k : k + BESIDE]] for k in range(0, max(1, len(others)), BESIDE)]
    pairs = Drawing(
        output / f"figure3.table{table}.png",
        f"Figure 3, Table {table}: cosines of filters with their pairing filters in the first {PAIRED} convolutions, "
        "beside those of random filters.",
    )
    scores = [
        Drawing(
            output / f"figure4.table{table}{'' if len(groups) == 1 else f'.{k}'}.png",
            f"Figure 4, Table {table}: invariance scores of the first {SCORED} convolutions of {', '.join(group)} "
            f"on {count:,} test pictures.",
        )
        for k, group in enumerate(groups, 1)
    ]
    drawings, record = [pairs, *scores], output / f"figures.table{table}.json"
    if _is_of(record, settings) and all(each.path.is_file() for each in drawings):
        return drawings
    from reconstruct.analysis.crelu.invariance.measure import invariance
    from reconstruct.analysis.crelu.pairing import layer_pairs
    from reconstruct.report.figures.filters import cosine_histograms
    from reconstruct.report.figures.invariance import invariance_figure

    rows, scored, numbers = {}, {}, []
    with progress(2 * count * len(models), silent, "figures 3 and 4") as advance:
        for model in models:
            net = load_network(trained_network(output, cells, model), device=device)
            layers = [each.name for each in net.layers_with_weights]
            found = [layer_pairs(net, layer) for layer in layers[:PAIRED]]
            rows[model] = [(each.layer, each.cosines, each.random) for each in found]
            scored[model] = invariance(net, partial(_squares, net, test, count), layers[:SCORED], advance=advance)
            numbers += [{"what": "pairs", "model": model, **each.record()} for each in found]
            numbers += [{"what": "invariance", "model": model, **each.record()} for each in scored[model]]
    write(cosine_histograms(rows), pairs.path)
    for group, drawing in zip(groups, scores, strict=True):
        write(invariance_figure({model: scored[model] for model in group}), drawing.path)
    text = json.dumps(strict(settings | {"numbers": numbers}), indent=1, allow_nan=False)
    write_atomically(record, f"{text}\n".encode())
    return drawings


def _is_of(record: Path, settings: dict[str, Any]) -> bool:
    """Whether the figures that lie there are of these networks and as many pictures."""
    try:
        found = json.loads(record.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and all(found.get(key) == value for key, value in settings.items())


def _squares(net: Network, test: Pictures, count: int) -> Iterator[torch.Tensor]:
    """Batches of so many pictures, spread evenly, as a network sees them."""
    import numpy
    import torch

    from reconstruct.evaluation.batch import CPU_PIXELS
    from reconstruct.training.classification import views
    from reconstruct.training.runs import augmentation_for

    how = augmentation_for(net.architecture, test)
    chosen = numpy.linspace(0, len(test) - 1, count).astype(int)
    for part in numpy.array_split(chosen, max(1, count * how.side**2 // CPU_PIXELS)):
        seen = numpy.stack([views(test.pixels(int(index)), how.side, how.resize, 1)[0] for index in part])
        yield torch.from_numpy(seen).float() / 255
