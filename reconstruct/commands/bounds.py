"""``reconstruct bounds``: what max-pooling leaves of an image."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reconstruct.commands.common import Item, batches, device_of, load_chain, tell_other_size
from reconstruct.commands.options import (
    AsJson,
    Device,
    Model,
    Native,
    Output,
    Quiet,
    RandomWeights,
    SideOrArea,
    Threads,
    area_of,
    check_size,
)
from reconstruct.commands.terminal import busy, number, print_json, printed, progress
from reconstruct.errors import CallError

if TYPE_CHECKING:
    from reconstruct.network.network import Network


def bounds(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures to pool the features of.")],
    model: Model,
    layer: Annotated[str, typer.Option(help="A max-pooling, several with commas, or 'all'; with --pool convolutions.")],
    pool: Annotated[
        str | None, typer.Option(metavar="K/S", help="Bound the convolution as if pooled: kernel and stride.")
    ] = None,
    size: SideOrArea = None,
    native: Native = False,
    budget: Annotated[float | None, typer.Option(help="Work of each reconstruction, in forward passes.")] = None,
    random_weights: RandomWeights = None,
    device: Device = "auto",
    threads: Threads = None,
    output: Output = Path(),
    as_json: AsJson = False,
    seed: Annotated[int, typer.Option(help="Seed of the random filters.", min=0)] = 0,
    quiet: Quiet = False,
) -> None:
    """What max-pooling leaves: each region's error with bounds that are proved, and the image rebuilt from it.

    Writes, for each image, STEM.MODEL.LAYER.bounds.png, and STEM.MODEL.LAYER.KNOWN.png of what was rebuilt.
    """
    area = area_of(size)
    check_size(area, native)
    with busy("loading", quiet or as_json):
        from reconstruct.inversion.checks import check_limits

        check_limits(None, budget)
        net = load_chain(model, random_weights, device_of(device, needs_cupy=False), layer)
        chosen = _pooled(net, layer, pool)
    if not quiet:
        tell_other_size(net, area, native)
    records: list[dict[str, Any]] = []
    failures: set[str] = set()
    with progress(len(images) * len(chosen), quiet or as_json, "bounding") as advance:
        for own, name in chosen:
            for batch in batches(images, own, [name], area, native, quiet, failures):
                for item in batch:
                    records.append(_bounded(own, name, item, budget, seed, output))
                    advance(1)
    if as_json:
        print_json(records)
    elif not quiet and records:
        _bounds_table(records)
        printed.print(f"figure: {', '.join(record['figure'] for record in records)}", soft_wrap=True)
    if failures:
        raise typer.Exit(1)


def _pooled(net: Network, layer: str, pool: str | None) -> list[tuple[Network, str]]:
    """The max-poolings that ``--layer`` names, each with its network; with ``--pool`` on top of the layers it names.

    Raises
    ------
    CallError : a layer is no max-pooling of a convolution's features, or with ``--pool`` no convolution; or a
        layer's name that is also that of a split point, which reads something else than what would be pooled.
    """
    from reconstruct.network.activations import TAPS
    from reconstruct.network.read_points import layer_list, layers_alone, name_list
    from reconstruct.network.surgery import pooled_layer, with_pool

    asked, net = net, layers_alone(net)
    if pool is not None:
        kernel, stride = _pooling(pool)
        for name in [] if layer == "all" else name_list(asked, layer):
            split = asked.splits.get(name)
            if split is not None and split.layer == name and TAPS[split.tap] != (given := net.layer(name).activation):
                raise CallError(
                    f"{name} of {net.name} is a split point, the {split.tap} of its layer, and what is pooled here is "
                    f"the layer's {given}: name a split point that reads that, or 'all'"
                )
        made = [with_pool(net, name, kernel, stride) for name in layer_list(asked, layer)]
        return [(own, own.layer_names[-1]) for own in made]
    poolings = [each.name for each in net.layers if each.kind == "max_pool"]
    names = poolings if layer == "all" and poolings else layer_list(asked, layer)
    for name in names:
        pooled_layer(net, name)
    return [(net, name) for name in names]


def _pooling(value: str) -> tuple[int, int]:
    """The kernel and the stride that ``--pool`` names, as in ``3/2``."""
    try:
        kernel, stride = (int(part) for part in value.split("/"))
    except ValueError:
        raise CallError(f"--pool is a kernel and a stride, as 3/2, not '{value}'") from None
    return kernel, stride


def _bounded(net: Network, layer: str, item: Item, budget: float | None, seed: int, output: Path) -> dict[str, Any]:
    """The bounds on one image, what was rebuilt of it, and the figure of both."""
    from reconstruct.analysis.pooling_bounds import layer_bounds
    from reconstruct.images.files import save_image, write_png
    from reconstruct.images.names import file_name
    from reconstruct.images.quality import quality
    from reconstruct.inversion.pooled import rebuild
    from reconstruct.report.figures.panels import Panel, quality_caption
    from reconstruct.report.figures.pooling import pooling_bounds

    image = item.picture[None].to(net.mean.device)
    trained, random = (layer_bounds(net, image, layer, random=each) for each in (None, seed))
    panels, rebuilt = [], {}
    for known, found in rebuild(net, image, layer, budget=budget):
        judged = quality(image, found.images)
        target = output / file_name(item.stem, net.name, layer, known, "png")
        save_image(found.images[0], target)
        rebuilt[known] = {
            "psnr": judged.psnr[0],
            "ssim": None if math.isnan(judged.ssim[0]) else judged.ssim[0],
            "status": found.status[0],
            "forward_passes": found.forward_passes[0],
            "output": str(target),
        }
        panels.append(Panel(found.images[0], known, quality_caption(judged.psnr[0], judged.ssim[0])))
    figure = output / file_name(item.stem, net.name, layer, "bounds", "png")
    write_png(pooling_bounds(trained, random, Panel(item.picture, "original", item.stem), panels), figure)
    return {
        "image": item.name,
        "model": net.name,
        "layer": layer,
        **trained.summary(),
        "random_filters": random.summary(),
        "rebuilt": rebuilt,
        "device": str(image.device),
        "figure": str(figure),
    }


def _bounds_table(records: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from reconstruct.images.names import shown

    # Means over the regions, then the images that were rebuilt.
    table = Table(box=None, pad_edge=False, caption="PSNR in dB from switches on", caption_justify="right")
    table.add_column("image", overflow="fold")
    for heading in ("ratio", "random", "error", "bound", "model", "violations", "regions"):
        table.add_column(heading, justify="right")
    for known in records[0]["rebuilt"]:
        table.add_column(known, justify="right")
    for record in records:
        random = record["random_filters"]
        table.add_row(
            shown(Path(record["image"]).name),
            *(
                number(of[name]["mean"], ".3f")
                for of, name in (
                    (record, "reconstruction_ratio"),
                    (random, "reconstruction_ratio"),
                    (record, "relative_error"),
                    (record, "bound_measured"),
                    (record, "bound_model"),
                )
            ),
            str(record["violations"] + random["violations"]),
            str(record["regions"]),
            *(f"{each['psnr']:.1f}" for each in record["rebuilt"].values()),
        )
    printed.print(table)
