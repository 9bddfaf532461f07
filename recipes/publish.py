"""Make a training run's model a default of the zoo: its weights in float16 and their card.

    python recipes/publish.py RUN/MODEL.toml PHOTOGRAPHS CROPS --side PIXELS [--stop LAYER] [--output models/weights]

PHOTOGRAPHS is what recipes/photographs.py made, CROPS what the run learned from. Measures how far the model agrees with
its teacher on the held-out photographs and on the held-out crops, counts what it was trained on, and writes
MODEL.safetensors and MODEL.md.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from pathlib import Path

import torch
from safetensors.torch import save

from reconstruct.images.atomic import write_atomically
from reconstruct.network.network import Network
from reconstruct.training.classification import class_scores, divergence, error_rate
from reconstruct.training.data import load_pictures
from reconstruct.training.distill import ask, load_teacher, unlabelled
from reconstruct.zoo.load import load_network


def agreement(net: Network, photographs: Path, held_out_crops: Path, side: int, resize: int | None) -> list[str]:
    """Lines on how far the network agrees with the teacher on what neither of them was trained on."""
    whole = unlabelled(photographs / "held_out")
    answers = torch.from_numpy(ask(load_teacher(), whole, "cpu"))
    crops = load_pictures(held_out_crops)
    lines = []
    for name, pictures, targets, shown in (
        (
            "photographs, whole, at the model's own size",
            whole,
            answers,
            (net.input_size, round(net.input_size * 256 / 227)),
        ),
        (f"crops at {side} pixels", crops, torch.tensor(crops.targets), (side, resize)),
    ):
        scores = class_scores(net, pictures, side=shown[0], resize=shown[1])
        errors = [error_rate(scores, targets, top) for top in (1, 5)]
        lines.append(
            f"{len(pictures):,} {name}: the teacher's first choice is the network's in {1 - errors[0]:.1%}, among its "
            f"first five in {1 - errors[1]:.1%}; KL divergence {float(divergence(scores, targets)):.2f}"
        )
    return lines


def trained_on(photographs: Path) -> list[str]:
    """Lines on the pictures, by kind and by package."""
    pictures = json.loads((photographs / "manifest.json").read_text())["pictures"]
    used = [each for each in pictures if each["split"] == "train"]
    kinds = Counter(each["kind"] for each in used)
    packages = Counter(f"{each['package']} {each['version']}" for each in used)
    kinds_said = ", ".join(f"{count} {kind}s" for kind, count in kinds.most_common())
    return [f"{len(used):,} pictures ({kinds_said})", ", ".join(f"{name} ({n})" for name, n in packages.most_common())]


def training(folder: Path, name: str) -> list[str]:
    """Lines on the run, from its own card and log."""
    rows = list(csv.DictReader((folder / "log.csv").open()))
    how = next(line for line in (folder / f"{name}.md").read_text().splitlines() if line.startswith("- **How**"))
    losses = f"KL divergence to the teacher on training crops {float(rows[0]['loss']):.2f} in the first steps, "
    return [how.removeprefix("- **How**: ").removesuffix("."), losses + f"{float(rows[-1]['loss']):.2f} in the last"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="RUN/MODEL.toml")
    parser.add_argument("photographs", type=Path)
    parser.add_argument("crops", type=Path)
    parser.add_argument("--side", type=int, required=True, help="what the run saw, in pixels")
    parser.add_argument("--resize", type=int, help="to what the crops were resized first")
    parser.add_argument("--stop", help="the last layer whose weights are kept")
    parser.add_argument("--note", default="", help="a sentence more about how")
    parser.add_argument("--output", type=Path, default=Path("models/weights"))
    chosen = parser.parse_args()
    net = load_network(str(chosen.model))
    held_out = chosen.crops.with_name(f"{chosen.crops.name}_held_out")
    names = [layer.name for layer in net.layers]
    kept = names[: names.index(chosen.stop) + 1] if chosen.stop else names
    state = {key: value.half() for key, value in net.state_dict().items() if key.split(".")[0] in kept}
    lines = [
        f"# {net.name}" + (f", features only (up to {chosen.stop})" if chosen.stop else ""),
        "",
        f"{net.architecture.source}. float16, batch normalisation folded into weights and biases.",
        "",
        "- **Trained on**: " + ".\n  By package: ".join(trained_on(chosen.photographs)) + ".",
        "  [The script](../../recipes/photographs.py) that collects them also says what was left out.",
        "- **How**: without labels, from the answers of EfficientNet-Lite0 (its published ImageNet weights,",
        f"  Apache-2.0, from the Python package index) on {len(load_pictures(chosen.crops)):,} random crops of them.",
        *(f"  {line}." for line in training(chosen.model.parent, net.name)),
        *([f"  {chosen.note}"] if chosen.note else []),
        "- **Held out** (photographs that neither was trained on as far as we know):",
        *(f"  {line}." for line in agreement(net, chosen.photographs, held_out, chosen.side, chosen.resize)),
        "- **Is not**: trained on ImageNet's images or labels, nor good at recognition: a few hundred photographs do",
        "  not teach a thousand classes. It is here because its filters are a trained network's.",
        "- **Licence**: weights released under the project's licence; the pictures keep theirs and are not included.",
        "",
    ]
    write_atomically(chosen.output / f"{net.name}.safetensors", save(state))
    write_atomically(chosen.output / f"{net.name}.md", "\n".join(lines).encode())
    print("\n".join(lines))


if __name__ == "__main__":
    main()
