"""A GPU held against the CPU: the same numbers, no memory lost over a loop, and how fast; ``reconstruct doctor --gpu``.

Every check is run on both devices with the same random weights, so that it needs no file, and what comes back is
compared within what single precision and the order of sums leave open.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import torch

from reconstruct.errors import words_of
from reconstruct.extras import install_hint
from reconstruct.inversion.invert import invert
from reconstruct.network.architecture import Architecture, Layer
from reconstruct.network.network import Network
from reconstruct.network.surgery import randomise
from reconstruct.operators import arrays
from reconstruct.operators.convolution import Convolution
from reconstruct.prior.gaussian import Prior

SIDE, BUDGET = 67, 60
LAYERS = (
    Layer("conv1", 32, kernel=7, stride=2, activation="crelu"),
    Layer("conv2", 32, kernel=3, padding=1, activation="crelu"),
    Layer("pool", kernel=2, stride=2, kind="max_pool"),
)
"""A network with an overlapping, strided first layer, a rectification below the second, and a max-pooling."""
LARGE = (8, 227)
"""How many pictures, and of which side, the speed is measured on: a batch as ``evaluate`` makes them."""
LOOP = 40
"""Rounds of the loop over which memory must not grow, of which the first quarter may still fill caches."""
OPERATORS, SOLVES, SEARCHES = 1e-4, 1e-2, 0.1
"""How far the two may be apart: operators, relative to the largest number, above what float32 rounds and below
what TF32 does; solves, relative to the largest; searches, whose ends differ, relative to what the image itself misses.
"""

Values = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    measured, allowed : how far the devices are apart, and how far they may be; None where nothing was measured.
    error : what went wrong instead.
    """

    name: str
    measured: float | None
    allowed: float | None
    error: str | None = None

    @property
    def good(self) -> bool:
        """Whether the devices agree; a measured value that is no number does not."""
        return self.error is None and (self.measured is None or self.allowed is None or self.measured <= self.allowed)


def lacking() -> str | None:
    """What a GPU needs here that is not there, in a sentence; None where nothing is missing."""
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = "is built without CUDA" if built is None else f"is built for CUDA {built} and finds no device"
        return f"no GPU was checked: torch {torch.__version__} {why}"
    if find_spec("cupy") is None:
        return f"no GPU was checked: CuPy is missing ({install_hint('gpu')})"
    return None


def check_gpu(gpu: torch.device) -> dict[str, Any]:
    """Every check on the CPU and on a GPU, and the seconds of each; everything in it can be written as JSON.

    The CPU can be held against itself; no memory is measured then.
    """
    cpu = torch.device("cpu")
    findings: list[Finding] = []
    seconds: dict[str, dict[str, float]] = {}
    for name, (run, allowed, scale) in CHECKS.items():
        try:
            found = {}
            for place, device in (("cpu", cpu), ("gpu", gpu)):
                run(device)  # the first time libraries start and kernels are chosen
                _wait(device)
                began = time.perf_counter()
                found[place] = run(device)
                _wait(device)
                seconds.setdefault(name, {})[place] = time.perf_counter() - began
            findings.append(judged(name, found["cpu"], found["gpu"], allowed, scale))
        except Exception as error:  # whatever a driver or a library raises: it is what a report is for
            findings.append(Finding(name, None, allowed, words_of(error)))
    findings.append(memory_over_a_loop(gpu))
    return {
        "device": torch.cuda.get_device_name(gpu) if gpu.type == "cuda" else str(gpu),
        "checks": [asdict(each) | {"good": each.good} for each in findings],
        "seconds": seconds,
    }


def judged(name: str, cpu: Values, gpu: Values, allowed: float, scale: str | None) -> Finding:
    """How far a GPU's values are from a CPU's, the largest of all.

    Parameters
    ----------
    scale : the name of the values that say how far apart is far; None for the CPU's own largest number.
    """
    worst = 0.0
    for key, wanted in cpu.items():
        if key == scale:
            continue
        found = gpu[key].cpu()
        if found.shape != wanted.shape or not found.isfinite().all():
            return Finding(name, None, allowed, f"{key} is {tuple(found.shape)} with numbers that are not finite")
        if scale is None:
            apart = float((found - wanted).abs().max() / wanted.abs().max())
        else:
            apart = float((found - wanted).norm() / (cpu[scale] - wanted).norm())
        worst = max(worst, apart)
    return Finding(name, worst, allowed)


