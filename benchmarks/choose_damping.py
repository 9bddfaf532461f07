"""Choose the default damping of method linear for each layer of a model, once, from a folder of public photographs.

    python benchmarks/choose_damping.py FOLDER --model crelu_conv1_4

Coordinate descent on the mean PSNR over the images: for each layer to invert from, one layer's damping after the other
runs over the grid, the others held, until a round changes nothing. Prints the TOML that goes into the specification.
The images are not any that a benchmark or a test of this project uses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from reconstruct import ImageError, invert, load_image, load_model, quality
from reconstruct.inversion.linear import forget
from reconstruct.inversion import applicable

GRID = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def main(
    folder: Path,
    model: Annotated[str, typer.Option()] = "crelu_conv1_4",
    budget: Annotated[float, typer.Option(help="Forward passes of each trial.")] = 100,
) -> None:
    net = load_model(model)
    images = _images(folder, net.input_size)
    print(f"# chosen by benchmarks/choose_damping.py on {len(images)} photographs")
    print("[damping]")
    start: dict[str, float] = {}
    for layer in net.layer_names:
        if applicable(net, layer, "linear"):
            break
        features = net.features(images, layer)
        names = [each.name for each in net.chain(layer)]
        # The layer below starts from 0.1: undamped it would hide what the others do.
        factors = {name: start.get(name) or 0.1 for name in names[:-1]} | {layer: 0.0}
        best, trials = -1.0, {}

        def score(factors: dict[str, float]) -> float:
            key = tuple(factors.values())
            if key not in trials:
                result = invert(net, features, layer, "linear", damping=factors, budget=budget)
                trials[key] = sum(quality(images, result.image).psnr) / len(images)
            return trials[key]

        changed = True
        while changed:
            changed = False
            for name in names:
                for value in GRID:
                    reached = score(factors | {name: value})
                    if reached > best + 0.005:
                        best, changed = reached, changed or factors[name] != value
                        factors = factors | {name: value}
                forget(net)
        start = factors
        inside = ", ".join(f"{name} = {value:g}" for name, value in factors.items())
        print(f"{layer} = {{ {inside} }} # {best:.2f} dB", flush=True)


def _images(folder: Path, size: int) -> torch.Tensor:
    found = []
    for path in sorted(folder.iterdir()):
        try:
            found.append(load_image(path, size))
        except ImageError as error:
            print(f"# left out: {error}")
    return torch.stack(found)


if __name__ == "__main__":
    typer.run(main)
