"""``reconstruct analyze``: the papers' figures and tables, on any model.

Each analysis writes its figures and ``WHAT.json`` into the output folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reconstruct.commands.common import batches, device_of, load_chain, tell_other_size
from reconstruct.commands.findings import Columns, finish, write
from reconstruct.commands.groups import Group, example
from reconstruct.commands.options import (
    AsJson,
    Device,
    ImageSet,
    Limit,
    Output,
    Quiet,
    RandomWeights,
    Sample,
    Seed,
    SideOrArea,
    Split,
    Threads,
    area_of,
    check_selection,
    numbers_of,
)
from reconstruct.commands.terminal import busy, notes, number, printed, progress
from reconstruct.errors import CallError, ImageError

if TYPE_CHECKING:
    import torch

    from reconstruct.images.sets import Source
    from reconstruct.network.architecture import Architecture
    from reconstruct.network.architecture import Size as Area
    from reconstruct.network.network import Network
    from reconstruct.network.protocol import AnyNetwork

analyze = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None)

Models = Annotated[
    str, typer.Option("--model", help="Names in the zoo or paths of TOML specifications, several with commas.")
]
_ONE_NAME = "two of the models have one name: what is written of one would overwrite the other's"
LayerList = Annotated[str, typer.Option("--layer", help="A layer, several with commas, or 'all'.")]


@analyze.command(epilog=example("reconstruct analyze pairs --model crelu_conv1_4,all_cnn_b --output paper"))
def pairs(
    model: Models,
    layer: LayerList = "all",
    random_weights: RandomWeights = None,
    output: Output = Path(),
    as_json: AsJson = False,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Filters and their opposites: Figures 1 to 3 of the CReLU paper.

    Of any convolution of any model, whatever lies below it: no picture goes through. Writes MODEL.LAYER.pairs.png of
    each layer, pairs.png with histograms of all, and pairs.json.
    """
    with busy("loading", quiet or as_json):
        from reconstruct.zoo.load import load_model

        where = device_of("cpu", needs_cupy=False)
        nets = [load_model(name, random_weights=random_weights, device=where) for name in _names(model)]
    _check_names(nets)
    from reconstruct.analysis.crelu.pairing import lacking, layer_pairs
    from reconstruct.images.names import file_name
    from reconstruct.network.filters import filters_of
    from reconstruct.network.read_points import layer_list
    from reconstruct.report.figures.filters import cosine_histograms, pair_grid

    chosen = [(net, name) for net in nets for name in layer_list(net, layer)]
    # Refuses what has no filters before anything is written.
    reasons = [lacking(filters_of(net, name), name) for net, name in chosen]
    if layer == "all":
        alone = [f"{name} of {net.name}" for (net, name), reason in zip(chosen, reasons, strict=True) if reason]
        if alone and not quiet:
            left_out = f"left out, for only filters of the same channels are paired: {', '.join(alone)}"
            notes.print(left_out, soft_wrap=True)
        chosen = [each for each, reason in zip(chosen, reasons, strict=True) if reason is None]
    elif any(reasons):
        raise CallError(next(filter(None, reasons)))
    rows: dict[str, list[tuple[str, Any, Any]]] = {}
    records = []
    with progress(len(chosen), quiet or as_json, "pairing") as advance:
        for net, name in chosen:
            found = layer_pairs(net, name, seed)
            figure = write(pair_grid(found, net.name), output / file_name(net.name, name, "pairs", "png"))
            rows.setdefault(net.name, []).append((name, found.cosines, found.random))
            records.append({"model": net.name, **found.record(), "figure": figure})
            advance(1)
    drawn = write(cosine_histograms(rows), output / "pairs.png")
    columns: Columns = {
        "filters": lambda r: f"{r['filters']} of {' x '.join(map(str, r['filter_shape'][1:] + r['filter_shape'][:1]))}",
        "cosine": lambda r: f"{r['cosine_mean']:.3f} ± {r['cosine_std']:.3f}",
        "random": lambda r: f"{r['random_mean']:.3f} ± {r['random_std']:.3f}",
        "same covariance": lambda r: f"{r['same_covariance_mean']:.3f}",
        "below -0.5": lambda r: f"{r['share_below_minus_0.5']:.0%}",
        "mutual pairs": lambda r: str(r["mutual_pairs"]),
    }
    finish("pairs", [(records, columns, [drawn, *(r["figure"] for r in records)])], output, as_json, quiet)


