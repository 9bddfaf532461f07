"""``reconstruct models``: the zoo, one model, and weights from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from reconstruct.commands.common import Output, RandomWeights, busy, printed


class ShowFirst(TyperGroup):
    """``reconstruct models NAME`` is ``reconstruct models show NAME``, and so it is without a name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in ("show", "import", "--help"):
            args = ["show", *args]
        return super().parse_args(ctx, args)


models = typer.Typer(cls=ShowFirst, rich_markup_mode=None)


@models.command()
def show(
    name: Annotated[str | None, typer.Argument(help="A model; without it, all.")] = None,
    random_weights: RandomWeights = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """The zoo; for one model its layers, shapes, parameters and frame bounds."""
    with busy("measuring", as_json):
        from reconstruct.zoo import describe, model_names, read_architecture

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
                for each in known
            ]
        else:
            described = describe(name, random_weights=random_weights)
    if as_json:
        print(json.dumps(listed if name is None else described, indent=2, allow_nan=False))
    elif name is None:
        _model_table(listed)
    else:
        _layer_table(described)


@models.command("import")
def import_weights(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A state dict: .pth, or .safetensors.")],
    model: Annotated[str, typer.Option("--as", help="The model that it is of: alexnet or vgg16.")],
    output: Output = Path(),
) -> None:
    """Weights that torchvision publishes, as a model that every command takes: NAME.toml and NAME.safetensors.

    Nothing in FILE is run: it is read as a state dict and nothing else.
    """
    with busy("importing", False):
        from reconstruct.checkpoints import import_checkpoint

        written = import_checkpoint(file, model, output)
    printed.print(f"model: {written}", soft_wrap=True, markup=False)


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

    from reconstruct.network import KINDS

    size = described["input_size"]
    printed.print(f"{described['name']}: {described['source']}", soft_wrap=True, markup=False)
    weights = Path(described["weights"]).name if described["weights"] else described.get("own_weights", "none")
    printed.print(f"input {size} x {size}, {described['parameters']:,} parameters without biases, weights: {weights}")
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
            f"{layer['receptive_field']}",
            f"{layer['parameters']:,}",
            "" if layer["unknowns"] is None else f"{layer['unknowns']:,}",
            f"{layer['equations']:,}",
            "" if bounds is None else f"{bounds[0]:.1e} {bounds[1]:.1f}",
            "" if bounds is None else f"{layer['condition_number']:,.0f}",
            "" if bounds is None else f"{layer['dimensions_lost']:.0%}",
        )
    printed.print(table)
    if described["splits"]:
        points = ", ".join(f"{name} ({of['layer']}, {of['tap']})" for name, of in described["splits"].items())
        printed.print(f"split points: {points}", soft_wrap=True, markup=False)
    if any(layer["frame_bounds"] for layer in described["layers"]):
        printed.print(
            "field: receptive field, pixels; frame bounds: smallest non-zero and largest squared singular value, on a "
            "torus; lost: share of the layer's input dimensions that its responses do not determine",
            soft_wrap=True,
        )
