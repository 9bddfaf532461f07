"""The same features inverted by us and by outside implementations: time, PSNR and memory, by image size and batch.

    python -m pip install pylops deepinv bdpy
    python benchmarks/peers.py PHOTOGRAPH [--sizes 64,128,256,512,1024] [--batches 1,4,16,64] [--output FILE.md]

- conv1, a linear layer: SciPy's ``lsmr`` and ``lsqr``, PyLops's ``cgls`` and deepinv's least squares on the layer's own
  operator, against ``linear``.
- conv2, through the network: ``torch.optim.LBFGS``, ``torch.optim.Adam`` and bdpy's ``FeatureInversionTask`` on
  |f(x) - z|^2 from a grey image, against ``gradient`` and ``map``.

Every implementation runs in a process of its own, one thread each, with budgets that double; a pass is one forward pass
(forward and backward 3, an operator and its adjoint 2). Seconds are the processor's, so that a busy machine does not
count. "To the same PSNR" is to what the weakest of a table reaches; "at the same time" is at that of ours at the third
budget.
Packages that are not installed are named and left out.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import linear_regression

os.environ.setdefault("CUPY_PYLOPS", "0")  # PyLops imports CuPy where it is installed, also without a GPU

import numpy
import torch
from scipy.sparse.linalg import lsmr, lsqr

import reconstruct
from reconstruct.network.network import Network
from reconstruct.zoo.load import load_network

Solve = Callable[[Network, torch.Tensor, str, int], torch.Tensor]
"""Images from those images' features of a layer, with so many forward passes."""
Curve = list[tuple[float, float]]
"""Seconds an image and PSNR, by budget."""

MODEL = "crelu_conv1_4"
BUDGETS = (25, 50, 100, 200)
RATE = 0.02


def ours(method: str) -> Solve:
    def solve(net: Network, images: torch.Tensor, layer: str, budget: int) -> torch.Tensor:
        features, size = net.features(images, layer), (images.shape[2], images.shape[3])
        return reconstruct.invert(net, features, layer, method, size=size, budget=budget, tolerance=1e-5).image

    return solve


