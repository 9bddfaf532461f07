"""Choose the settings of method gradient, once, from public photographs.

    python benchmarks/choose_gradient.py PHOTOGRAPH_OR_FOLDER... --crop 131
    python benchmarks/choose_gradient.py PHOTOGRAPH_OR_FOLDER... --budgets 150,450,900

The first varies one setting of ``reconstruct.inversion.gradient`` after the other, the others held, and prints the mean
PSNR of each layer; central crops of the photographs cost less and rank the settings alike. The second prints the mean
PSNR at several budgets with the settings as they are. The images must not be any that a benchmark or a test of this
project uses; the settings were chosen on four photographs of gcompris-qt-data that recipes/photographs.py holds out
(categorization 1028879, 49882, 978297, erase 2952732), as the 131 x 131 windows whose top left corner is pixel (48, 48)
of the 227 x 227 photographs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from reconstruct import ImageError, Network, load_image, quality
from reconstruct.inversion import gradient
from reconstruct.zoo.load import load_network

VARIED: dict[str, tuple[Any, ...]] = {
    "STEP": (14.0, 28.0, 40.0, 56.0, 112.0),
    "STEADY": (0.0, 0.6, 0.8, 0.9),
    "MOMENTS": ((0.9, 0.9), (0.9, 0.95), (0.9, 0.99), (0.9, 0.999)),
    "TV_WEIGHT": (2.5e-7, 2.5e-6, 7.5e-6, 1.5e-5, 7.5e-5),
    "TV_GROWTH": (1.5, 2.0, 2.5),
    "TV_FALL": (1.0, 10.0, 100.0),
    "ALPHA_WEIGHT": (0.0, 1e-5, 1e-4, 1e-3),
    "NOISE": (0.05, 0.5, 5.0, 30.0),
}


def main(
    paths: list[Path],
    model: Annotated[str, typer.Option(help="A name in the zoo, or a TOML file.")] = "crelu_conv1_4",
    layers: Annotated[str, typer.Option(help="Layers, with commas.")] = "conv1,conv2,conv3,conv4,conv5,conv6,conv7",
    budgets: Annotated[str, typer.Option(help="Forward passes, with commas: a table, nothing varied.")] = "",
    budget: Annotated[float, typer.Option(help="Forward passes of each trial.")] = gradient.BUDGET,
    crop: Annotated[int, typer.Option(help="Side of the window, from pixel (48, 48); 0: the whole.")] = 0,
) -> None:
    """Print a table of mean PSNR in dB."""
    net = load_network(model)
    images = torch.stack(list(_images(paths, net.input_size)))
    if crop:
        images = images[:, :, 48 : 48 + crop, 48 : 48 + crop]
    names = layers.split(",")
    print(f"{len(images)} images of {images.shape[2]} x {images.shape[3]}")
    print(f"| | {' | '.join(names)} |\n| --- |{' ---: |' * len(names)}")
    if budgets:
        for passes in map(float, budgets.split(",")):
            _row(f"{passes:g} passes", net, images, names, passes)
        return
    for name, values in VARIED.items():
        chosen = getattr(gradient, name)
        for value in values:
            setattr(gradient, name, value)
            _row(f"{name} {value}{' (chosen)' if value == chosen else ''}", net, images, names, budget)
        setattr(gradient, name, chosen)


def _row(title: str, net: Network, images: torch.Tensor, layers: list[str], budget: float) -> None:
    size = images.shape[2], images.shape[3]
    print(f"| {title} |", end="", flush=True)
    for layer in layers:
        found = gradient.invert_gradient(net, net.features(images, layer), layer, size, budget=budget)
        psnr = quality(images, found.images).psnr
        print(f" {sum(psnr) / len(psnr):.2f} |", end="", flush=True)
    print()


def _images(paths: list[Path], size: int) -> Iterator[torch.Tensor]:
    for path in paths:
        for each in sorted(path.iterdir()) if path.is_dir() else [path]:
            try:
                yield load_image(each, size)
            except ImageError as error:
                print(f"left out: {error}")


if __name__ == "__main__":
    typer.run(main)
