"""Method linear on CReLU layers: fidelity by form and damping, and conv1's PSNR against iterations.

    python benchmarks/linear.py samples/*.jpg --output docs/figures

Prints a table of all forms, and writes linear.json, conv1_iterations.png and, of the first image,
paper/IMAGE.linear.png: Figure 5 of Shang et al. 2016 in two rows, their Algorithm 1 and the same damped, which is ours
and the default.
Every reconstruction is scored as the command line does; "flat" is the image's own mean colour and nothing else.
"""

from __future__ import annotations

import json
import platform
import resource
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from matplotlib.figure import Figure
from PIL import Image

from reconstruct import Network, invert, load_image, quality
from reconstruct.inversion.linear import Damping, LayerInverse
from reconstruct.operators.arrays import array_of, using
from reconstruct.operators.convolution import Convolution
from reconstruct.report.figures.panels import Panel, comparison, quality_caption
from reconstruct.solvers.least_squares import cgls
from reconstruct.zoo.load import load_network

# Shang et al.'s Algorithm 1 is undamped: "patch" and "global, undamped" are two readings of its pseudoinverse.
FORMS: dict[str, dict[str, Any]] = {
    "patch": {"linear_form": "patch", "damping": 0},
    "global, undamped": {"damping": 0},
    "global, damped": {"damping": "auto"},
}
ITERATIONS = (2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300)


def main(
    images: list[Path],
    output: Annotated[Path, typer.Option(help="Folder for the figure and the JSON.")] = Path("docs/figures"),
    model: Annotated[str, typer.Option(help="A CReLU model of the zoo.")] = "crelu_conv1_4",
    layers: Annotated[str, typer.Option(help="Layers with commas.")] = "conv1,conv2,conv3,conv4",
) -> None:
    """Run everything and write it down."""
    net = load_network(model)
    pictures = {path.stem: load_image(path, net.input_size)[None] for path in images}
    names = layers.split(",")
    rows = [row for stem, picture in pictures.items() for layer in names for row in _forms(net, picture, stem, layer)]
    per_image = {stem: _default_seconds(net, picture, names) for stem, picture in pictures.items()}
    curves = {stem: _curve(net, picture) for stem, picture in pictures.items()}
    found = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "rows": rows,
        "seconds_for_all_layers": per_image,
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "conv1_psnr_by_iterations": curves,
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / "linear.json").write_text(json.dumps(found, indent=1))
    stem, picture = next(iter(pictures.items()))
    (output / "paper").mkdir(exist_ok=True)
    _figure_5(net, picture, stem, names).save(output / "paper" / f"{stem}.linear.png")
    _draw(curves, output / "conv1_iterations.png")
    print(_table(rows, names))
    print()
    for stem, seconds in per_image.items():
        print(f"{stem}: {', '.join(names)} at the defaults in {seconds:.1f} s")
    print(f"peak memory {found['peak_memory_gb']:.2f} GB")


def _forms(net: Network, picture: torch.Tensor, stem: str, layer: str) -> list[dict[str, Any]]:
    features = net.features(picture, layer)
    flat = picture.mean(dim=(2, 3), keepdim=True).expand_as(picture)
    judged = quality(picture, flat)
    rows = [{"image": stem, "layer": layer, "form": "flat", "psnr": judged.psnr[0], "ssim": judged.ssim[0]}]
    for form, options in FORMS.items():
        result = invert(net, features, layer, "linear", **options)
        judged = quality(picture, result.image)
        rows.append(
            {
                "image": stem,
                "layer": layer,
                "form": form,
                "psnr": judged.psnr[0],
                "ssim": judged.ssim[0],
                "feature_residual": result.feature_residual[0],
                "status": result.status[0],
                "forward_passes": result.forward_passes[0],
                "seconds": result.seconds,
                "prepare_seconds": result.prepare_seconds,
            }
        )
    return rows


