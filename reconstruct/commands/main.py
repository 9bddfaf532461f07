"""The command line: its commands by name, and errors turned into one line and an exit status.

Each command is a module of ``reconstruct/commands``, which imports torch inside, so that ``--help`` is quick.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from reconstruct import threads
from reconstruct.commands.analyze import analyze
from reconstruct.commands.app import app as page
from reconstruct.commands.bounds import bounds
from reconstruct.commands.common import COMMANDS
from reconstruct.commands.doctor import doctor
from reconstruct.commands.evaluate import evaluate, report
from reconstruct.commands.features import features
from reconstruct.commands.groups import Group, check_command, example
from reconstruct.commands.invert import invert
from reconstruct.commands.models import models
from reconstruct.commands.spectrum import spectrum  # noqa: F401 - joins analyze
from reconstruct.commands.tables import tables
from reconstruct.commands.train import classify, train
from reconstruct.errors import CallError, ReconstructError, ReconstructWarning, cut
from reconstruct.images.names import shown
from reconstruct.user_function import current_folder_importable
from reconstruct.version import __version__

LONGEST_MESSAGE = 4000
"""Characters of an error's message."""
OWN_OPTIONS = ("--help", "--version", "--install-completion", "--show-completion")
"""Options of the program itself, and not of its main job."""
EXAMPLES: dict[Callable[..., None], tuple[str, ...]] = {
    invert: ("reconstruct photo.jpg --model crelu_conv1_4 --layer conv1,conv3",),
    features: ("reconstruct features photo.jpg --model crelu_conv1_4 --layer conv3 --output sent",),
    bounds: ("reconstruct bounds photo.jpg --model crelu_conv1_4 --layer conv1 --pool 3/2",),
    evaluate: ("reconstruct evaluate photographs --model crelu_conv1_4 --layer all --output results",),
    report: (
        "reconstruct report results",
        "reconstruct report results_map results_wiener --output comparison.html",
    ),
    train: ("reconstruct train convpool_cnn_c_crelu cifar-10-batches-py --output runs/cifar",),
    classify: ("reconstruct classify cifar-10-batches-py --model runs/cifar",),
    tables: ("reconstruct tables cifar-10-batches-py --table 1 --output runs/table1",),
    doctor: ("reconstruct doctor", "reconstruct doctor --json"),
    page: ("reconstruct app --port 7860",),
}
"""The commands, and calls of each as its help shows them."""


class MainJobFirst(Group):
    """``reconstruct IMAGE ...`` is ``reconstruct invert IMAGE ...``: the main job needs no word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        args = [_as_path(each) for each in args]
        if args and args[0] not in (*COMMANDS, *OWN_OPTIONS):
            if not ctx.resilient_parsing:  # while a shell completes the word
                check_command(self, args[0], "reconstruct")
            args = ["invert", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=MainJobFirst, no_args_is_help=True, add_completion=True, rich_markup_mode=None, pretty_exceptions_enable=False
)
for command, calls in EXAMPLES.items():
    app.command(command.__name__, epilog=example(*calls))(command)
app.add_typer(analyze, name="analyze", help="The papers' figures and tables, on any model.")
app.add_typer(
    models,
    name="models",
    help="The zoo; 'models NAME' shows one model, 'models import' reads weights, 'models export' writes them.",
)


def main() -> None:
    """Run, and turn errors and warnings that are for people into one line each, and errors into an exit status."""
    threads.hold()  # before torch comes
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a folder's name may be no text in the terminal's encoding
            stream.reconfigure(errors="backslashreplace")
    try:
        with (
            current_folder_importable(),  # methods and models of the user's, package.module:function
            warnings.catch_warnings(action="default", category=ReconstructWarning),
        ):
            warnings.showwarning = _tell
            app(prog_name="reconstruct")
    except CallError as error:
        _fail(str(error), 2)
    except (ReconstructError, OSError) as error:
        _fail(str(error), 1)
    except MemoryError:
        _fail("not enough memory; try a smaller --size", 1)
    except RuntimeError as error:
        if "allocate" not in str(error):  # what torch says for want of memory
            raise
        _fail("not enough memory; try a smaller --size", 1)


def _as_path(argument: str) -> str:
    """An argument as it was given; a file whose name begins with a dash, as ``*.jpg`` may give it, with its folder."""
    looks_like_one = argument.startswith("-") and Path(argument).suffix
    return f"./{argument}" if looks_like_one and os.path.isfile(argument) else argument  # noqa: PTH113


def _fail(message: str, status: int) -> None:
    _say(message)
    sys.exit(status)


def _say(message: str) -> None:
    """A message on one line. Of what others have written, as a file's own names, no more than can be read."""
    print(f"reconstruct: {cut(shown(' '.join(message.split())), LONGEST_MESSAGE)}", file=sys.stderr)


def _tell(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Our own warnings in one line, as errors are; those of others as Python writes them."""
    if issubclass(category, ReconstructWarning):
        _say(str(message))
    else:
        sys.stderr.write(warnings.formatwarning(message, category, *where[:2]))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"reconstruct {__version__}")
        raise typer.Exit


@app.callback()
def _everything(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What does a layer of a convolutional network still know about the image?

    reconstruct IMAGE... --model MODEL --layer LAYER inverts a layer's features back to the picture;
    'reconstruct invert --help' lists the options of this main job, and 'reconstruct models' the models.
    """
