"""What commands share: options, tables' and notes' consoles, progress, and the pictures that a call names."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import typer
from rich.console import Console

from reconstruct.errors import CallError, ImageError

if TYPE_CHECKING:
    import torch

    from reconstruct.inversion.linear import Form
    from reconstruct.network.architecture import Size as Area
    from reconstruct.network.network import Network

COMMANDS = ("invert", "features", "models", "bounds", "evaluate", "report", "analyze", "train", "classify", "app")

# No markup: a picture may be called photo[copy].jpg.
notes = Console(stderr=True, highlight=False, markup=False)
# Into a file or a pipe a table keeps its lines whole.
printed = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 120)


# Options of several commands.
Model = Annotated[
    str,
    typer.Option(
        help="A name in the zoo, a TOML specification, a folder with config.json, or package.module:function."
    ),
]
Layers = Annotated[str, typer.Option("--layer", help="A layer or split point, several with commas, or 'all'.")]
Tap = Annotated[
    str | None, typer.Option(help="Read each layer as responses, relu, crelu or avr; default its own activation.")
]
Methods = Annotated[
    str, typer.Option("--method", help="A method, several with commas, or 'all'; your own: package.module:function.")
]
LinearForm = Annotated[str, typer.Option(help="Pseudoinverse of linear: global or patch.")]
Damping = Annotated[
    str, typer.Option(help="Damping of each layer's least squares, by its largest squared singular value; or auto.")
]
Budget = Annotated[float | None, typer.Option(help="Work at which a method stops, in forward passes.")]
Tolerance = Annotated[float | None, typer.Option(help="Feature residual at which a method stops.")]
Noise = Annotated[float, typer.Option(help="Gaussian noise on the features, as a share of their norm.")]
Quantise = Annotated[str | None, typer.Option(help="Round the features: float16 or int8.")]
Seed = Annotated[int, typer.Option(help="Seed of whatever is random.")]
Size = Annotated[int | None, typer.Option(help="Side of the centred square, in pixels.", min=1)]
SideOrArea = Annotated[
    str | None,
    typer.Option("--size", metavar="SIDE|HxW", help="Side of the centred square in pixels, or height x width."),
]
Native = Annotated[bool, typer.Option("--native", help="Never resize; trim to what the strides cover.")]
RandomWeights = Annotated[int | None, typer.Option(metavar="SEED", help="Random weights instead of a file.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
ImageSet = Annotated[
    str, typer.Argument(metavar="IMAGES", help="A folder, a list, a .tar file, CIFAR's folder; also s3://, gs://.")
]
Limit = Annotated[int | None, typer.Option(help="The first so many images.", min=1)]
Sample = Annotated[int | None, typer.Option(help="So many images at random, by --seed.", min=1)]
Split = Annotated[str, typer.Option(help="Of CIFAR's files: test or train.")]
Output = Annotated[Path, typer.Option(help="Folder for what is written.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON array on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No table, no progress.")]
Number = TypeVar("Number", int, float)


class Item(NamedTuple):
    """An image on its way: as it was called, the stem of what is written of it, and 3 x H x W."""

    name: str
    stem: str
    picture: torch.Tensor


def methods_of(net: Network, method: str, layer: str, tap: str | None, quiet: bool) -> dict[str, list[str]]:
    """For each layer with any, by name, the methods that apply; asked for alone, one that does not is an error."""
    from reconstruct.inversion.methods import METHODS, applicable, method_of
    from reconstruct.network.read_points import points

    wanted = points(net, layer, tap)
    alone = "," not in method and method != "all" and layer != "all"
    names = list(METHODS) if method == "all" else [name.strip() for name in method.split(",") if name.strip()]
    for name in names:
        method_of(name)
    chosen: dict[str, list[str]] = {}
    for at in wanted:
        reasons = {name: applicable(at.net, at.layer, name) for name in dict.fromkeys(names)}
        chosen[at.name] = [name for name, reason in reasons.items() if reason is None]
        for name, reason in reasons.items():
            if reason is not None and alone:
                raise CallError(reason)
            if reason is not None and not quiet:
                notes.print(f"skipped {name} at {at.name}: {reason}", soft_wrap=True)
    chosen = {layer: names for layer, names in chosen.items() if names}
    if not chosen:
        where = ", ".join(at.name for at in wanted)
        raise CallError(f"no method of {', '.join(names)} applies to {where} of {wanted[0].net.name}")
    return chosen


def form_of(value: str) -> Form:
    match value:
        case "global" | "patch":
            return value
    raise CallError(f"--linear-form is 'global' or 'patch', not '{value}'")


def damping_of(value: str) -> Any:
    if value == "auto":
        return value
    try:
        return float(value)
    except ValueError:
        raise CallError(f"--damping is 'auto' or a number, not '{value}'") from None


def device_of(wanted: str, needs_cupy: bool = True) -> str:
    import torch

    if wanted not in ("auto", "cpu", "cuda"):
        raise CallError(f"--device is auto, cpu or cuda, not '{wanted}'")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise CallError("--device cuda: torch finds no CUDA device here; use --device cpu")
    if wanted != "auto":
        return wanted
    if not torch.cuda.is_available():
        return "cpu"
    if not needs_cupy:
        return "cuda"
    if find_spec("cupy") is None:
        notes.print("a GPU is there but CuPy is not (pip install 'reconstruct[gpu]'): using the CPU", soft_wrap=True)
        return "cpu"
    return "cuda"


def load_chain(name: str, random_weights: int | None, device: str) -> Network:
    """A model as a chain of convolutions; of a torch module the longest that it begins with."""
    from reconstruct.network.module import ModuleNetwork
    from reconstruct.zoo.load import load_model

    net = load_model(name, random_weights=random_weights, device=device)
    return net.longest_chain() if isinstance(net, ModuleNetwork) else net


def check_disturbance(noise: float, quantise: str | None) -> None:
    if not 0 <= noise < 1:
        raise CallError(f"--noise is a share of the features' norm, at least 0 and below 1, not {noise:g}")
    if quantise not in (None, "float16", "int8"):
        raise CallError(f"--quantise is float16 or int8, not '{quantise}'")


def area_of(value: str | None) -> Area | int | None:
    """``227`` or ``227x180``, rows first, as a side or a height and width."""
    if value is None:
        return None
    sides = value.lower().split("x")
    # Six digits: longer numbers are no pixels, and Python refuses the longest.
    fits = all(side.isascii() and side.isdigit() and len(side) <= 6 and int(side) > 0 for side in sides)
    if len(sides) > 2 or not fits:
        raise CallError(f"--size is a side or HxW in pixels, 227 or 227x180, not '{value}'")
    return (int(sides[0]), int(sides[1])) if len(sides) == 2 else int(sides[0])


def check_size(size: Area | int | None, native: bool) -> None:
    if size is not None and native:
        raise CallError("--size resizes and --native never does: give one of them")


def check_selection(limit: int | None, sample: int | None) -> None:
    if limit is not None and sample is not None:
        raise CallError("--limit takes the first images and --sample any: give one of them")


def numbers_of(value: str, kind: type[Number], option: str, example: str) -> list[Number]:
    """Numbers with commas, at least one."""
    try:
        numbers = [kind(part) for part in value.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers:
        raise CallError(f"{option} is numbers with commas, as {example}, not '{value}'")
    return numbers


def batches(
    images: list[Path],
    net: Network,
    layers: list[str],
    size: Area | int | None,
    native: bool,
    quiet: bool,
    failures: set[str],
) -> Iterator[list[Item]]:
    """The images in batches of one size, as many as fit; the error of each that cannot be used is told and added."""
    from reconstruct.evaluation.batch import CPU_PIXELS
    from reconstruct.images.batches import in_batches

    usable = _usable(images, net, layers, size, native, quiet, failures)
    return in_batches(usable, lambda item: (item.picture.shape[1], item.picture.shape[2]), CPU_PIXELS)


def _usable(
    images: list[Path],
    net: Network,
    layers: list[str],
    size: Area | int | None,
    native: bool,
    quiet: bool,
    failures: set[str],
) -> Iterator[Item]:
    """The images that can be used, one by one; the error of any other is told and added to ``failures``."""
    stems: list[str] = []
    for path in images:
        try:
            picture = _picture(path, net, layers, size, native, quiet)
        except ImageError as error:
            near = get_close_matches(str(path), COMMANDS, n=1)
            failure = f"{error} (there is a command '{near[0]}')" if near else str(error)
            if failure not in failures:  # not once more for each of several models
                notes.print(f"reconstruct: {failure}", soft_wrap=True)
            failures.add(failure)
            continue
        stem, count = path.stem, 1
        while stem in stems:  # images of one name in several folders
            count += 1
            stem = f"{path.stem}-{count}"
        stems.append(stem)
        yield Item(str(path), stem, picture)


def _picture(
    path: Path, net: Network, layers: list[str], size: Area | int | None, native: bool, quiet: bool
) -> torch.Tensor:
    """The image that goes in, 3 x H x W, cropped and resized as asked."""
    from reconstruct.images.files import model_input, read_image, to_tensor

    picture = read_image(path)
    fitted = model_input(picture, str(path), net.architecture, layers, size, native)
    if not quiet and not native and (picture.width < fitted.width or picture.height < fitted.height):
        notes.print(
            f"{path} is {picture.height} x {picture.width} pixels, enlarged to {fitted.height} x {fitted.width}",
            soft_wrap=True,
        )  # fmt: skip
    return to_tensor(fitted)


def print_json(records: Iterable[dict[str, Any]]) -> None:
    print(json.dumps([strict(record) for record in records], indent=2, allow_nan=False))


def strict(record: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: the PSNR of a perfect image is null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in record.items()
    }


@contextmanager
def busy(what: str, silent: bool) -> Iterator[None]:
    if silent or not notes.is_terminal:
        yield
    else:
        with notes.status(what):
            yield


@contextmanager
def progress(total: int | None, silent: bool, what: str = "reconstructing") -> Iterator[Callable[[int], None]]:
    """A bar on standard error, where that is a terminal."""
    if silent or not notes.is_terminal:
        yield lambda steps: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    columns = (what, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=notes, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda steps: bar.advance(task, steps)


def number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
