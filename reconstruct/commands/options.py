"""Options that several commands have, each stated once, and what their values mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from reconstruct.errors import CallError
from reconstruct.images.limits import too_large
from reconstruct.threads import hold

if TYPE_CHECKING:
    from reconstruct.inversion.linear import Form
    from reconstruct.network.architecture import Size as Area


def _held(count: int | None) -> int | None:
    if count is not None:
        hold(count)
    return count


Model = Annotated[
    str,
    typer.Option(
        help="A name in the zoo, a TOML specification, a folder with config.json, or package.module:function."
    ),
]
Layers = Annotated[
    str,
    typer.Option(
        "--layer", help="A layer or split point, several with commas, or 'all'; conv3+conv5 are inverted together."
    ),
]
Tap = Annotated[
    str | None, typer.Option(help="Read each layer as responses, relu, crelu or avr; default its own activation.")
]
Methods = Annotated[
    str, typer.Option("--method", help="A method, several with commas, or 'all'; your own: package.module:function.")
]
LinearForm = Annotated[
    str, typer.Option(help="Pseudoinverse of linear: global, patch, or direct (for many images of a size).")
]
Damping = Annotated[
    str, typer.Option(help="Damping of each layer's least squares, by its largest squared singular value; or auto.")
]
Budget = Annotated[float | None, typer.Option(help="Work at which a method stops, in forward passes.")]
Tolerance = Annotated[float | None, typer.Option(help="Feature residual at which a method stops.")]
Noise = Annotated[float, typer.Option(help="Gaussian noise on the features, as a share of their norm.")]
Perceptual = Annotated[
    str | None,
    typer.Option(
        metavar="lpips|dists|lpips,dists",
        help="How different reconstructions look, beside PSNR and SSIM; of an optional package.",
    ),
]
Quantise = Annotated[str | None, typer.Option(help="Round the features: float16 or int8.")]
Seed = Annotated[int, typer.Option(help="Seed of whatever is random.")]
SideOrArea = Annotated[
    str | None,
    typer.Option("--size", metavar="SIDE|HxW", help="Side of the centred square in pixels, or height x width."),
]
Tile = Annotated[
    int | None,
    typer.Option(
        metavar="SIDE",
        help="Invert larger pictures in overlapping tiles of so many pixels; default whole, and 512 where memory would "
        "not suffice.",
        min=1,
    ),
]
Native = Annotated[bool, typer.Option("--native", help="Never resize; trim to what the strides cover.")]
RandomWeights = Annotated[int | None, typer.Option(metavar="SEED", help="Random weights instead of a file.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Threads = Annotated[
    int | None,
    typer.Option(help="Threads that compute; default one a core, as far as a CPU quota allows.", min=1, callback=_held),
]
ImageSet = Annotated[
    str,
    typer.Argument(
        metavar="IMAGES", help="A folder, a list, a .tar, .tgz or .zip file, CIFAR's folder; also s3://, gs://."
    ),
]
Limit = Annotated[int | None, typer.Option(help="The first so many images.", min=1)]
Sample = Annotated[int | None, typer.Option(help="So many images at random, by --seed.", min=1)]
Split = Annotated[str, typer.Option(help="Of CIFAR's files: test or train.")]
Output = Annotated[Path, typer.Option(help="Folder for what is written.")]
Confidence = Annotated[
    bool,
    typer.Option(
        "--confidence",
        help="How far off each pixel is expected to be, drawn beside the picture and written to "
        "STEM.MODEL.LAYER.METHOD.confidence.npy; costs as much again. Method map.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON array on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No table, no progress.")]

Number = TypeVar("Number", int, float)


def form_of(value: str) -> Form:
    """The form that ``--linear-form`` names.

    Raises
    ------
    CallError : another name.
    """
    match value:
        case "global" | "patch" | "direct":
            return value
    raise CallError(f"--linear-form is 'global', 'patch' or 'direct', not '{value}'")


def damping_of(value: str) -> Any:
    """The damping that ``--damping`` names: a number, or ``auto``.

    Raises
    ------
    CallError : neither.
    """
    if value == "auto":
        return value
    try:
        return float(value)
    except ValueError:
        raise CallError(f"--damping is 'auto' or a number, not '{value}'") from None


def area_of(value: str | None) -> Area | int | None:
    """The side, or the height and width, that ``--size`` names as ``227`` or ``227x180``, rows first.

    Raises
    ------
    CallError : something else.
    """
    if value is None:
        return None
    sides = value.lower().split("x")
    # Six digits: longer numbers are no pixels, and Python refuses the longest.
    fits = all(side.isascii() and side.isdigit() and len(side) <= 6 and int(side) > 0 for side in sides)
    if len(sides) > 2 or not fits:
        raise CallError(f"--size is a side or HxW in pixels, 227 or 227x180, not '{value}'")
    return (int(sides[0]), int(sides[1])) if len(sides) == 2 else int(sides[0])


def numbers_of(value: str, kind: type[Number], option: str, example: str) -> list[Number]:
    """The numbers that an option lists with commas, at least one.

    Parameters
    ----------
    option, example : its name and how it is used, for the error.

    Raises
    ------
    CallError : something that is no number of this kind, or nothing.
    """
    try:
        numbers = [kind(part) for part in value.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers:
        raise CallError(f"{option} is numbers with commas, as {example}, not '{value}'")
    return numbers


def check_disturbance(noise: float, quantise: str | None) -> None:
    """Refuse noise and rounding that features cannot have.

    Raises
    ------
    CallError : noise outside [0, 1), or an unknown rounding.
    """
    if not 0 <= noise < 1:
        raise CallError(f"--noise is a share of the features' norm, at least 0 and below 1, not {noise:g}")
    if quantise not in (None, "float16", "int8"):
        raise CallError(f"--quantise is float16 or int8, not '{quantise}'")


def size_of(value: str | None, native: bool = False) -> Area | int | None:
    """What ``--size`` names, as ``area_of`` reads it, if a picture has so many pixels.

    Raises
    ------
    CallError : it is no size, stands beside ``--native``, or has more than ``MOST_PIXELS``.
    """
    size = area_of(value)
    if size is not None and native:
        raise CallError("--size resizes and --native never does: give one of them")
    from reconstruct.network.architecture import as_area

    if size is not None and (reason := too_large(*as_area(size))):
        raise CallError(f"--size is too large: {reason}")
    return size


def check_selection(limit: int | None, sample: int | None) -> None:
    """Refuse ``--limit`` together with ``--sample``.

    Raises
    ------
    CallError : both are given.
    """
    if limit is not None and sample is not None:
        raise CallError("--limit takes the first images and --sample any: give one of them")