def by_columns(run: Callable[..., numpy.ndarray]) -> Solve:
    """One image after the other by a solver of SciPy's kind on ``reconstruct.linear_operator``."""

    def solve(net: Network, images: torch.Tensor, layer: str, budget: int) -> torch.Tensor:
        operator = reconstruct.linear_operator(net, layer, (images.shape[2], images.shape[3]), dtype=torch.float32)
        given = net.responses(images, layer).flatten(1).numpy() - operator.offset
        found = [run(operator, each, budget // 2) for each in given]
        return torch.from_numpy(numpy.stack(found)).float().reshape(images.shape)

    return solve


def scipy_lsmr(operator: object, given: numpy.ndarray, count: int) -> numpy.ndarray:
    with numpy.errstate(over="ignore"):  # its estimate of the condition number starts beyond float32
        found: numpy.ndarray = lsmr(operator, given, atol=0, btol=0, conlim=0, maxiter=count)[0]
    return found


def scipy_lsqr(operator: object, given: numpy.ndarray, count: int) -> numpy.ndarray:
    found: numpy.ndarray = lsqr(operator, given, atol=0, btol=0, conlim=0, iter_lim=count)[0]
    return found


def pylops_cgls(operator: object, given: numpy.ndarray, count: int) -> numpy.ndarray:
    import pylops
    from pylops.optimization.basic import cgls

    found: numpy.ndarray = cgls(pylops.aslinearoperator(operator), given, niter=count, tol=0)[0]
    return found


def deepinv(solver: str) -> Solve:
    def solve(net: Network, images: torch.Tensor, layer: str, budget: int) -> torch.Tensor:
        from reconstruct.operators.as_deepinv import TangentPhysics

        physics = TangentPhysics(net, layer, (images.shape[2], images.shape[3]))
        given = physics.target(net.features(images, layer))
        found: torch.Tensor = physics.A_dagger(given, solver=solver, max_iter=budget // 2, tol=1e-8)
        return found

    return solve


def torch_optimiser(name: str) -> Solve:
    def solve(net: Network, images: torch.Tensor, layer: str, budget: int) -> torch.Tensor:
        target = net.responses(images, layer)
        x = torch.full_like(images, 0.45, requires_grad=True)
        if name == "LBFGS":
            optimiser: torch.optim.Optimizer = torch.optim.LBFGS(
                [x], max_iter=budget, max_eval=budget // 3, history_size=25, line_search_fn="strong_wolfe"
            )
        else:
            optimiser = torch.optim.Adam([x], lr=RATE)

        def closure() -> torch.Tensor:
            optimiser.zero_grad()
            loss = (net.responses(x, layer) - target).square().sum() / target.square().sum()
            loss.backward()
            return loss

        for _ in range(1 if name == "LBFGS" else budget // 3):
            optimiser.step(closure)  # type: ignore[arg-type]
        return x.detach()

    return solve


def bdpy(net: Network, images: torch.Tensor, layer: str, budget: int) -> torch.Tensor:
    from joint import by_bdpy

    return by_bdpy(net, {layer: net.features(images, layer)}, RATE, budget, images.shape[2])


TABLES: dict[str, dict[str, Solve]] = {
    "conv1": {
        "linear": ours("linear"),
        "SciPy lsmr": by_columns(scipy_lsmr),
        "SciPy lsqr": by_columns(scipy_lsqr),
        "PyLops cgls": by_columns(pylops_cgls),
        "deepinv CG": deepinv("CG"),
        "deepinv lsqr": deepinv("lsqr"),
    },
    "conv2": {
        "map": ours("map"),
        "gradient": ours("gradient"),
        "torch.optim.Adam": torch_optimiser("Adam"),
        "torch.optim.LBFGS": torch_optimiser("LBFGS"),
        "bdpy": bdpy,
    },
}
"""By layer; the first is ours, which the others are compared with."""


def measured(layer: str, name: str, images: torch.Tensor) -> tuple[Curve, float, float] | str:
    """The curve, the gigabytes that it took, and seconds an image of a forward pass; or what is not there."""
    net = load_network(MODEL)
    solve = TABLES[layer][name]
    net.responses(images, layer)
    began = time.process_time()
    for _ in range(5):
        net.responses(images, layer)
    forward = (time.process_time() - began) / 5 / len(images)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        solve(net, images, layer, 6)  # what is prepared once, and imported
        curve = []
        for budget in BUDGETS:
            began = time.process_time()
            found = solve(net, images, layer, budget)
            seconds = (time.process_time() - began) / len(images)
            scores = reconstruct.quality(images, found.clamp(0, 1)).psnr
            curve.append((seconds, sum(scores) / len(scores)))
    except (ImportError, reconstruct.CallError) as error:
        return f"{name} is left out: {error}"
    return curve, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6, forward


def apart(layer: str, name: str, images: torch.Tensor) -> tuple[Curve, float, float] | str:
    """``measured`` in a new process, whose peak of memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1, torch.set_num_threads, (1,)) as pool:
        return pool.apply(measured, (layer, name, images))


def seconds_to(curve: Curve, psnr: float) -> float:
    """Interpolated in the logarithm of time; not a number where it is not reached."""
    for (early, low), (late, high) in pairwise(curve):
        if low < psnr <= high:
            return float(early * (late / early) ** ((psnr - low) / (high - low)))
    return curve[0][0] if curve[0][1] >= psnr else math.nan


def psnr_at(curve: Curve, seconds: float) -> float:
    """Interpolated in the logarithm of time; of the first or the last budget outside."""
    times, scores = zip(*curve, strict=True)
    return float(numpy.interp(math.log(seconds), numpy.log(times), scores))


def exponent(points: list[tuple[int, float]]) -> float:
    """Of time as a power of the number of pixels, from sides and seconds."""
    sides, seconds = zip(*points, strict=True)
    return linear_regression([2 * math.log(side) for side in sides], [math.log(each) for each in seconds]).slope


def table(layer: str, cases: list[tuple[int, int]], picture: str) -> list[str]:
    lines = [
        f"### {layer}\n",
        "| pixels | batch | by | forward passes' time to the same PSNR | ratio to ours | PSNR at the same time | "
        f"PSNR after {BUDGETS[-1]} passes | s an image then | GB |",
        "| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    growth: dict[str, list[tuple[int, float]]] = {}
    absent: set[str] = set()
    for size, batch in cases:
        image = reconstruct.load_image(picture, size)[None]
        # The same photograph, moved: every image of the batch is another.
        images = torch.cat([image.roll((7 * each, 5 * each), (2, 3)) for each in range(batch)])
        found = {}
        for name in TABLES[layer]:
            got = apart(layer, name, images)
            if isinstance(got, str):
                absent.add(got)
            else:
                found[name] = got
        target = min(curve[-1][1] for curve, _, _ in found.values())
        own = next(iter(found.values()))[0]
        for name, (curve, memory, forward) in found.items():
            needed = seconds_to(curve, target)
            beside = psnr_at(curve, own[len(own) // 2][0])
            lines.append(
                f"| {size} | {batch} | {name} | {needed / forward:.0f} | {needed / seconds_to(own, target):.1f} | "
                f"{beside:.1f} | {curve[-1][1]:.1f} | {curve[-1][0]:.2f} | {memory:.2f} |"
            )
            print(lines[-1], flush=True)
            if batch == 1:
                growth.setdefault(name, []).append((size, curve[-1][0]))
    fitted = [f"{name} {exponent(points):.2f}" for name, points in growth.items() if len(points) > 1]
    lines += ["", f"Time grows with the number of pixels to the power of: {', '.join(fitted)}.", *sorted(absent), ""]
    print("\n".join(lines[-3:]), flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photograph")
    parser.add_argument("--sizes", default="64,128,256,512,1024")
    parser.add_argument("--batches", default="1,4,16,64", help="at the smallest size")
    parser.add_argument("--largest", type=int, default=256, help="the largest size for layers through the network")
    parser.add_argument("--output", type=Path, help="a Markdown file whose part below its second heading is replaced")
    chosen = parser.parse_args()
    sizes = [int(each) for each in chosen.sizes.split(",")]
    batches = [int(each) for each in chosen.batches.split(",")]
    lines = []
    for layer in TABLES:
        limit = chosen.largest if layer != "conv1" else max(sizes)
        cases = [(size, 1) for size in sizes if size <= limit]
        lines += table(layer, cases + [(sizes[0], batch) for batch in batches if batch > 1], chosen.photograph)
    if chosen.output:
        kept = chosen.output.read_text().split("## Measured\n")[0]
        chosen.output.write_text(kept + "## Measured\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
