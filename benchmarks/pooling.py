"""Max-pooling's bounds: a million regions without a violation, the corollary's setting, CReLU beside ReLU, time.

    python benchmarks/pooling.py IMAGE... [--regions 1000000] [--output docs/figures]

Prints JSON and writes it to pooling.json, and the corollary's figure to pooling_corollary.png. Exit status 1 if an
error exceeds its bound anywhere, or if bounds made 1% too small are not noticed.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch.nn.functional import conv_transpose2d

import reconstruct
from reconstruct.analysis.pooling_bounds import Regions, layer_bounds, random_filters, region_bounds
from reconstruct.inversion.pooled import rebuild
from reconstruct.network.architecture import Layer
from reconstruct.network.network import Network
from reconstruct.network.surgery import with_pool
from reconstruct.zoo.load import load_network

SUBSET = 12
"""Filters of a bank in the count of violations: small matrices make a million regions affordable."""
SPOILT = 0.99
INPUTS = 300


def banks(channels: int, generator: torch.Generator) -> Iterator[tuple[str, torch.Tensor, torch.Tensor | None, int]]:
    """Filter banks by name: weights, bias, stride. Trained ones keep their biases; of one channel, a filter's green."""
    for kernel, stride in ((3, 1), (5, 2), (11, 4)):
        yield (
            f"random {kernel} x {kernel}",
            random_filters(
                torch.zeros(SUBSET, channels, kernel, kernel), int(torch.randint(2**31, (), generator=generator))
            ),
            None,
            stride,
        )
    for name in ("crelu_conv1_4", "all_cnn_b", "convpool_cnn_c_crelu", "convpool_cnn_c"):
        net = load_network(name)
        first = net.convolution("conv1")
        chosen = torch.randperm(len(first.weight), generator=generator)[:SUBSET]
        weight = first.weight[chosen]
        assert first.bias is not None
        yield name, weight if channels == 3 else weight[:, 1:2], first.bias[chosen], net.layers[0].stride


def count_violations(images: torch.Tensor, least: int) -> dict[str, Any]:
    """Random and trained filters, photographs and noise, 1 and 3 channels, CReLU and ReLU, until there are enough."""
    generator = torch.Generator().manual_seed(0)
    found: dict[str, dict[str, int]] = {}
    total = 0
    while total < least:
        for channels in (1, 3):
            photographs = (images - 0.45) / 0.22
            noise = torch.randn(2, channels, 96, 96, generator=generator)
            for name, weight, bias, stride in banks(channels, generator):
                for what, inputs in (("photographs", photographs[:, :channels]), ("noise", noise)):
                    for activation in ("crelu", "relu"):
                        layer = Layer("conv", SUBSET, weight.shape[2], stride, activation=activation)
                        kernel, step = ((2, 2), (3, 2), (3, 3))[int(torch.randint(3, (), generator=generator))]
                        pool = Layer("pool", kernel=kernel, stride=step, kind="max_pool")
                        regions = region_bounds(inputs, weight, bias, layer, pool)
                        own = found.setdefault(
                            f"{name}, {what}, {channels} channels", {"regions": 0, "violations": 0, "noticed": 0}
                        )
                        own["regions"] += regions.relative_error.numel() - regions.empty
                        own["violations"] += regions.violations
                        own["noticed"] += spoilt(regions).violations
                        total += regions.relative_error.numel() - regions.empty
    return {
        "regions": total,
        "violations": sum(each["violations"] for each in found.values()),
        "noticed_of_bounds_1_percent_too_small": sum(each["noticed"] for each in found.values()),
        "by_bank": found,
    }


def spoilt(regions: Regions) -> Regions:
    """The regions with bounds that are 1% too small."""
    return replace(regions, bound_measured=SPOILT * regions.bound_measured, bound_model=SPOILT * regions.bound_model)


def corollary(weight: torch.Tensor, stride: int, kernel: int, generator: torch.Generator) -> dict[str, Any]:
    """Inputs made of one shift of each filter: their errors, and the bound sqrt((L - l) / L)."""
    filters = len(weight)
    weight = weight.double()
    layer = Layer("conv", filters, weight.shape[2], stride, activation="crelu")
    pool = Layer("pool", kernel=kernel, stride=kernel, kind="max_pool")
    shifts = torch.randint(kernel**2, (INPUTS, filters, 1), generator=generator)
    one = torch.zeros(INPUTS, filters, kernel**2, dtype=torch.float64).scatter_(2, shifts, 1.0)
    # Every column that an input is made of, as a picture of its own.
    apart = torch.diag_embed(one.transpose(1, 2)).permute(0, 2, 3, 1).reshape(-1, filters, kernel, kernel)
    columns = conv_transpose2d(apart, weight, stride=stride)
    columns = columns.view(INPUTS, filters, -1)
    sizes = torch.randn(INPUTS, filters, generator=generator, dtype=torch.float64)
    inputs = torch.einsum("nf,nfd->nd", sizes, columns)
    side = (kernel - 1) * stride + weight.shape[2]
    regions = region_bounds(inputs.view(INPUTS, weight.shape[1], side, side), weight, None, layer, pool)
    smallest = torch.linalg.svdvals(columns)[:, -1].square()
    largest = regions.lambda_max.flatten()
    bound = (1 - smallest / largest).clamp_min(0).sqrt()
    error = regions.relative_error.flatten()
    above = error.square() > bound.square() + 1e-9
    return {
        "ratio": (largest / smallest).tolist(),
        "error": error.tolist(),
        "bound": bound.tolist(),
        "violations": int(above.sum()) + regions.violations,
    }