@analyze.command(epilog=example("reconstruct analyze correlation --model crelu_conv1_4,all_cnn_b --output paper"))
def correlation(
    model: Models,
    layer: LayerList = "all",
    random_weights: RandomWeights = None,
    output: Output = Path(),
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Outgoing weights of a response's two phases: Table 6.

    Absolute cosines of outgoing weights, of pairs and of others, and where a model's layers are those of the paper's
    (CReLU at conv1 to conv7 of All-CNN-B) its cells beside them. Writes correlation.png and correlation.json.
    """
    nets = load_nets(model, layer, random_weights, "cpu", quiet or as_json)
    from reconstruct.analysis.crelu.correlation import lacking, outgoing_correlation
    from reconstruct.report.figures.correlation import correlation_figure
    from reconstruct.zoo.paper_cells import paper_layer

    applicable = _applicable(nets, layer, lacking, quiet)
    found = {
        net.name: [outgoing_correlation(net, name) for name in names]
        for net, names in zip(nets, applicable, strict=True)
        if names
    }
    cells = {net.name: {each: paper_layer(net.architecture, each) for each in net.layer_names} for net in nets}
    records = [
        {"model": name, **each.record(), "paper": None if cell is None else cell.record()}
        for name, layers in found.items()
        for each in layers
        for cell in [cells[name][each.layer]]
    ]
    drawn = write(correlation_figure(found), output / "correlation.png")
    columns: Columns = {
        "activation": lambda r: r["activation"],
        "pairs": lambda r: f"{r['pairs']} {r['paired']}",
        "pair": lambda r: f"{r['pair_mean']:.3f} ± {r['pair_std']:.3f}",
        "non-pair": lambda r: f"{r['non_pair_mean']:.3f} ± {r['non_pair_std']:.3f}",
        "chance": lambda r: f"{r['chance']:.3f}",
        "pair, with sign": lambda r: f"{r['pair_signed_mean']:.3f}",
    }
    if any(r["paper"] for r in records):
        # A line of a terminal holds no more; the rest is in the JSON.
        columns = {name: columns[name] for name in ("pair", "non-pair")}
        columns["paper's pair"] = lambda r: _paper_cell(r["paper"], "pair")
        columns["its non-pair"] = lambda r: _paper_cell(r["paper"], "non_pair")
    finish("correlation", [(records, columns, [drawn])], output, as_json, quiet)


@analyze.command(epilog=example("reconstruct analyze invariance photographs --model crelu_conv1_4 --output paper"))
def invariance(
    images: ImageSet,
    model: Models,
    layer: LayerList = "all",
    limit: Limit = None,
    sample: Sample = None,
    split: Split = "test",
    rate: Annotated[float, typer.Option(help="Of firing on images as they are.")] = 0.01,
    best: Annotated[float, typer.Option(help="Share of the units that the score is the mean of.")] = 0.2,
    size: SideOrArea = None,
    random_weights: RandomWeights = None,
    device: Device = "auto",
    threads: Threads = None,
    output: Output = Path(),
    as_json: AsJson = False,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Do units fire on when images move, turn, scale, flip: Figure 4.

    Goodfellow's invariance scores of each layer, models beside each other. Writes invariance.png and invariance.json.
    """
    check_selection(limit, sample)
    area = area_of(size)
    nets = load_nets(model, layer, random_weights, device, quiet or as_json)
    if not quiet:
        for net in nets:
            tell_other_size(net, area, False)
    from reconstruct.analysis.crelu.invariance.measure import invariance as scored
    from reconstruct.images.sources import open_source, select
    from reconstruct.network.read_points import layer_list
    from reconstruct.report.figures.invariance import invariance_figure

    chosen = [(net, layer_list(net, layer)) for net in nets]
    source = open_source(images, split)
    if source.left_out and not quiet:
        notes.print(f"{images}: {source.left_out}", soft_wrap=True)
    indices = select(len(source.names), limit, sample, seed)
    failures: dict[str, dict[int, str]] = {net.name: {} for net in nets}
    found = {}
    with progress(2 * len(indices) * len(nets), quiet or as_json, "scoring") as advance:
        for net, names in chosen:
            readable = partial(_squares, source, indices, net, names, area, failures[net.name])
            found[net.name] = scored(net, readable, names, rate=rate, best=best, advance=advance)
    records = [
        {"model": name, "images": len(indices) - len(failures[name]), **each.record()}
        for name, layers in found.items()
        for each in layers
    ]
    kinds = records[0]["scores"]
    columns: Columns = {
        "units": lambda r: f"{r['units'] - r['silent']} of {r['units']}",
        **{kind: lambda r, kind=kind: number(r["scores"][kind]["best"], ".1f") for kind in kinds},  # type: ignore[misc]
        "mean": lambda r: number(r["best"], ".1f"),
        "on other images": lambda r: number(r["held_out"], ".1f"),
        "all units": lambda r: number(r["mean"], ".1f"),
    }
    drawn = write(invariance_figure(found), output / "invariance.png")
    finish("invariance", [(records, columns, [drawn])], output, as_json, quiet)
    left_out = {index: why for own in failures.values() for index, why in own.items()}
    if left_out and not quiet:
        notes.print(f"reconstruct: {len(left_out)} images left out: {min(left_out.values())}", soft_wrap=True)


@analyze.command(epilog=example("reconstruct analyze complexity --model crelu_conv1_4 --output paper"))
def complexity(
    model: Models,
    layer: LayerList = "all",
    draws: Annotated[int, typer.Option(help="Random signs in each estimate.", min=2)] = 2000,
    random_weights: RandomWeights = None,
    output: Output = Path(),
    as_json: AsJson = False,
    seed: Annotated[int, typer.Option(help="Seed of points and signs.", min=0)] = 0,
    quiet: Quiet = False,
) -> None:
    """What CReLU costs: parameters, neurons, and Theorem 4.1.

    The theorem's bound on Rademacher complexity stands beside estimates of it, and a model's parameters beside those
    of Table 5. Models need no weights here; without them the theorem's factor is not known. Writes complexity.png and
    complexity.json.
    """
    with busy("loading", quiet or as_json):
        from reconstruct.analysis.crelu.complexity import layer_complexity, sample_estimates
        from reconstruct.report.figures.complexity import complexity_figure
        from reconstruct.zoo.paper_cells import paper_rows

        found = {}
        totals: list[dict[str, Any]] = []
        for name in _names(model):
            architecture, net = _architecture(name, random_weights, layer)
            counts = [row.parameters for row in paper_rows(architecture) if row.table == 5]
            totals.append(
                {
                    "what": "model",
                    "model": architecture.name,
                    "parameters": architecture.parameters(),
                    "paper": counts[0] if counts else None,
                }
            )
            layers = layer_complexity(architecture, net)
            if layer != "all":
                wanted = _named(architecture, net, layer)
                layers = [each for each in layers if each.layer in wanted]
            if not layers:
                raise CallError(f"none of {layer} of {architecture.name} has weights: poolings cost nothing")
            if architecture.name in found:
                raise CallError(_ONE_NAME)
            found[architecture.name] = layers
    with busy("estimating", quiet or as_json):
        estimates, example = sample_estimates(draws, seed)
    records = [{"what": "layer", "model": name, **each.record()} for name, layers in found.items() for each in layers]
    drawn = write(complexity_figure(found, estimates, example), output / "complexity.png")
    columns: Columns = {
        "activation": lambda r: r["activation"],
        "parameters": lambda r: f"{r['parameters']:,}",
        "neurons": lambda r: f"{r['neurons']:,}",
        "responses": lambda r: f"{r['responses']:,}",
        "sqrt(d) B": lambda r: number(r["factor"], ".1f"),
    }
    rademacher = [
        {"what": "rademacher", "sample": sample, **each.record()}
        for sample, several in (("normal", estimates), ("1 and -1", example))
        for each in several
    ]
    sizes: Columns = {
        "parameters": lambda r: f"{r['parameters']:,}",
        "Table 5": lambda r: r["paper"] or "-",
    }
    told = [(records, columns, [drawn]), (totals, sizes, []), (rademacher, Columns(), [])]
    finish("complexity", told, output, as_json, quiet)
    if not (quiet or as_json):
        largest = max(rademacher, key=lambda r: r["ratio"])
        printed.print(
            f"complexity / bound of Theorem 4.1: at most {largest['ratio']:.3f} ({largest['activation']}, points "
            f"{largest['sample']}); above 1 the bound as stated does not hold, absolute values in its definition",
            soft_wrap=True,
        )  # fmt: skip


@analyze.command(
    epilog=example("reconstruct analyze rectify photo.jpg --model crelu_conv1_4 --layer conv1 --output paper")
)
def rectify(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures.")],
    model: Models,
    layer: LayerList,
    filters: Annotated[
        str | None, typer.Option("--filter", help="Numbers from 0, with commas; default some telling ones.")
    ] = None,
    count: Annotated[int, typer.Option(help="Filters to show without --filter.", min=1)] = 4,
    shades: Annotated[
        bool, typer.Option("--shades", help="Black below 0, grey up to the response's root mean square, white above.")
    ] = False,
    size: SideOrArea = None,
    random_weights: RandomWeights = None,
    device: Device = "auto",
    threads: Threads = None,
    output: Output = Path(),
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """An image, a filter, its response, and what ReLU, CReLU and AVR keep.

    Writes, for each image and layer, IMAGE.MODEL.LAYER.rectify.png; and rectify.json.
    """
    area = area_of(size)
    numbers = [] if filters is None else numbers_of(filters, int, "--filter", "0,17")
    nets = load_nets(model, layer, random_weights, device, quiet or as_json)
    if not quiet:
        for net in nets:
            tell_other_size(net, area, False)
    from reconstruct.analysis.crelu.rectify import rectify as rectified
    from reconstruct.images.names import file_name
    from reconstruct.network.read_points import layer_list
    from reconstruct.report.figures.rectify import rectify_figure

    chosen = [(net, layer_list(net, layer)) for net in nets]
    records: list[dict[str, Any]] = []
    failures: set[str] = set()
    with progress(len(images) * sum(len(names) for _, names in chosen), quiet or as_json, "rectifying") as advance:
        for net, names in chosen:
            for batch in batches(images, net, names, area, False, quiet, failures):
                for item, name in product(batch, names):
                    found = rectified(net, item.picture[None].to(net.mean.device), name, numbers, count)
                    target = output / file_name(item.stem, net.name, name, "rectify", "png")
                    figure = write(
                        rectify_figure(item.picture, found, f"{item.stem}, {net.name}, {name}", shades), target
                    )
                    about = {"image": item.name, "model": net.name}
                    records += [{**about, **each.record(), "figure": figure} for each in found]
                    advance(1)
    columns: Columns = {
        "filter": lambda r: str(r["filter"]),
        "response": lambda r: f"{r['response_min']:.2f} to {r['response_max']:.2f}",
        "positive": lambda r: f"{r['positive_share']:.0%}",
        "energy ReLU keeps": lambda r: f"{r['energy_kept']['relu']:.0%}",
        "mean": lambda r: f"{r['response_mean']:.3f}",
        "after ReLU": lambda r: f"{r['relu_mean']:.3f}",
        "after AVR": lambda r: f"{r['avr_mean']:.3f}",
    }
    if shades:
        columns = {name: columns[name] for name in ("filter", "positive", "energy ReLU keeps")}
        columns["black, grey, white"] = lambda r: _shares(r["shades"]["response"])
        columns["of ReLU"] = lambda r: _shares(r["shades"]["relu"])
    finish("rectify", [(records, columns, [r["figure"] for r in records])], output, as_json, quiet)
    if failures:
        raise typer.Exit(1)


def _names(model: str) -> list[str]:
    """The names that ``--model`` lists, each once.

    Raises
    ------
    CallError : there are none.
    """
    names = [name.strip() for name in model.split(",") if name.strip()]
    if not names:
        raise CallError("--model names no model")
    return list(dict.fromkeys(names))


def load_nets(model: str, layer: str, random_weights: int | None, device: str, silent: bool) -> list[Network]:
    """The networks that ``--model`` lists, whose layers are known by the names that ``--layer`` has.

    Raises
    ------
    CallError : two of them have one name, and their files would overwrite each other.
    """
    with busy("loading", silent):
        where = device_of(device, needs_cupy=False)
        nets = [load_chain(name, random_weights, where, layer) for name in _names(model)]
    _check_names(nets)
    return nets


def _check_names(nets: Sequence[AnyNetwork]) -> None:
    """Refuses two networks of one name.

    Raises
    ------
    CallError : there are two.
    """
    if len({net.name for net in nets}) < len(nets):
        raise CallError(_ONE_NAME)


def _architecture(name: str, random_weights: int | None, layer: str) -> tuple[Architecture, Network | None]:
    """A model's architecture, and its network where there are weights, from a file or random."""
    from reconstruct.zoo.load import is_module, load_network
    from reconstruct.zoo.specification import read_architecture

    if is_module(name):
        chain = load_chain(name, random_weights, "cpu", layer)
        return chain.architecture, chain
    architecture = read_architecture(name)
    if architecture.weights is None and random_weights is None:
        return architecture, None
    return architecture, load_network(name, random_weights=random_weights)


def _named(architecture: Architecture, net: Network | None, layer: str) -> list[str]:
    """The layers that a call names, of a model with or without weights."""
    from reconstruct.network.network import Network
    from reconstruct.network.read_points import layer_list

    return layer_list(Network(architecture) if net is None else net, layer)


def _applicable(
    nets: Sequence[Network], layer: str, lacking: Callable[[Network, str], str | None], quiet: bool
) -> list[list[str]]:
    """For each model the layers that an analysis applies to.

    The others are skipped with a note; that there are no others, or that only one is asked for, is an error.

    ``lacking`` : says why an analysis does not apply to a layer, or gives None.
    """
    from reconstruct.network.read_points import layer_list

    kept = []
    for net in nets:
        names = layer_list(net, layer)
        reasons = {name: lacking(net, name) for name in names}
        kept.append([name for name in names if reasons[name] is None])
        for reason in filter(None, reasons.values()):
            if len(names) == 1 or not any(each is None for each in reasons.values()):
                raise CallError(reason)
            if not quiet:
                notes.print(f"skipped: {reason}", soft_wrap=True)
    return kept


def _squares(
    source: Source,
    indices: Sequence[int],
    net: Network,
    layers: Sequence[str],
    size: Area | int | None,
    failures: dict[int, str],
) -> Iterator[torch.Tensor]:
    """Batches of the images of a set as they go into a network; of others the error is in ``failures``, by number."""
    import torch

    from reconstruct.evaluation.batch import CPU_PIXELS
    from reconstruct.images.batches import in_batches
    from reconstruct.images.files import model_input, quiet_pillow, to_tensor

    def usable() -> Iterator[torch.Tensor]:
        """3 x H x W, one by one."""
        for index in indices:
            try:
                with quiet_pillow():
                    picture = source.picture(index)
                fitted = model_input(picture, source.names[index], net, layers, size, False)
            except ImageError as error:
                failures[index] = str(error)
                continue
            yield to_tensor(fitted)

    return map(torch.stack, in_batches(usable(), lambda square: (square.shape[1], square.shape[2]), CPU_PIXELS))


def _shares(shades: Sequence[float]) -> str:
    """Shares of black, grey and white as a table shows them."""
    return ", ".join(f"{share:.0%}" for share in shades)


def _paper_cell(row: dict[str, Any] | None, column: str) -> str:
    """A cell of the paper's Table 6 as a table shows it."""
    return "-" if row is None else f"{row['cells'][column]:.3f} ± {row['spreads'][column]:.3f}"
