"""Choose the default damping of method linear for each layer of a model, once, from a folder of public photographs.

    python benchmarks/choose_damping.py FOLDER --model crelu_conv1_4

Best PSNR alone would choose too little damping: a grid of artefacts scores well and looks wrong. So, of the settings
whose mean PSNR is within 1 dB of the best, the one with the best mean SSIM. Both by coordinate descent: one layer's
damping after the other runs over the grid, the others held, until a round changes nothing. Prints the TOML that goes
into the specification. The images must not be any that a benchmark or a test of this project uses.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer

from reconstruct import ImageError, Network, invert, load_image, quality
from reconstruct.network.kept import forget
from reconstruct.zoo.load import load_network

GRID = (0.0, 0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 1.0)
SLACK = 1.0
"""dB of PSNR given up at most for a better SSIM."""
Factors = dict[str, float]


def main(
    folder: Path,
    model: Annotated[str, typer.Option(help="A name in the zoo, or a TOML file.")] = "crelu_conv1_4",
    layers: Annotated[str, typer.Option(help="Layers to choose for, with commas.")] = "conv1,conv2,conv3,conv4",
    budget: Annotated[float, typer.Option(help="Forward passes of each trial.")] = 100,
) -> None:
    """Print a [damping] table."""
    net = load_network(model)
    images = _images(folder, net.input_size)
    print(f"# chosen by benchmarks/choose_damping.py on {len(images)} photographs")
    print("[damping]")
    chosen = dict(net.architecture.damping)
    for layer in layers.split(","):
        names = [each.name for each in net.up_to(layer)]
        # From what was found for the layer below. Undamped, one layer would hide what the others do.
        below = chosen.get(names[-2], {}) if len(names) > 1 else {}
        factors = {name: below.get(name, 0.1) for name in names[:-1]} | {layer: 0.0}
        scores = _scorer(net, images, layer, budget)
        chosen[layer], highest = _choose(factors, scores)
        inside = ", ".join(f"{name} = {value:g}" for name, value in chosen[layer].items())
        psnr, ssim = scores(chosen[layer])
        print(f"{layer} = {{ {inside} }} # {psnr:.2f} dB of {highest:.2f}, SSIM {ssim:.3f}", flush=True)


def _scorer(net: Network, images: torch.Tensor, layer: str, budget: float) -> Callable[[Factors], tuple[float, float]]:
    """Mean PSNR and SSIM over the images as a function of the damping."""
    features = net.features(images, layer)
    known: dict[tuple[float, ...], tuple[float, float]] = {}

    def score(factors: Factors) -> tuple[float, float]:
        key = tuple(factors.values())
        if key not in known:
            result = invert(net, features, layer, "linear", damping=factors, budget=budget)
            forget(net)
            judged = quality(images, result.image)
            known[key] = sum(judged.psnr) / len(images), sum(judged.ssim) / len(images)
        return known[key]

    return score


def _choose(factors: Factors, scores: Callable[[Factors], tuple[float, float]]) -> tuple[Factors, float]:
    """The damping, and the best PSNR that there was."""
    sharpest = _descend(factors, lambda factors: scores(factors)[0])
    highest = scores(sharpest)[0]
    return _descend(sharpest, lambda factors: scores(factors)[1] * (scores(factors)[0] >= highest - SLACK)), highest


def _descend(factors: Factors, score: Callable[[Factors], float]) -> Factors:
    while True:
        before = factors
        for name in factors:
            factors = max((factors | {name: value} for value in GRID), key=score)
        if factors == before:
            return factors


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
