"""``reconstruct features``: the sender's half, a layer's features of pictures as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reconstruct.commands.common import Item, batches, device_of, tell_other_size
from reconstruct.commands.options import (
    AsJson,
    Device,
    Layers,
    Model,
    Native,
    Noise,
    Output,
    Quantise,
    Quiet,
    RandomWeights,
    Seed,
    SideOrArea,
    Tap,
    Threads,
    check_disturbance,
    size_of,
)
from reconstruct.commands.terminal import busy, print_json, printed, progress
from reconstruct.errors import CallError

if TYPE_CHECKING:
    from reconstruct.network.read_points import Point


def features(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures whose features are written.")],
    model: Model,
    layer: Layers,
    tap: Tap = None,
    form: Annotated[str, typer.Option("--format", help="safetensors, which also says what they are of, or npy.")] = (
        "safetensors"
    ),
    size: SideOrArea = None,
    native: Native = False,
    noise: Noise = 0.0,
    quantise: Quantise = None,
    random_weights: RandomWeights = None,
    device: Device = "auto",
    threads: Threads = None,
    output: Output = Path(),
    as_json: AsJson = False,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """A layer's features of pictures, 1 x C x h x w, as a sender would send them: STEM.MODEL.LAYER.safetensors.

    'reconstruct --features FILE' inverts them. They are float32, and float16 with --quantise float16.
    """
    area = size_of(size, native)
    check_disturbance(noise, quantise)
    if form not in ("safetensors", "npy"):
        raise CallError(f"--format is safetensors or npy, not '{form}'")
    with busy("loading", quiet or as_json):
        from reconstruct.network.read_points import layers_read, name_list, points
        from reconstruct.zoo.load import load_model

        net = load_model(model, random_weights=random_weights, device=device_of(device, needs_cupy=False))
        if not quiet:
            tell_other_size(net, area, native)
        chosen = points(net, layers_read(net, name_list(net, layer)), tap)
    records: list[dict[str, Any]] = []
    failures: set[str] = set()
    with progress(len(images), quiet or as_json, "extracting") as advance:
        for batch in batches(images, net, [at.name for at in chosen], area, native, quiet, failures):
            for item in batch:
                records += _extract(item, chosen, {"noise": noise, "quantise": quantise, "seed": seed}, output, form)
            advance(len(batch))
    if as_json:
        print_json(records)
    elif not quiet:
        for record in records:
            shape = " x ".join(map(str, record["shape"]))
            printed.print(f"{record['output']}: {shape}, {record['dtype']}", soft_wrap=True)
    if failures:
        raise typer.Exit(1)


def _extract(
    item: Item, chosen: list[Point], disturbance: dict[str, Any], output: Path, form: str
) -> list[dict[str, Any]]:
    """One picture's features of every layer, written, and a record of each."""
    from reconstruct.images.features import write_features
    from reconstruct.images.names import file_name
    from reconstruct.inversion.disturb import disturb

    height, width = item.picture.shape[1:]
    records = []
    for at in chosen:
        layer, net = at.name, at.net
        values, level = disturb(at.features(item.picture[None].to(net.mean.device)), **disturbance)
        if disturbance["quantise"] == "float16":
            values = values.half()  # the same numbers, in half the room
        path = output / file_name(item.stem, net.name, layer, form)
        said = {"model": net.name, "layer": layer, "size": f"{height}x{width}", "noise": repr(level)}
        said |= {} if at.tap is None else {"tap": at.tap}
        write_features(values, path, said)
        records.append(
            {
                "image": item.name,
                "model": net.name,
                "layer": layer,
                "tap": at.tap,
                "shape": list(values.shape),
                "dtype": str(values.dtype).removeprefix("torch."),
                "size": [height, width],
                "noise": level,
                "output": str(path),
            }
        )
    return records
