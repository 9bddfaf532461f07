"""``reconstruct models``: the zoo, one model, and weights from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reconstruct.commands.groups import Group, check_command, example
from reconstruct.commands.options import Output, RandomWeights, numbers_of
from reconstruct.commands.terminal import busy, notes, number, printed
from reconstruct.errors import CallError

if TYPE_CHECKING:
    from reconstruct.zoo.huggingface import Precision


class ShowFirst(Group):
    """``reconstruct models NAME`` is ``reconstruct models show NAME``, and so it is without a name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, "--help"):
            if args and not ctx.resilient_parsing:
                check_command(self, args[0], "reconstruct models")
            args = ["show", *args]
        return super().parse_args(ctx, args)


models = typer.Typer(cls=ShowFirst, rich_markup_mode=None)


@models.command(epilog=example("reconstruct models", "reconstruct models crelu_conv1_4"))
def show(
    name: Annotated[str | None, typer.Argument(help="A model; without it, all.")] = None,
    random_weights: RandomWeights = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """The zoo; for one model its layers, shapes, parameters and frame bounds."""
    with busy("measuring", as_json):
        from reconstruct.zoo.describe import describe
        from reconstruct.zoo.registry import model_names
        from reconstruct.zoo.specification import read_architecture

        if name is None:
            known = [read_architecture(each) for each in model_names()]
            listed = [
                {
                    "name": each.name,
                    "base": each.base,
                    "parameters": each.parameters(),
                    "weights": each.weights,
                    "source": each.source,
                }
                # Those that can be used as they are first.
                for each in sorted(known, key=lambda each: each.weights is None)
            ]
        else:
            described = describe(name, random_weights=random_weights)
    if as_json:
        print(json.dumps(listed if name is None else described, indent=2, allow_nan=False))
    elif name is None:
        _model_table(listed)
    else:
        _layer_table(described)


@models.command(
    "import", epilog=example("reconstruct models import alexnet-owt-7be5be79.pth --as alexnet --output mine")
)
def import_weights(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A state dict, .pth or .safetensors; or .onnx, a chain of convolutions."),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            "--as", help="The model that a state dict is of: alexnet or vgg16. Of .onnx: what it is to be called."
        ),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            help=".onnx: what is taken from an image in [0, 1] before it goes in, 0.485,0.456,0.406 or one number."
        ),
    ] = None,
    std: Annotated[str | None, typer.Option(help=".onnx: what it is then divided by.")] = None,
    size: Annotated[
        int | None, typer.Option(help=".onnx: side of the model's images, where the file does not say.", min=1)
    ] = None,
    output: Output = Path(),
) -> None:
    """Weights from elsewhere as a model that every command takes: NAME.toml and NAME.safetensors.

    Nothing in FILE is run: it is read as numbers and nothing else.
    """
    if file.suffix == ".onnx":
        shift, scale = (
            None if value is None else numbers_of(value, float, option, example)
            for option, value, example in (("--mean", mean, "0.485,0.456,0.406"), ("--std", std, "0.229,0.224,0.225"))
        )
        _import_onnx(file, name, shift, scale, size, output)
        return
    if name is None:
        raise CallError("a state dict does not say which model it is of: --as alexnet or --as vgg16")
    if (mean, std, size) != (None, None, None):
        raise CallError("--mean, --std and --size are for .onnx files; the model of --as has its own")
    with busy("importing", False):
        from reconstruct.zoo.import_torchvision import import_checkpoint

        written = import_checkpoint(file, name, output)
    printed.print(f"model: {written}", soft_wrap=True)


def _import_onnx(
    file: Path, name: str | None, mean: list[float] | None, std: list[float] | None, size: int | None, output: Path
) -> None:
    with busy("importing", False):
        from reconstruct.zoo.import_onnx import import_onnx

        done = import_onnx(file, output, name=name, mean=mean, std=std, size=size)
    for note in done.notes:
        notes.print(f"note: {note}", soft_wrap=True)
    for layer, node in done.layers.items():
        printed.print(f"{layer}: {node}", soft_wrap=True)
    if done.left_out is not None:
        printed.print(f"the chain ends there: {done.left_out}", soft_wrap=True)
    printed.print(f"model: {done.path}", soft_wrap=True)


