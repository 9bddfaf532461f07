"""What the default weights look like: the first layer's filters, their pairs, and how the training went.

    python benchmarks/weights.py [MODEL...] [--ica PHOTOGRAPHS] [--runs FOLDER] [--output FOLDER]

Writes filters.MODEL.png for each model, pairing.png and weights.json. With --ica, the photographs that conv1
started from, the independent components stand beside the filters: what training found there and how far it moved it.
With --runs (folders named after the models that hold a log.csv), training.png.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import torch
from torch.nn.functional import cosine_similarity

from reconstruct.analysis.crelu.pairing import layer_pairs, pairing, random_pairing
from reconstruct.images.files import write_png
from reconstruct.operators.convolution import Convolution, frame
from reconstruct.report.figures.filters import cosine_histograms, filter_grid
from reconstruct.report.figures.training import training_curves
from reconstruct.training.distill import unlabelled
from reconstruct.training.ica import initialise_by_ica
from reconstruct.zoo.load import load_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["crelu_conv1_4", "all_cnn_b"])
    parser.add_argument("--ica", type=Path)
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/figures"))
    chosen = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    cosines: list[tuple[str, torch.Tensor, torch.Tensor]] = []
    starts: dict[tuple[int, ...], torch.Tensor] = {}
    for name in chosen.models:
        net = load_network(name)
        first = net.layers[0]
        weight = net.convolution(first.name).weight
        size = (net.input_size, net.input_size)
        bounds = frame(Convolution(weight, first.stride, first.padding, size))
        pairs = layer_pairs(net, first.name)
        cosines.append((name, pairs.cosines, pairs.random))
        # The share of a filter's energy in its mean: none in a band-pass filter.
        mean = weight.mean(dim=(2, 3)).square().sum(1) * first.kernel**2 / weight.square().sum((1, 2, 3))
        found[name] = {
            **{key: value for key, value in pairs.record().items() if isinstance(value, float)},
            "same_covariance_std_of_means": float(pairs.matched.std()),
            "lower_frame_bound": bounds.lower,
            "upper_frame_bound": bounds.upper,
            "condition_number": bounds.condition_number,
            "mean_energy_median": float(mean.median()),
        }
        write_png(filter_grid(weight), chosen.output / f"filters.{name}.png")
        # Independent components are at most as many as a patch has numbers: smaller kernels started at random.
        if chosen.ica is None or first.filters > weight[0].numel():
            continue
        shape = tuple(weight.shape)
        if shape not in starts:
            before = load_network(name, random_weights=0)
            initialise_by_ica(before, unlabelled(chosen.ica), 0)
            starts[shape] = before.convolution(first.name).weight
            cosines.append(("components", pairing(starts[shape])[1], random_pairing(shape, 0)))
            write_png(filter_grid(starts[shape]), chosen.output / "filters.independent_components.png")
        # Folding batch normalisation scales a filter, by a negative number too: only its direction counts.
        moved = cosine_similarity(weight.flatten(1), starts[shape].flatten(1)).abs()
        found[name] |= {
            "components_cosine_mean": float(pairing(starts[shape])[1].mean()),
            "cosine_to_component_median": float(moved.median()),
            "cosine_to_component_min": float(moved.min()),
        }
    write_png(cosine_histograms({"first layers": cosines}), chosen.output / "pairing.png")
    if chosen.runs is not None:
        logs = {name: list(csv.DictReader((chosen.runs / name / "log.csv").open())) for name in chosen.models}
        write_png(training_curves(logs, agreement=True), chosen.output / "training.png")
        found |= {f"{name} training": {key: float(rows[-1][key]) for key in rows[-1]} for name, rows in logs.items()}
    text = json.dumps(found, indent=1)
    print(text)
    (chosen.output / "weights.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
