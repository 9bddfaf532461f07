"""Whether pixels are as near to their original as ``confidence`` says, on photographs.

    python benchmarks/confidence.py PHOTOGRAPH... [--model crelu_conv1_4] [--layers conv2,conv3] [--noise 0]
        [--output FOLDER]

Prints, of each layer by method ``map``: the share of pixels within the error that was expected of them (0.9 is meant),
photograph by photograph; of the pixels said to be within 0.01, 0.02, 0.05 and 0.1, how many are, and what share of all
they are; and how the logarithms of the expected error and of the true one near it are correlated. An error is the
largest of a pixel's channels, after clipping to [0, 1]. With ``--output`` the same go to confidence.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean
from typing import Any

import torch

import reconstruct
from reconstruct.inversion.most_probable.ensemble import blurred

SAID = (0.01, 0.02, 0.05, 0.1)
NEAR = 3.0
"""Over how many pixels true errors are averaged before they are compared with those expected."""


def judged(images: torch.Tensor, found: torch.Tensor, expected: torch.Tensor) -> dict[str, Any]:
    """What ``main`` prints of a layer, of N x C x H x W images, those found and N x 1 x H x W expected errors."""
    error = (found.clamp(0, 1) - images).abs().amax(1, keepdim=True)
    within = (error <= expected).float()
    near = blurred(error.square(), NEAR, "replicate").sqrt().clamp_min(1e-6)
    pairs = zip(expected.log(), near.log(), strict=True)
    said = {}
    for limit in SAID:
        chosen = expected <= limit
        kept = float((error[chosen] <= limit).float().mean()) if chosen.any() else None
        said[str(limit)] = {"pixels": float(chosen.float().mean()), "within": kept}
    return {
        "within": within.mean((1, 2, 3)).tolist(),
        "said": said,
        "correlation": [float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]) for a, b in pairs],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", nargs="+")
    parser.add_argument("--model", default="crelu_conv1_4")
    parser.add_argument("--layers", default="conv1,conv2,conv3,conv4")
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--output", type=Path)
    chosen = parser.parse_args()
    net = reconstruct.load_model(chosen.model)
    images = torch.stack([reconstruct.load_image(path, net.input_size) for path in chosen.photographs])
    table: dict[str, Any] = {}
    for layer in chosen.layers.split(","):
        features, noise = reconstruct.disturb(net.features(images, layer), noise=chosen.noise)
        result = reconstruct.invert(net, features, layer, noise=noise, confidence=True)
        assert result.expected_error is not None
        row = table[layer] = judged(images, result.image, result.expected_error)
        shares = ", ".join(f"{share:.2f}" for share in row["within"])
        print(f"{layer}: within the expected error {mean(row['within']):.2f} ({shares})")
        for limit, told in row["said"].items():
            if told["within"] is not None:
                share = f"{told['within']:.1%} of the {told['pixels']:.0%} of the pixels of which it was said"
                print(f"    within {limit}: {share}")
        print(f"    correlation of logarithms {', '.join(f'{each:.2f}' for each in row['correlation'])}", flush=True)
    if chosen.output is not None:
        path = chosen.output / "confidence.json"
        said = {"model": chosen.model, "noise": chosen.noise, "photographs": [Path(p).name for p in chosen.photographs]}
        path.write_text(json.dumps(said | {"layers": table}, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