def corollary_banks(generator: torch.Generator) -> Iterator[tuple[str, torch.Tensor, int, int]]:
    """From trained filters to a tight frame: name, weights, stride, kernel of the pooling."""
    net = load_network("crelu_conv1_4")
    weight = net.convolution("conv1").weight
    norm = weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    chosen = torch.randperm(len(weight), generator=generator)[:8]
    yield "trained, all of conv1, unit norm", weight / norm, 4, 3
    yield "trained, 8 of conv1, unit norm", (weight / norm)[chosen], 4, 3
    yield "random, 8 of 11 x 11", random_filters(weight[:8], 0), 4, 3
    left, values, right = torch.linalg.svd(
        torch.randn(8, 75, generator=generator, dtype=torch.float64), full_matrices=False
    )
    # Singular values to the power t; at t = 0 the filters are orthonormal, and their shifts do not overlap.
    for power in (1.0, 0.5, 0.25, 0.1, 0.0):
        tight = (left * values**power) @ right
        name = "orthonormal: a tight frame" if power == 0 else f"random, singular values to the power {power:g}"
        yield name, tight.view(8, 3, 5, 5), 5, 2


def draw_corollary(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Errors against L / l below the curve that the corollary is, and each bank's distribution."""
    figure = Figure(figsize=(11, 4.2), dpi=100, layout="constrained")
    curve, boxes = figure.subplots(1, 2, width_ratios=(1.2, 1))
    ratios = [10 ** (k / 50) for k in range(201)]
    curve.plot(
        ratios, [(1 - 1 / each) ** 0.5 for each in ratios], color="black", linewidth=1, label="sqrt((L - l) / L)"
    )
    for number, (name, own) in enumerate(found.items()):
        curve.scatter(own["ratio"], own["error"], s=8, alpha=0.5, color=f"C{number}", label=name)
    curve.set(xscale="log", xlabel="L / l", ylabel="relative error", ylim=(-0.03, 1.03), xlim=(0.9, 1e4))
    curve.legend(fontsize=7, loc="upper right", bbox_to_anchor=(1.0, 0.95))
    places = range(len(found))
    boxes.boxplot(
        [own["error"] for own in found.values()],
        positions=list(places),
        orientation="horizontal",
        widths=0.5,
        showfliers=False,
    )
    means = [sum(own["bound"]) / len(own["bound"]) for own in found.values()]
    boxes.plot(means, list(places), "D", color="black", markersize=5, label="mean bound")
    boxes.set_yticks(list(places), list(found), fontsize=7)
    boxes.set(xlabel="relative error (boxes) and its bound", xlim=(-0.03, 1.03))
    boxes.invert_yaxis()
    boxes.legend(fontsize=7, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def with_relu(net: Network) -> Network:
    """A network of the same filters with ReLU below the pooling."""
    layers = (*net.layers[:-2], replace(net.layers[-2], activation="relu"), net.layers[-1])
    other = Network(replace(net.architecture, layers=layers)).eval().requires_grad_(False)
    other.load_state_dict(net.state_dict())
    return other


def beside_relu(images: torch.Tensor) -> dict[str, dict[str, float]]:
    """Mean PSNR of what is rebuilt of conv1 pooled by 3/2, with CReLU and with ReLU on the same filters."""
    crelu = with_pool(load_network("crelu_conv1_4"), "conv1", 3, 2)
    return {
        name: {
            known: sum(reconstruct.quality(images, each.images).psnr) / len(images)
            for known, each in rebuild(net, images, net.layer_names[-1])
        }
        for name, net in (("crelu", crelu), ("relu", with_relu(crelu)))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--regions", type=int, default=1_000_000)
    parser.add_argument("--output", type=Path, default=Path("docs/figures"))
    chosen = parser.parse_args()
    images = torch.stack([reconstruct.load_image(path, 227) for path in chosen.images])
    net = with_pool(load_network("crelu_conv1_4"), "conv1", 3, 2)
    began = time.perf_counter()
    layer_bounds(net, images[:1], "conv1_pool")
    found: dict[str, Any] = {"seconds_an_image": time.perf_counter() - began}
    found["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    generator = torch.Generator().manual_seed(1)
    lines = {
        name: corollary(weight, stride, kernel, generator)
        for name, weight, stride, kernel in corollary_banks(generator)
    }
    draw_corollary(lines, chosen.output / "pooling_corollary.png")
    found["corollary"] = {
        name: {
            "mean_error": sum(own["error"]) / INPUTS,
            "mean_bound": sum(own["bound"]) / INPUTS,
            "largest_bound": max(own["bound"]),
            "violations": own["violations"],
        }
        for name, own in lines.items()
    }
    found["psnr"] = beside_relu(images)
    found["count"] = count_violations(images, chosen.regions)
    text = json.dumps(found, indent=1)
    print(text)
    (chosen.output / "pooling.json").write_text(text + "\n")
    broken = found["count"]["violations"] + sum(own["violations"] for own in lines.values())
    sys.exit(1 if broken or not found["count"]["noticed_of_bounds_1_percent_too_small"] else 0)


if __name__ == "__main__":
    main()
