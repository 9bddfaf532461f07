"""``reconstruct demo``: the main job on a photograph that comes with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reconstruct.commands.invert import invert
from reconstruct.commands.options import Device, Output, Quiet, Threads
from reconstruct.commands.terminal import notes, printed
from reconstruct.errors import ImageError

NAME = "chelsea.jpg"
MODEL = "crelu_conv1_4"


def demo(
    output: Output = Path("demo"),
    layer: Annotated[str, typer.Option("--layer", help="Layers, with commas.")] = "conv1,conv2,conv3,conv4",
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Invert a photograph of a cat from a network, both of which come with the package: the first thing to try.

    Writes the pictures to a folder, and says which one to look at.
    """
    picture = photograph()
    if not quiet:
        notes.print(f"reconstruct {picture} --model {MODEL} --layer {layer} --output {output}", soft_wrap=True)
    invert(MODEL, layer, [picture], output=output, device=device, threads=threads, quiet=quiet)
    if not quiet:
        printed.print(f"look at {output / f'{picture.stem}.{MODEL}.comparison.png'}", soft_wrap=True)


def photograph() -> Path:
    """The photograph: in a wheel within the package, in a checkout beside it.

    Raises
    ------
    ImageError : it is in neither place.
    """
    package = Path(__file__).parent.parent
    places = (package / "samples" / NAME, package.parent / "samples" / NAME)
    for path in places:
        if path.is_file():
            return path
    raise ImageError(f"the photograph {places[0]} is missing: this installation is not whole, install it again")