@models.command(epilog=example("reconstruct models export crelu_conv1_4 --output folder"))
def export(
    name: Annotated[str, typer.Argument(help="A model with weights, as --model takes it.")],
    output: Annotated[Path, typer.Option(help="Folder for config.json, model.safetensors and README.md.")],
    dtype: Annotated[
        str | None, typer.Option(help="float32 or float16; default what the model's own file has.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Of the weights, as the Hub calls it: bsd-3-clause. Left out where nobody says.")
    ] = None,
) -> None:
    """A model as a folder in the Hugging Face layout, which --model takes, and others can pass on."""
    with busy("exporting", False):
        from reconstruct.zoo.huggingface import export_model

        folder = export_model(name, output, dtype=_precision(dtype), licence=licence)
    printed.print(f"model: {folder}", soft_wrap=True)


def _precision(value: str | None) -> Precision | None:
    """The type that ``--dtype`` names.

    Raises
    ------
    CallError : another name.
    """
    match value:
        case None | "float32" | "float16":
            return value
    raise CallError(f"--dtype is float32 or float16, not '{value}'")


def _model_table(listed: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("model", "base", "parameters", "weights", "source"):
        table.add_column(heading, justify="right" if heading == "parameters" else "left", overflow="fold")
    for each in listed:
        weights = "yes" if each["weights"] else "no"
        table.add_row(each["name"], each["base"] or "", f"{each['parameters']:,}", weights, each["source"])
    printed.print(table)


def _layer_table(described: dict[str, Any]) -> None:
    from rich.table import Table

    from reconstruct.network.architecture import KINDS

    size = described["input_size"]
    height, width = size if isinstance(size, list) else (size, size)
    printed.print(f"{described['name']}: {described['source']}", soft_wrap=True)
    weights = Path(described["weights"]).name if described["weights"] else described.get("own_weights", "none")
    printed.print(
        f"input {height} x {width}, {described['parameters']:,} parameters without biases, weights: {weights}"
    )
    if described["prepared"]:
        printed.print(f"pictures: {described['prepared']['how']}", soft_wrap=True)
    centre, spread = (", ".join(f"{value:.4g}" for value in described[each]) for each in ("mean", "std"))
    printed.print(f"normalised by mean {centre} and standard deviation {spread}", soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("layer", "kernel", "activation"):
        table.add_column(heading, no_wrap=True)
    for heading in ("features", "field", "weights", "unknowns", "equations", "frame bounds", "condition", "lost"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in described["layers"]:
        bounds = layer["frame_bounds"]
        table.add_row(
            layer["name"],
            "" if layer["kernel"] is None else f"{layer['kernel']}x{layer['kernel']}/{layer['stride']}",
            layer["activation"] or KINDS[layer["kind"]],
            "x".join(map(str, layer["output_shape"])),
            "" if layer["receptive_field"] is None else f"{layer['receptive_field']}",
            f"{layer['parameters']:,}",
            "" if layer["unknowns"] is None else f"{layer['unknowns']:,}",
            f"{layer['equations']:,}",
            "" if bounds is None else f"{bounds[0]:.1e} {bounds[1]:.1f}",
            "" if bounds is None else number(layer["condition_number"], ",.0f"),
            "" if bounds is None else f"{layer['dimensions_lost']:.0%}",
        )
    printed.print(table)
    if described["splits"]:
        points = ", ".join(f"{name} ({of['layer']}, {of['tap']})" for name, of in described["splits"].items())
        printed.print(f"split points: {points}", soft_wrap=True)
    if any(layer["frame_bounds"] for layer in described["layers"]):
        printed.print(
            "field: receptive field, pixels; frame bounds: smallest non-zero and largest squared singular value, on a "
            "torus; lost: share of the layer's input dimensions that its responses do not determine",
            soft_wrap=True,
        )
