"""How close each method comes to the image, and at what work.

    python benchmarks/fidelity.py PHOTOGRAPH... [--layers conv2,conv3] [--budgets 450,900] [--output FOLDER]

Every layer and method runs in a process of its own, with one budget after another: the schedules of ``map`` and
``gradient`` end with their budget, so a curve of PSNR against work is made of whole runs, not of one run watched. A
layer named ``conv5*`` is inverted from its linear responses, where ``conv5`` is from its ReLU features.

Writes fidelity.json (a row a photograph, layer, method and budget) and fidelity.png (a panel a layer, a line a method).
``passes`` leave the preparation out; ``prepare_passes`` are what the first run of a model and layer pays for it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

import reconstruct
from reconstruct.inversion.methods import applicable
from reconstruct.network.surgery import with_tap

ITERATIVE = ("map", "gradient")


def run(paths: list[str], model: str, named: str, method: str, budgets: list[float | None]) -> list[dict[str, Any]]:
    """All photographs at one layer by one method, as rows."""
    layer = named.rstrip("*")
    net = reconstruct.load_model(model)
    if named != layer:
        net = with_tap(net, layer, "crelu")
    if applicable(net, layer, method):
        return []
    images = torch.stack([reconstruct.load_image(path, net.input_size) for path in paths])
    features = net.features(images, layer)
    rows = []
    for budget in budgets:
        result = reconstruct.invert(net, features, layer, method, budget=budget)
        judged = reconstruct.quality(images, result.image)
        rows += [
            {
                "image": Path(path).name,
                "layer": named,
                "method": method,
                "budget": budget,
                "psnr": judged.psnr[i],
                "ssim": judged.ssim[i],
                "feature_residual": result.feature_residual[i],
                "status": result.status[i],
                "passes": result.forward_passes[i],
                "prepare_passes": result.prepare_passes,
                "seconds": result.seconds / len(paths),
                "prepare_seconds": result.prepare_seconds,
                "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            }
            for i, path in enumerate(paths)
        ]
    return rows


def table(rows: list[dict[str, Any]]) -> None:
    """Print the means over the photographs."""
    print("layer   method    budget   PSNR   SSIM  residual  passes  prepare  s/image  peak GB")
    for key in dict.fromkeys((row["layer"], row["method"], row["budget"]) for row in rows):
        own = [row for row in rows if (row["layer"], row["method"], row["budget"]) == key]
        figures = {
            name: mean(row[name] for row in own)
            for name in ("psnr", "ssim", "feature_residual", "passes", "seconds", "peak_gb")
        }
        print(
            f"{key[0]:7s} {key[1]:9s} {key[2] or 0:6.0f} {figures['psnr']:6.1f} {figures['ssim']:6.3f}"
            f"  {figures['feature_residual']:.1e}  {figures['passes']:6.0f}  {own[0]['prepare_passes']:7.0f}"
            f"  {figures['seconds']:7.1f}  {figures['peak_gb']:7.1f}"
        )


def flat_psnr(paths: list[str], size: int) -> float:
    """The mean PSNR of pictures that have one colour, their photograph's mean: what no features at all would give."""
    found = []
    for path in paths:
        image = reconstruct.load_image(path, size)[None]
        found += reconstruct.quality(image, image.mean((2, 3), keepdim=True).expand_as(image)).psnr
    return mean(found)


def draw(rows: list[dict[str, Any]], flat: float, path: Path) -> None:
    """Draw PSNR against work, a panel a layer: means over the photographs, bars of a standard deviation.

    ``flat`` : the PSNR of a flat picture, drawn as a line.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    layers = list(dict.fromkeys(row["layer"] for row in rows))
    colours = {"map": "#0b6e4f", "gradient": "#c8553d", "linear": "#555555", "wiener": "#3d6cb9"}
    columns = min(4, len(layers))
    lines = -(-len(layers) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.3 * lines), layout="constrained")
    # One scale for all panels, so that layers can be compared.
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axes, layer in zip(panels.flat, layers, strict=False):
        for method, colour in colours.items():
            own = [row for row in rows if row["layer"] == layer and row["method"] == method]
            budgets = list(dict.fromkeys(row["budget"] for row in own))
            points = [[row for row in own if row["budget"] == budget] for budget in budgets]
            work = [mean(row["passes"] for row in point) for point in points]
            psnr = [mean(row["psnr"] for row in point) for point in points]
            spread = [stdev(row["psnr"] for row in point) if len(point) > 1 else 0.0 for point in points]
            axes.errorbar(
                work, psnr, spread, fmt="o-" if method in ITERATIVE else "D", color=colour, label=method, markersize=4,
                capsize=2, elinewidth=0.8,
            )  # fmt: skip
        axes.axhline(flat, color="#999999", linestyle="--", linewidth=1, label="a flat picture of the mean colour")
        axes.set_xscale("log")
        axes.set_xticks([30, 100, 300, 1000], ["30", "100", "300", "1,000"])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_title(layer + (" (linear responses)" if layer.endswith("*") else ""), fontsize=10)
        axes.set_xlabel("forward passes")
        axes.set_ylabel("PSNR, dB")
        axes.grid(alpha=0.3)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", nargs="+")
    parser.add_argument("--model", default="crelu_conv1_4")
    parser.add_argument("--layers", default="conv1,conv2,conv3,conv4")
    parser.add_argument("--methods", default="linear,wiener,gradient,map")
    parser.add_argument("--budgets", default="90,225,450,900,3000")
    parser.add_argument("--output", type=Path, default=Path())
    chosen = parser.parse_args()
    budgets = [float(budget) for budget in chosen.budgets.split(",")]
    rows: list[dict[str, Any]] = []
    # Statistics are estimated anew: nothing that was cached before makes a method look cheaper.
    with tempfile.TemporaryDirectory() as cache:
        os.environ["RECONSTRUCT_CACHE"] = cache
        for layer in chosen.layers.split(","):
            for method in chosen.methods.split(","):
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    wanted: list[float | None] = list(budgets) if method in ITERATIVE else [None]
                    rows += pool.submit(run, chosen.photographs, chosen.model, layer, method, wanted).result()
    table(rows)
    chosen.output.mkdir(parents=True, exist_ok=True)
    (chosen.output / "fidelity.json").write_text(json.dumps(rows, indent=1) + "\n")
    flat = flat_psnr(chosen.photographs, reconstruct.load_model(chosen.model).input_size)
    draw(rows, flat, chosen.output / "fidelity.png")


if __name__ == "__main__":
    main()
