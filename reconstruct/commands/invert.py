"""``reconstruct IMAGE...``: the image back from a layer's features."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reconstruct.commands.common import (
    AsJson,
    Budget,
    Damping,
    Device,
    Item,
    Layers,
    LinearForm,
    Methods,
    Model,
    Native,
    Noise,
    Output,
    Quantise,
    RandomWeights,
    Seed,
    Size,
    Tap,
    Tolerance,
    batches,
    busy,
    check_disturbance,
    check_size,
    damping_of,
    device_of,
    methods_of,
    notes,
    printed,
    progress,
    strict,
)
from reconstruct.errors import ImageError

if TYPE_CHECKING:
    from reconstruct.network import Network
    from reconstruct.report.figures import Panel


def invert(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures to reconstruct.")],
    model: Model,
    layer: Layers,
    tap: Tap = None,
    method: Methods = "map",
    linear_form: LinearForm = "global",
    damping: Damping = "auto",
    size: Size = None,
    native: Native = False,
    budget: Budget = None,
    tolerance: Tolerance = None,
    noise: Noise = 0.0,
    quantise: Quantise = None,
    random_weights: RandomWeights = None,
    device: Device = "auto",
    output: Output = Path(),
    as_json: AsJson = False,
    seed: Seed = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No table, no progress.")] = False,
) -> None:
    """The image back from a layer's features: the main job.

    Writes, for each image, STEM.MODEL.LAYER.METHOD.png and STEM.MODEL.comparison.png.
    """
    check_disturbance(noise, quantise)
    check_size(size, native)
    with busy("loading", quiet or as_json):
        import torch

        from reconstruct.taps import points
        from reconstruct.zoo import load_model

        torch.manual_seed(seed)
        net = load_model(model, random_weights=random_weights, device=device_of(device))
        alone = "," not in method and method != "all" and layer != "all"
        methods = methods_of(method, points(net, layer, tap), alone, quiet)
    options = {
        "linear_form": linear_form,
        "damping": damping_of(damping),
        "budget": budget,
        "tolerance": tolerance,
        "seed": seed,
    }
    sent = {"noise": noise, "quantise": quantise, "seed": seed}
    records: list[dict[str, Any]] = []
    failures = 0
    with progress(len(images) * sum(map(len, methods.values())), quiet or as_json) as advance:
        for batch in batches(images, net, list(methods), size, native, quiet):
            if isinstance(batch, ImageError):
                failures += 1
                notes.print(f"reconstruct: {batch}", soft_wrap=True, markup=False)
            else:
                records += _reconstruct(net, batch, methods, tap, options, sent, output, advance)
    if as_json:
        print(json.dumps([strict(record) for record in records], indent=2, allow_nan=False))
    elif not quiet and records:
        _table(records)
        written = sorted({record["comparison"] for record in records})
        printed.print(f"comparison: {', '.join(written)}", soft_wrap=True, markup=False)
    if failures:
        raise typer.Exit(1)


def _reconstruct(
    net: Network,
    items: list[Item],
    methods: dict[str, list[str]],
    tap: str | None,
    options: dict[str, Any],
    sent: dict[str, Any],
    output: Path,
    advance: Callable[[int], None],
) -> list[dict[str, Any]]:
    """Every layer and method of a batch: records, image by image, and the pictures written."""
    import torch

    from reconstruct.evaluation import measure
    from reconstruct.images import save_image, write_png
    from reconstruct.inversion import applicable, disturb
    from reconstruct.report.figures import Panel, comparison
    from reconstruct.taps import point

    batch = torch.stack([item.picture for item in items]).to(net.mean.device)
    names = [item.name for item in items]
    shown = [output / f"{item.stem}.{net.name}.comparison.png" for item in items]
    records: list[list[dict[str, Any]]] = [[] for _ in items]
    rows: list[dict[str, list[Panel]]] = [{} for _ in items]
    for layer, chosen in methods.items():
        at = point(net, layer, tap)
        features, level = disturb(at.features(batch), **sent)
        # The reader wants the reference: linear is in every figure where it applies, asked for or not.
        silent = [] if "linear" in chosen or applicable(at.net, at.layer, "linear") else ["linear"]
        for method in (*chosen, *silent):
            own = options | ({"budget": None, "tolerance": None} if method in silent else {})
            result, measured = measure(at, names, batch, features, method, noise=level, **own)
            for i, (item, record) in enumerate(zip(items, measured, strict=True)):
                detail = f"{record['psnr']:.1f} dB, SSIM {record['ssim']:.3f}"
                rows[i].setdefault(method, []).append(Panel(result.image[i], f"{layer}, {method}", detail))
                if method not in silent:
                    target = output / f"{item.stem}.{net.name}.{layer}.{method}.png"
                    save_image(result.image[i], target)
                    written = {"tap": at.tap, "output": str(target), "comparison": str(shown[i])}
                    records[i].append(record | written)
            if method not in silent:
                advance(len(items))
    for item, panels, path in zip(items, rows, shown, strict=True):
        write_png(comparison(Panel(item.picture, "original", item.stem), list(panels.values())), path)
    return [record for own in records for record in own]


def _table(records: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("image", "layer", "method"):
        table.add_column(heading, overflow="fold")
    for heading in ("PSNR dB", "SSIM", "residual", "passes", "seconds"):
        table.add_column(heading, justify="right")
    table.add_column("status")
    for record in records:
        table.add_row(
            Path(record["image"]).name,
            record["layer"],
            record["method"],
            f"{record['psnr']:.1f}",
            f"{record['ssim']:.3f}",
            f"{record['feature_residual']:.2g}",
            f"{record['forward_passes']:.0f}",
            f"{record['seconds'] + record['prepare_seconds']:.1f}",
            record["status"],
        )
    printed.print(table)
