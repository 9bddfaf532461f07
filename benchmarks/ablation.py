"""What each part of ``map`` is worth: the method as it is, and with one part changed at a time.

    python benchmarks/ablation.py PHOTOGRAPH... [--layers conv2,conv3,conv4] [--budget 450]

Prints mean PSNR in dB, as a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from statistics import mean
from typing import Any
from unittest import mock

import torch

import reconstruct
from reconstruct.inversion.most_probable import gauss_newton, method, search, task
from reconstruct.prior import estimates
from reconstruct.prior import gaussian as prior


def unweighted(matrices: torch.Tensor, shift: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """A stand-in for ``inverse`` that knows the responses' mean variance alone."""
    typical = float(torch.diagonal(matrices.real, dim1=-2, dim2=-1).mean()) + shift
    return lambda values: values / typical


GREY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
CASES: dict[str, list[tuple[Any, str, object]]] = {
    "all of it": [],
    "white images: amplitude 1 / f^0": [(prior, "EXPONENT", 0.0)],
    "steeper images: amplitude 1 / f^1": [(prior, "EXPONENT", 1.0)],
    "independent colours": [(prior, "AXES", GREY), (prior, "SPREAD", (1.0, 1.0, 1.0))],
    "residuals not weighted (L-BFGS without G)": [(search, "inverse", unweighted)],
    "no smoothing: signs decided at once": [(task.Task, "smoothed", False)],
    "one tau: 0.03 from the start": [(search, "STAGES", 1)],
    "errors of the smoothed network not weighed": [
        (estimates.Smoothing, "error", lambda self, _: 0 * self.errors[1.0])
    ],
    "as little prior as with all signs right": [(search, "PRIOR_WEIGHT_UNDETERMINED", search.PRIOR_WEIGHT)],
    "layers not stepped over": [(method, "steps_over", lambda *_: None)],
    "no Gauss-Newton: L-BFGS all the way": [(task, "SHALLOW", -1)],
    "Gauss-Newton at conv3 too": [(task, "SHALLOW", 2)],
    "no prior in Gauss-Newton's preconditioner": [
        (gauss_newton, "SHIFT_LINEAR", 0.0),
        (gauss_newton, "SHIFT_OVER", 0.0),
        (gauss_newton, "SHIFT_UNDER", 0.0),
    ],
    "rounds of Gauss-Newton do not grow": [(gauss_newton, "GROWTH", 1.0)],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", nargs="+")
    parser.add_argument("--layers", default="conv2,conv3,conv4")
    parser.add_argument("--budget", type=float, default=450)
    chosen = parser.parse_args()
    layers = chosen.layers.split(",")
    net = reconstruct.load_model("crelu_conv1_4")
    images = torch.stack([reconstruct.load_image(path, net.input_size) for path in chosen.photographs])
    features = {layer: net.features(images, layer) for layer in layers}
    print(f"| | {' | '.join(layers)} |")
    print(f"| --- |{' ---: |' * len(layers)}")
    for name, changes in CASES.items():
        # Statistics of a changed prior must not be taken for those of the right one.
        with ExitStack() as stack:
            cache = stack.enter_context(tempfile.TemporaryDirectory())
            stack.enter_context(mock.patch.dict(os.environ, RECONSTRUCT_CACHE=cache))
            for module, attribute, value in changes:
                stack.enter_context(mock.patch.object(module, attribute, value))
            found = []
            for layer in layers:
                result = reconstruct.invert(net, features[layer], layer, "map", budget=chosen.budget)
                found.append(mean(reconstruct.quality(images, result.image).psnr))
        print(f"| {name} | {' | '.join(f'{value:.1f}' for value in found)} |", flush=True)


if __name__ == "__main__":
    main()
