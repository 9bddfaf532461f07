"""Choose the default damping of method linear for each layer of a model, once, from a folder of public photographs.

    python benchmarks/choose_damping.py FOLDER --model crelu_conv1_4

Coordinate descent on the mean PSNR over the images: for each layer to invert from, one layer's damping after the other
runs over the grid, the others held, until a round changes nothing. Prints the TOML that goes into the specification.
The images must not be any that a benchmark or a test of this project uses.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer

from reconstruct import ImageError, Network, invert, load_image, load_model, quality
from reconstruct.inversion import applicable
from reconstruct.inversion.linear import forget

GRID = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
Factors = dict[str, float]


def main(
    folder: Path,
    model: Annotated[
        str, typer.Option(help="A name in the zoo, or the path of a TOML specification.")
    ] = "crelu_conv1_4",
    budget: Annotated[float, typer.Option(help="Forward passes of each trial.")] = 100,
    first: Annotated[str | None, typer.Option(help="The first layer to choose for.")] = None,
) -> None:
    """Print a [damping] table."""
    net = load_model(model)
    images = _images(folder, net.input_size)
    print(f"# chosen by benchmarks/choose_damping.py on {len(images)} photographs")
    print("[damping]")
    start: Factors = {}
    skipping = first is not None
    for layer in net.layer_names:
        if applicable(net, layer, "linear"):
            break
        skipping = skipping and layer != first
        if skipping:
            continue
        names = [each.name for each in net.chain(layer)]
        # Layers below start from 0.1 where nothing is known: undamped, one hides what the others do.
        start = {name: start.get(name, 0.1) for name in names[:-1]} | {layer: 0.0}
        start, reached = _descend(start, _scorer(net, images, layer, budget))
        inside = ", ".join(f"{name} = {value:g}" for name, value in start.items())
        print(f"{layer} = {{ {inside} }} # {reached:.2f} dB", flush=True)


def _scorer(net: Network, images: torch.Tensor, layer: str, budget: float) -> Callable[[Factors], float]:
    """Mean PSNR over the images as a function of the damping."""
    features = net.features(images, layer)

    def score(factors: Factors) -> float:
        result = invert(net, features, layer, "linear", damping=factors, budget=budget)
        forget(net)
        return sum(quality(images, result.image).psnr) / len(images)

    return score


def _descend(factors: Factors, score: Callable[[Factors], float]) -> tuple[Factors, float]:
    tried: dict[tuple[float, ...], float] = {}

    def known(factors: Factors) -> float:
        key = tuple(factors.values())
        if key not in tried:
            tried[key] = score(factors)
        return tried[key]

    while True:
        before = factors
        for name in factors:
            factors = max((factors | {name: value} for value in GRID), key=known)
        if factors == before:
            return factors, known(factors)


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