def _figure_5(net: Network, picture: torch.Tensor, stem: str, layers: list[str]) -> Image.Image:
    """The image and its reconstructions by Algorithm 1, and below them by the same damped."""
    rows: list[list[Panel]] = []
    kinds: tuple[tuple[Damping, str], ...] = ((0, "Algorithm 1"), ("auto", "damped (ours)"))
    for damping, name in kinds:
        row = []
        for layer in layers:
            result = invert(net, net.features(picture, layer), layer, "linear", damping=damping)
            judged = quality(picture, result.image)
            row.append(Panel(result.image[0], f"{layer}, {name}", quality_caption(judged.psnr[0], judged.ssim[0])))
        rows.append(row)
    return comparison(Panel(picture[0], stem), rows)


def _default_seconds(net: Network, picture: torch.Tensor, layers: list[str]) -> float:
    """All layers of one image with the defaults, prepared already for the images before it."""
    began = time.perf_counter()
    for layer in layers:
        invert(net, net.features(picture, layer), layer, "linear")
    return time.perf_counter() - began


def _curve(net: Network, picture: torch.Tensor) -> dict[str, dict[int, float]]:
    """PSNR of conv1 after so many iterations, without and with the preconditioner, in float32 and float64."""
    layer = net.layer("conv1")
    size = (picture.shape[2], picture.shape[3])
    bias = net.convolution("conv1").bias
    assert bias is not None
    responses = net.responses(picture, "conv1") - bias.view(1, -1, 1, 1)
    curves: dict[str, dict[int, float]] = {}
    for name, dtype, preconditioned in (
        ("plain, float32", torch.float32, False),
        ("preconditioned, float32", torch.float32, True),
        ("preconditioned, float64", torch.float64, True),
    ):
        operator = Convolution(net.convolution("conv1").weight, layer.stride, layer.padding, size, dtype)
        with using(picture.device):
            inverse = LayerInverse(operator, "global", 0.0, image=True)
            condition = inverse.precondition if preconditioned else None
            curve = {}
            for count in ITERATIONS:
                solved = cgls(
                    operator,
                    array_of(responses.to(dtype)),
                    norm=inverse.norm,
                    precondition=condition,
                    tolerance=1e-9,
                    iterations=count,
                )
                image = torch.from_numpy(solved.value).float() * net.std + net.mean
                curve[count] = quality(picture, image).psnr[0]
        curves[name] = curve
    return curves


def _table(rows: list[dict[str, Any]], layers: list[str]) -> str:
    """Mean PSNR and SSIM over the images, as Markdown."""
    lines = ["| layer | flat mean colour | " + " | ".join(FORMS) + " |", "| --- |" + " ---: |" * (1 + len(FORMS))]
    for layer in layers:
        cells = []
        for form in ("flat", *FORMS):
            chosen = [row for row in rows if row["layer"] == layer and row["form"] == form]
            psnr, ssim = (sum(row[key] for row in chosen) / len(chosen) for key in ("psnr", "ssim"))
            cells.append(f"{psnr:.1f} / {ssim:.2f}")
        lines.append(f"| {layer} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _draw(curves: dict[str, dict[str, dict[int, float]]], path: Path) -> None:
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    names = next(iter(curves.values()))
    # float64 lies under float32 to the width of a line: drawn wide and first.
    styles = {"plain, float32": ("C0", 2, "-"), "preconditioned, float32": ("C1", 2, "-")}
    styles["preconditioned, float64"] = ("0.8", 6, "-")
    for name in sorted(names, key=lambda name: -styles[name][1]):
        colour, width, line = styles[name]
        mean = [sum(curve[name][count] for curve in curves.values()) / len(curves) for count in ITERATIONS]
        axes.plot(ITERATIONS, mean, line, color=colour, linewidth=width, label=name)
        if colour != "0.8":
            low = [min(curve[name][count] for curve in curves.values()) for count in ITERATIONS]
            high = [max(curve[name][count] for curve in curves.values()) for count in ITERATIONS]
            axes.fill_between(ITERATIONS, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.set_xscale("log")
    axes.set_xticks(ITERATIONS, [str(count) for count in ITERATIONS], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("iterations (2 forward passes each)")
    axes.set_ylabel("PSNR, dB")
    axes.set_title(f"conv1, linear global, undamped: mean and range of {len(curves)} photographs", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    typer.run(main)
