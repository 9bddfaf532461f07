"""``reconstruct IMAGE...`` and ``reconstruct --features FILE``: the image back from a layer's features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.cells import cell_len

from reconstruct.commands.common import batches, device_of, methods_of, tell_other_size, tell_what_is_left_out
from reconstruct.commands.options import (
    AsJson,
    Budget,
    Confidence,
    Damping,
    Device,
    Layers,
    LinearForm,
    Methods,
    Model,
    Native,
    Output,
    Perceptual,
    Quantise,
    Quiet,
    RandomWeights,
    Seed,
    SideOrArea,
    Tap,
    Threads,
    Tile,
    Tolerance,
    area_of,
    check_disturbance,
    damping_of,
    form_of,
    size_of,
)
from reconstruct.commands.terminal import busy, notes, number, print_json, printed, progress
from reconstruct.errors import CallError, cut

if TYPE_CHECKING:
    import torch

    from reconstruct.evaluation.batch import Disturbance, Features, Noise
    from reconstruct.network.architecture import Size
    from reconstruct.network.protocol import AnyNetwork
    from reconstruct.report.figures.panels import Panel

BESIDE = "linear"
"""The method that a comparison shows beside those asked for, as the reference, where it applies."""

BESIDE_BUDGET = 60.0
"""Its work in forward passes at most, a fifth of what it has when it is asked for: chelsea from conv1 has 46.9 dB then,
not 52.7, which the eye does not see; other layers of the default model have converged, or have as many dB."""

SHORTEST_NAME, SHORTEST_LAYER = 11, 8
"""Columns of a picture's or a layer's name in the table, at least, however narrow the terminal is."""

GAP = 2
"""Columns between those of the table, where there is room."""


def invert(
    model: Model,
    layer: Layers,
    images: Annotated[list[Path] | None, typer.Argument(metavar="IMAGE...", help="Pictures to reconstruct.")] = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="In place of pictures: somebody's features of one layer, FILE.npy, FILE.safetensors or "
            "FILE.safetensors:TENSOR; of conv3+conv5 two, FILE+FILE. --size is then that of the images, where the "
            "model's own does not fit.",
        ),
    ] = None,
    tap: Tap = None,
    method: Methods = "map",
    linear_form: LinearForm = "global",
    damping: Damping = "auto",
    size: SideOrArea = None,
    native: Native = False,
    tile: Tile = None,
    budget: Budget = None,
    tolerance: Tolerance = None,
    noise: Annotated[
        float,
        typer.Option(
            help="Gaussian noise on the pictures' features, as a share of their norm. With --features none is added: "
            "it says how noisy they are."
        ),
    ] = 0.0,
    quantise: Quantise = None,
    confidence: Confidence = False,
    linear: Annotated[
        bool,
        typer.Option(
            "--linear/--no-linear", help="Show linear beside what was asked for, where it applies: 60 passes at most."
        ),
    ] = True,
    perceptual: Perceptual = None,
    random_weights: RandomWeights = None,
    device: Device = "auto",
    threads: Threads = None,
    output: Output = Path(),
    as_json: AsJson = False,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """The image back from a layer's features: the main job.

    Writes, for each image, STEM.MODEL.LAYER.METHOD.png and STEM.MODEL.comparison.png.
    """
    images = images or []
    area = size_of(size, native)
    check_disturbance(noise, quantise)
    _check_source(images, features, layer, native, quantise)
    with busy("loading", quiet or as_json):
        import torch

        from reconstruct.evaluation.perceptual import measures_of
        from reconstruct.network.read_points import joints
        from reconstruct.zoo.load import load_model

        measures = measures_of(perceptual)
        torch.manual_seed(seed)
        net = load_model(model, random_weights=random_weights, device=device_of(device))
        methods = methods_of(net, method, layer, tap, quiet)
        if confidence:
            _check_confidence(methods)
        if features is None and not quiet:
            tell_other_size(net, area, native)
        if features is None and not (quiet or noise or quantise):
            for at in joints(net, methods, tap):
                tell_what_is_left_out(at, [0.0] * len(at.parts))
    options = {
        "linear_form": form_of(linear_form),
        "damping": damping_of(damping),
        "budget": budget,
        "tolerance": tolerance,
        "seed": seed,
        "confidence": confidence,
        "tile": tile,
        "perceptually": measures,
    }
    sent: Disturbance = {"noise": noise, "quantise": quantise, "seed": seed}
    records: list[dict[str, Any]] = []
    failures: set[str] = set()
    if features is None:
        with progress(len(images) * sum(map(len, methods.values())), quiet or as_json) as advance:
            for batch in batches(images, net, list(methods), area, native, quiet, failures):
                pictures = torch.stack([item.picture for item in batch]).to(net.mean.device)
                names, stems = [item.name for item in batch], [item.stem for item in batch]
                received = _sent(net, pictures, list(methods), tap, sent)
                records += _reconstruct(
                    net, names, stems, pictures, received, methods, tap, linear, options, output, advance
                )
    else:
        records = _from_file(net, features, methods, tap, area, noise, linear, options, output, quiet, as_json)
    if as_json:
        print_json(records)
    elif not quiet and records:
        _table(records, measures)
        _tell_beside(records)
        written = list(dict.fromkeys(record["comparison"] for record in records))
        printed.print(f"comparison: {', '.join(written)}", soft_wrap=True)
    if failures:
        raise typer.Exit(1)


def _check_source(images: list[Path], features: str | None, layer: str, native: bool, quantise: str | None) -> None:
    """Refuse a call that names neither pictures nor features, or both, or options of the other.

    Raises
    ------
    CallError : the call is one of these.
    """
    if not images and features is None:
        raise CallError("name at least one picture, or features that somebody extracted: --features FILE")
    if features is None:
        return
    if images:
        raise CallError("--features stands in place of pictures: give one or the other")
    if "," in layer or layer == "all":
        raise CallError(f"--features are of one layer, and --layer is '{layer}'")
    if native:
        raise CallError("--native is for pictures; the size of what --features come from is --size HxW")
    if quantise is not None:
        raise CallError(
            "--quantise rounds features of pictures; those of a file stay as they are (--noise says how noisy)"
        )


def _check_confidence(methods: dict[str, list[str]]) -> None:
    """Refuse methods whose expected error nobody has measured, before any work.

    Raises
    ------
    CallError : there is one among the layers' methods.
    """
    from reconstruct.inversion.methods import check_confidence

    for chosen in methods.values():
        for method in chosen:
            check_confidence(method)


def _sent(
    net: AnyNetwork, pictures: torch.Tensor, layers: list[str], tap: str | None, disturbance: Disturbance
) -> Iterator[tuple[str, Features, Noise]]:
    """The features of every layer, as a sender would disturb them, and by how much."""
    from reconstruct.evaluation.batch import sent
    from reconstruct.network.read_points import joint

    for layer in layers:
        yield layer, *sent(joint(net, layer, tap), pictures, disturbance)


def _from_file(
    net: AnyNetwork,
    file: str,
    methods: dict[str, list[str]],
    tap: str | None,
    size: Size | int | None,
    noise: float,
    linear: bool,
    options: dict[str, Any],
    output: Path,
    quiet: bool,
    as_json: bool,
) -> list[dict[str, Any]]:
    """Invert every entry of a file of features: the main job without pictures. Gives the records."""
    from reconstruct.evaluation.batch import CPU_PIXELS
    from reconstruct.images.batches import most_together
    from reconstruct.images.features import path_and_name, read_features, recorded_noise
    from reconstruct.images.names import file_part
    from reconstruct.inversion.checks import checked, image_size
    from reconstruct.network.read_points import joint

    ((layer, chosen),) = methods.items()
    at = joint(net, layer, tap)
    parts = at.parts
    files = file.split("+") if len(parts) > 1 else [file]
    if len(files) != len(parts):
        raise CallError(f"--layer {layer} needs features of each, as --features A.npy+B.npy, not '{file}'")
    values, levels, areas = [], [], []
    for own, part in zip(files, parts, strict=True):
        stored = read_features(own, (part.net, part.layer))
        for key, here in (("model", net.name), ("layer", part.name), ("tap", part.tap)):
            if stored.said.get(key, here) != here and not quiet:
                notes.print(f"{own} says that its {key} is {stored.said[key]}", soft_wrap=True)
        if stored.note and not quiet:
            notes.print(stored.note, soft_wrap=True)
        levels.append(noise or recorded_noise(stored))
        values.append(stored.values.to(net.mean.device))
        # Of all at once, before any work. What only rounding has disturbed is still the activation's.
        last = part.net.layer(part.layer)
        disturbed = noise or "noise" in stored.said or stored.rounded is not None
        checked(part.net, values[-1], last, levels[-1] if disturbed else 0.0)
        said = size if size is not None else area_of(stored.said.get("size"))
        areas.append(image_size(part.net, values[-1], last, said))
    count, area = len(values[0]), areas[0]
    if any(len(each) != count for each in values):
        raise CallError(f"{file} are of different numbers of images: {', '.join(str(len(each)) for each in values)}")
    if any(each != area for each in areas):
        sizes = ", ".join(f"{height}x{width}" for height, width in areas)
        raise CallError(f"{file} are of images of different sizes, {sizes}: say which is right, --size HxW")
    if not quiet:
        tell_what_is_left_out(at, levels)
    written = f".{file_part(net.name)}.{file_part(parts[0].name)}"  # by the command that extracts them
    stem = file_part(path_and_name(files[0])[0].stem).removesuffix(written)
    stems = [stem] if count == 1 else [f"{stem}-{number}" for number in range(1, count + 1)]
    names = [file] if count == 1 else [f"{file}[{index}]" for index in range(count)]
    together = most_together(area, CPU_PIXELS)
    records = []
    with progress(count * len(chosen), quiet or as_json) as advance:
        for start in range(0, count, together):
            some = slice(start, start + together)
            sent = [each[some] for each in values]
            received = [(layer, sent, levels) if len(parts) > 1 else (layer, sent[0], levels[0])]
            own_options = options | {"size": area}
            records += _reconstruct(
                net, names[some], stems[some], None, received, methods, tap, linear, own_options, output, advance
            )
    return records


def _reconstruct(
    net: AnyNetwork,
    names: list[str],
    stems: list[str],
    pictures: torch.Tensor | None,
    received: Iterable[tuple[str, Features, Noise]],
    methods: dict[str, list[str]],
    tap: str | None,
    linear: bool,
    options: dict[str, Any],
    output: Path,
    advance: Callable[[float], None],
) -> list[dict[str, Any]]:
    """Invert a batch from every layer by every method, and write the pictures. Gives the records, image by image.

    Parameters
    ----------
    names, stems : of the N images, as they are called and as their files are.
    pictures : N x C x H x W, or None where nobody has them.
    received : layers, features as they have come, N of them, and how noisy they are.
    methods : by layer.
    linear : whether the comparison shows ``BESIDE`` where it was not asked for; what it cost is the ``beside`` of the
        layer's first record of each image, so that sums over records count it once.
    advance : told how many images are done.
    """
    from reconstruct.evaluation.batch import measure
    from reconstruct.images.features import write_features
    from reconstruct.images.files import save_image, write_png
    from reconstruct.images.names import file_name, method_part
    from reconstruct.inversion.methods import applicable, method_of
    from reconstruct.network.read_points import joint
    from reconstruct.report.figures.panels import Panel, comparison, difference_panel, error_panel, quality_caption

    shown = [output / file_name(stem, net.name, "comparison", "png") for stem in stems]
    records: list[list[dict[str, Any]]] = [[] for _ in names]
    rows: list[dict[str, dict[str, Panel]]] = [{} for _ in names]  # by method, or what else a row shows, and layer
    for layer, features, level in received:
        chosen = methods[layer]
        at = joint(net, layer, tap)
        shows = linear and BESIDE not in chosen and applicable(at.net, at.layer, BESIDE) is None
        for method in (*chosen, BESIDE) if shows else chosen:
            silent = method not in chosen
            own = options | (_cheaply(options) if silent else {})
            most = own["budget"] or method_of(method).budget
            share = None if silent else _Share(advance, len(names), most)
            result, measured = measure(at, names, pictures, features, method, noise=level, watch=share, **own)
            if share is not None:
                share.end()
            # Of module:function the function: a panel is no wider than the picture.
            title = f"{layer}, {method.rpartition(':')[2]}"
            for i, (stem, record) in enumerate(zip(stems, measured, strict=True)):
                if pictures is None:
                    detail = f"feature residual {record['feature_residual']:.2g}"
                elif silent:  # less work than it has by itself, as the numbers of other figures
                    detail = f"{record['psnr']:.1f} dB, {record['forward_passes']:.0f} passes"
                else:
                    detail = quality_caption(record["psnr"], record["ssim"])
                rows[i].setdefault(method, {})[layer] = Panel(result.image[i], title, detail)
                if pictures is not None:
                    differing = difference_panel(pictures[i], result.image[i], title)
                    rows[i].setdefault(f"{method} difference", {})[layer] = differing
                if silent:
                    records[i][-len(chosen)]["beside"] = _beside(record)
                else:
                    target = output / file_name(stem, net.name, layer, method_part(method), "png")
                    save_image(result.image[i], target)
                    written: dict[str, Any] = {"tap": at.tap, "output": str(target), "comparison": str(shown[i])}
                    if (error := result.expected_error) is not None:
                        shown_error = error_panel(error[i], f"{layer}, expected error")
                        rows[i].setdefault(f"{method} error", {})[layer] = shown_error
                        written["expected_error"] = float(error[i].mean())
                        values = output / file_name(stem, net.name, layer, method_part(method), "confidence", "npy")
                        write_features(error[i], values, {})
                        written["confidence"] = str(values)
                    records[i].append(record | written | {"tiles": result.tiles, "beside": None})
    for i, (stem, panels, path) in enumerate(zip(stems, rows, shown, strict=True)):
        original = None if pictures is None else Panel(pictures[i], "original", stem)
        write_png(comparison(original, [[row.get(layer) for layer in methods] for row in panels.values()]), path)
    return [record for own in records for record in own]


class _Share:
    """Watches an inversion, and moves a bar on by the share of its budget that is spent."""

    def __init__(self, advance: Callable[[float], None], images: int, budget: float) -> None:
        self.advance, self.images, self.budget = advance, images, budget
        self.told = 0.0

    def __call__(self, passes: float, images: torch.Tensor) -> None:
        self._reach(min(1.0, passes / self.budget))

    def end(self) -> None:
        """The rest: an inversion may end sooner, and not every method is watched."""
        self._reach(1.0)

    def _reach(self, share: float) -> None:
        if share > self.told:
            self.advance(self.images * (share - self.told))
            self.told = share


def _cheaply(options: dict[str, Any]) -> dict[str, Any]:
    """What ``BESIDE`` is given in place of the options of those asked for: less work, as it was not asked for."""
    budget = options["budget"]
    most = BESIDE_BUDGET if budget is None else min(budget, BESIDE_BUDGET)
    return {"budget": most, "tolerance": None, "confidence": False, "perceptually": ()}


def _beside(record: dict[str, Any]) -> dict[str, Any]:
    """What the record of a method that was asked for says of the one beside it: how good it is, and what it cost."""
    of_the_other = ("image", "model", "layer", "noise", "device")
    return {key: value for key, value in record.items() if key not in of_the_other}


def _tell_beside(records: list[dict[str, Any]]) -> None:
    """Say what was computed beside what was asked for, what it cost, and how it is left out."""
    beside = [record["beside"] for record in records if record["beside"] is not None]
    if beside:
        seconds = sum(each["seconds"] + each["prepare_seconds"] for each in beside)
        passes = sum(each["forward_passes"] for each in beside)
        printed.print(
            f"beside, for comparison: {BESIDE}, {passes:.0f} passes, {seconds:.1f} s; --no-{BESIDE} leaves it out",
            soft_wrap=True,
        )


def _table(records: list[dict[str, Any]], perceptual: Sequence[str]) -> None:
    """Print the records, a line each on a terminal of 80 columns: long names of pictures and layers lose their middle.

    Where there is no room for what was written, its names stand below the table, whole.
    """
    from rich.table import Table

    from reconstruct.images.names import shown
    from reconstruct.inversion.result import in_words

    judged = ("PSNR dB", "SSIM", *map(str.upper, perceptual), "residual", "passes", "seconds")
    headings = ("image", "layer", "method", *judged, "status", "picture")
    lines = [
        (
            shown(Path(record["image"]).name),
            record["layer"] if record["tap"] is None else f"{record['layer']} ({record['tap']})",
            record["method"],
            number(record["psnr"], ".1f"),
            number(record["ssim"], ".3f"),
            *(number(record[name], ".3f") for name in perceptual),
            f"{record['feature_residual']:.2g}",
            f"{record['forward_passes']:.0f}",
            f"{record['seconds'] + record['prepare_seconds']:.1f}",
            in_words(record["status"]),
            shown(Path(record["output"]).name),
        )
        for record in records
    ]
    widths = [max(map(cell_len, column)) for column in zip(headings, *lines, strict=True)]
    least = min(widths[0], SHORTEST_NAME)
    beside = printed.width >= sum(widths[1:]) + 9 * GAP + least
    shown_columns = len(headings) if beside else len(headings) - 1
    gap = GAP if printed.width >= sum(widths[1:shown_columns]) + (shown_columns - 1) * GAP + least else 1
    room = printed.width - (shown_columns - 1) * gap
    for_layer = min(widths[1], max(SHORTEST_LAYER, room - least - sum(widths[2:shown_columns])))
    for_image = max(least, room - for_layer - sum(widths[2:shown_columns]))
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for heading in headings[:shown_columns]:
        table.add_column(heading, overflow="fold", justify="right" if heading in judged else "left")
    for image, layer, *rest in lines:
        table.add_row(_short(image, for_image), _short(layer, for_layer), *rest[: shown_columns - 2])
    printed.print(table)
    if not beside:
        printed.print(f"pictures: {', '.join(picture for *_, picture in lines)}", soft_wrap=True)


def _short(name: str, room: int) -> str:
    """A name without its middle, where it is wider than the room."""
    most = room
    while cell_len(short := cut(name, most)) > room and most > SHORTEST_NAME // 2:
        most -= 1
    return short