def memory_over_a_loop(device: torch.device, used: Callable[[], int] | None = None) -> Finding:
    """Bytes by which the memory that is held grows over a loop of inversions, after its first quarter; 0 are allowed.

    Parameters
    ----------
    used : bytes that are held now; default those of torch on this GPU. Of a CPU none are counted.
    """
    name = "memory over a loop, bytes"
    if used is None:
        if device.type != "cuda":
            return Finding(name, None, None)
        used = torch.cuda.memory_allocated
    try:
        held = []
        for _ in range(LOOP):
            linear(device)
            _wait(device)
            held.append(used())
    except Exception as error:  # as above
        return Finding(name, None, 0.0, words_of(error))
    return Finding(name, float(max(0, held[-1] - max(held[: LOOP // 4]))), 0.0)


def problems(found: dict[str, Any]) -> list[str]:
    """What differs, each in a sentence."""
    told = []
    for each in found["checks"]:
        if each["error"] is not None:
            told.append(f"{each['name']} fails on the GPU: {each['error']}")
        elif not each["good"]:
            apart = f"{each['measured']:.2g} from the CPU, {each['allowed']:.2g} allowed"
            told.append(f"{each['name']}: the GPU is {apart}")
    return told


def operators(device: torch.device) -> Values:
    """A layer applied, transposed and its Gram matrices: convolutions by torch, linear algebra by NumPy or CuPy."""
    weight = _network(torch.device("cpu")).convolution("conv1").weight
    operator = Convolution(weight.detach().to(device), 2, 1, (SIDE, SIDE), torch.float32)
    with arrays.using(device):
        images = arrays.array_of(_images().to(device))
        responses = operator.apply(images)
        gram = operator.gram("inputs", single=True)
        found = {"applied": responses, "transposed": operator.adjoint(responses), "gram": abs(gram)}
        return {name: arrays.to_torch(values).clone() for name, values in found.items()}


def inverted(device: torch.device, layer: str, method: str, images: torch.Tensor) -> Values:
    """Images from features, and what they come from."""
    net, given = _network(device), images.to(device)
    size = (given.shape[2], given.shape[3])
    result = invert(net, net.features(given, layer), layer, method, size=size, budget=BUDGET)
    return {"image": result.image, "original": given}


def linear(device: torch.device) -> Values:
    """A linear solve with a preconditioner by Fourier transforms."""
    return {"image": inverted(device, "conv1", "linear", _images())["image"]}


def many(device: torch.device) -> Values:
    """The same of a batch of the size that work is done in."""
    return {"image": inverted(device, "conv1", "linear", _images(*LARGE))["image"]}


CHECKS: dict[str, tuple[Callable[[torch.device], Values], float, str | None]] = {
    "operators": (operators, OPERATORS, None),
    "linear": (linear, SOLVES, None),
    "linear, a large batch": (many, SOLVES, None),
    "wiener": (lambda device: inverted(device, "conv2", "wiener", _images()), SEARCHES, "original"),
    "map": (lambda device: inverted(device, "conv2", "map", _images()), SEARCHES, "original"),
    "map through a pooling": (lambda device: inverted(device, "pool", "map", _images()), SEARCHES, "original"),
    "gradient": (lambda device: inverted(device, "conv2", "gradient", _images()), SEARCHES, "original"),
}
"""By name: what is run on a device, how far the devices may be apart, and by which values that is measured."""


def _network(device: torch.device) -> Network:
    architecture = Architecture("check", LAYERS, SIDE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return randomise(Network(architecture), 0).to(device).eval().requires_grad_(False)


def _images(count: int = 2, side: int = SIDE) -> torch.Tensor:
    """Pictures as the prior draws them, N x 3 x H x W in [0, 1]."""
    prior = Prior((side, side))
    return prior.image(prior.draw(count, torch.Generator().manual_seed(0))).clamp(0, 1)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
