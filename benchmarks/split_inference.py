"""What a device gives away that computes a network's first layers and sends their output to a cloud for the rest.

    python benchmarks/split_inference.py [--data FOLDER] [--limit N] [--split conv11,ReLU22,ReLU32]
        [--method map,gradient] [--noise 0,0.01,0.1] [--quantise float16,int8] [--output FOLDER]

The network of He, Zhang, Lee 2019 (``cifar_split``) is inverted at its split points, from features as they are, with
noise, and rounded. FOLDER holds CIFAR-10's files or any pictures, which are cut to squares and resized to 32 x 32;
default the samples. Beside the attacks on what is sent stand those on the same layer read through CReLU, features as
they are, by ``map`` and, where they apply, ``linear`` and ``wiener``: the difference is what ReLU keeps to the device.

Prints two markdown tables and writes split_inference.json (a row a point, method and disturbance) and
split_inference.png (some of the images).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import torch

import reconstruct
from reconstruct.evaluation.batch import Job, batch_size, measure
from reconstruct.evaluation.results import distribution, write_json
from reconstruct.images.files import model_input, to_tensor, write_png
from reconstruct.images.sources import open_source, select
from reconstruct.inversion.disturb import disturb
from reconstruct.inversion.methods import METHODS, applicable
from reconstruct.network.network import Network
from reconstruct.network.read_points import Point, point
from reconstruct.report.figures.panels import Panel, panels, quality_caption
from reconstruct.zoo.load import load_network

MODEL = "cifar_split"
SHOWN = 4
"""Images of the figure."""
AS_CRELU = " as CReLU"

PUBLISHED = {
    "conv11": ((37.59, 0.9960), (49.88, 0.9993)),
    "ReLU22": ((19.47, 0.6940), (19.81, 0.6939)),
    "ReLU32": ((13.38, 0.1625), (15.42, 0.3124)),
}
"""PSNR in dB and SSIM of He, Zhang, Lee 2019: optimisation with the model known, and a trained inverse network."""


@dataclass(frozen=True)
class Disturbance:
    """The noise and the rounding that features suffer on their way."""

    noise: float = 0.0
    quantise: str | None = None

    def __str__(self) -> str:
        return self.quantise or (f"noise {self.noise:g}" if self.noise else "as they are")


def pictures(net: Network, data: str, limit: int | None, layers: list[str]) -> tuple[list[str], torch.Tensor]:
    """Names and N x 3 x H x W, as the network takes them."""
    source = open_source(data)
    chosen = select(len(source.names), limit)
    names = [source.names[i] for i in chosen]
    fitted = [model_input(source.picture(i), source.names[i], net, layers, None, False) for i in chosen]
    return names, torch.stack([to_tensor(each) for each in fitted])


def attacks(
    net: Network, splits: Sequence[str], methods: Sequence[str], how: Disturbance
) -> Iterator[tuple[Point, str]]:
    """At each split point the methods that apply; of undisturbed features also those on its layer read as CReLU."""
    for name in splits:
        sent = point(net, name)
        tried = [(sent, method) for method in methods]
        if how == Disturbance() and sent.net.layer(sent.layer).has_weights:
            both = replace(point(net, sent.layer, "crelu"), name=f"{sent.layer}{AS_CRELU}")
            tried += [(both, method) for method in ("map", "linear", "wiener")]
        yield from ((at, method) for at, method in tried if applicable(at.net, at.layer, method) is None)


def attack(
    at: Point, method: str, names: list[str], images: torch.Tensor, how: Disturbance, together: int
) -> tuple[dict[str, Any], torch.Tensor]:
    """All images at one point by one method: how near, and the reconstructions."""
    rows, found = [], []
    for start in range(0, len(images), together):
        batch = images[start : start + together]
        features, level = disturb(at.features(batch), noise=how.noise, quantise=how.quantise)
        result, records = measure(at, names[start : start + together], batch, features, method, noise=level)
        rows += records
        found.append(result.image)
    columns = {name: numpy.array([row[name] for row in rows]) for name in ("psnr", "ssim", "seconds", "noise")}
    return {
        "point": at.name,
        "layer": at.layer,
        "tap": at.tap,
        "method": method,
        "features": str(how),
        "noise": float(columns["noise"].mean()),
        "count": len(rows),
        "psnr": distribution(columns["psnr"]),
        "ssim": distribution(columns["ssim"]),
        "seconds": float(columns["seconds"].mean()),
        "forward_passes": float(numpy.mean([row["forward_passes"] for row in rows])),
    }, torch.cat(found)


def quality_of(row: dict[str, Any] | None) -> str:
    """Mean and standard deviation over the images, of PSNR and of SSIM."""
    if row is None:
        return ""
    psnr, ssim = row["psnr"], row["ssim"]
    if psnr["mean"] is None:
        return "exact"
    if psnr["std"] is None:  # of a single image
        return f"{psnr['mean']:.1f} / {ssim['mean']:.3f}"
    return f"{psnr['mean']:.1f} ± {psnr['std']:.1f} / {ssim['mean']:.3f} ± {ssim['std']:.3f}"


def tables(results: Sequence[dict[str, Any]], disturbances: Sequence[Disturbance]) -> str:
    """Two tables as Markdown: what was found beside what is published, and what noise and rounding change."""
    found = {(row["point"], row["method"], row["features"]): row for row in results}
    places = list(dict.fromkeys(row["point"] for row in results))
    methods = list(dict.fromkeys(row["method"] for row in results))
    plain = str(disturbances[0])
    lines = [
        f"PSNR in dB / SSIM, mean ± standard deviation over {results[0]['count']} images; features {plain}",
        "",
        f"| point | {' | '.join(methods)} | He et al., optimisation | He et al., trained network |",
        f"| --- |{' ---: |' * (len(methods) + 2)}",
    ]
    for place in places:
        theirs = [f"{psnr:.2f} / {ssim:.4f}" for psnr, ssim in PUBLISHED.get(place, ())] or ["", ""]
        ours = [quality_of(found.get((place, method, plain))) for method in methods]
        lines.append(f"| {place} | {' | '.join([*ours, *theirs])} |")
    lines += [
        "",
        f"| point | method | {' | '.join(map(str, disturbances))} |",
        f"| --- | --- |{' ---: |' * len(disturbances)}",
    ]
    for place, method in dict.fromkeys((row["point"], row["method"]) for row in results):
        if place.endswith(AS_CRELU):
            continue
        shown = [quality_of(found.get((place, method, str(how)))) for how in disturbances]
        lines.append(f"| {place} | {method} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    samples = str(Path(__file__).parent.parent / "samples")
    parser.add_argument("--data", default=samples, help="a folder of CIFAR-10's files or of pictures")
    parser.add_argument("--limit", type=int, help="the first so many images")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--split", default=",".join(PUBLISHED), help="split points")
    parser.add_argument("--method", default="map,gradient", help=", ".join(METHODS))
    parser.add_argument("--noise", default="0,0.01,0.1", help="shares of the features' norm")
    parser.add_argument("--quantise", default="float16,int8")
    parser.add_argument("--output", type=Path, default=Path())
    chosen = parser.parse_args()
    net = load_network(chosen.model)
    splits, methods = chosen.split.split(","), chosen.method.split(",")
    names, images = pictures(net, chosen.data, chosen.limit, splits)
    together = batch_size(net, Job(dict.fromkeys(splits, methods)))
    disturbances = [Disturbance(float(share)) for share in chosen.noise.split(",")]
    disturbances += [Disturbance(quantise=kind) for kind in chosen.quantise.split(",") if kind]
    results = []
    shown = sorted({i * len(names) // SHOWN for i in range(SHOWN)})
    sheet = [[Panel(images[i], "original", Path(names[i]).stem)] for i in shown]
    for how in disturbances:
        for at, method in attacks(net, splits, methods, how):
            row, found = attack(at, method, names, images, how, together)
            results.append(row)
            print(f"{at.name}, {method}, {how}: {quality_of(row)}, {row['seconds']:.2f} s an image", flush=True)
            if how is disturbances[0] and at.name in splits:
                judged = reconstruct.quality(images[shown], found[shown])
                for line, i, psnr, ssim in zip(sheet, shown, judged.psnr, judged.ssim, strict=True):
                    line.append(Panel(found[i], f"{at.name}, {method}", quality_caption(psnr, ssim)))
    print(f"\n{tables(results, disturbances)}")
    chosen.output.mkdir(parents=True, exist_ok=True)
    written = {"model": net.name, "data": Path(chosen.data).name, "images": names, "results": results}
    write_json(chosen.output / "split_inference.json", written)
    write_png(panels(sheet), chosen.output / "split_inference.png")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
