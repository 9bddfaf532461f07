"""What the examples share: where they write, and a figure of labelled pictures side by side."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.figure import Figure

PHOTOGRAPH = Path(__file__).parent.parent / "samples" / "chelsea.jpg"
SIDE, GAP, LINE = 1.9, 0.06, 0.17
"""Inches of a panel, of the space around it, and of a line of its label."""


def output_folder(about: str | None) -> Path:
    """The folder that ``--output`` names, made if it is not there; the current one by default."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(), metavar="FOLDER", help="where the picture is written")
    folder: Path = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def draw(path: Path, panels: Mapping[str, torch.Tensor]) -> None:
    """Writes a row of pictures with their labels above them, and prints the labels.

    Parameters
    ----------
    path : the file to write, PNG or WebP.
    panels : by label, 3 x H x W in [0, 1], clipped if it is not; or H x W, a signed map, red where it is positive and
        blue where it is negative. All maps of the figure have one scale.
    """
    above = LINE * max(label.count("\n") + 1 for label in panels) + GAP
    width, height = (SIDE + GAP) * len(panels) + GAP, SIDE + above + GAP
    figure = Figure(figsize=(width, height))
    maps = [each.abs().flatten() for each in panels.values() if each.ndim == 2]
    limit = float(torch.cat(maps).quantile(0.995)) if maps else 1.0  # a few strong responses would leave the rest pale
    for number, (label, picture) in enumerate(panels.items()):
        left = GAP + number * (SIDE + GAP)
        axes = figure.add_axes((left / width, GAP / height, SIDE / width, SIDE / height))
        axes.axis("off")
        axes.set_title(label, fontsize=9, pad=3)
        if picture.ndim == 2:
            axes.imshow(picture.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        else:
            axes.imshow(picture.clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="bicubic")
        print(label.replace("\n", ", "))
    figure.savefig(path, dpi=100, pil_kwargs={"quality": 90} if path.suffix == ".webp" else {})
    print(f"written: {path}")
