"""Where results come from: the call, the model's weights, versions and the machine, for ``run.json``."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from reconstruct.evaluation.batch import Job
from reconstruct.images.sets import Source
from reconstruct.images.sources import digest
from reconstruct.network.architecture import as_area, side_or_area
from reconstruct.network.kept import plain
from reconstruct.network.protocol import AnyNetwork
from reconstruct.operators import arrays
from reconstruct.user_function import function_named
from reconstruct.version import __version__
from reconstruct.zoo.registry import PRETRAINED

PACKAGES = ("torch", "numpy", "scipy", "scikit-image", "pillow", "pyarrow", "cupy-cuda13x", "ray")


def describe_run(
    net: AnyNetwork,
    source: Source,
    job: Job,
    call: Sequence[str],
    *,
    random_weights: int | None,
    selection: dict[str, Any],
) -> dict[str, Any]:
    """What ``run.json`` says of a run, all but its sessions; ``settings`` are what decides the rows.

    Parameters
    ----------
    call : the words of the command line; credentials in addresses are left out.
    random_weights : the seed of random weights, None where the weights are a file's or a module's own.
    selection : which images of the source are evaluated.

    Raises
    ------
    CallError : a method of the user's cannot be found.
    """
    weights = net.weights_file if random_weights is None else f"random, seed {random_weights}"
    return {
        "call": _without_credentials(shlex.join(call)),
        "settings": {
            "source": {
                "path": _without_credentials(source.path),
                "kind": source.kind,
                "images": len(source.names),
                "digest": digest(source.names),
            },
            "model": {
                "name": net.name,
                "source": net.source,
                "weights": weights if random_weights is not None or weights is None else Path(weights).name,
                "digest": fingerprint(net),
            },
            "tap": job.tap,
            "methods": {layer: list(methods) for layer, methods in job.methods.items()},
            **_own_methods(job),
            "size": None if job.native else side_or_area(as_area(job.size or net.input_area)),
            **({"prepared": net.preprocessing.record()} if net.preprocessing and not (job.native or job.size) else {}),
            "options": {**job.options, **job.disturbance},
        },
        "selection": selection,
        "trained_on": None if random_weights is not None else trained_on(net),
        "versions": versions(),
        "machine": machine(net.mean.device),
    }  # fmt: skip


def _own_methods(job: Job) -> dict[str, dict[str, str]]:
    """Digests of the files that methods of the user's are in, if any: changed code makes other rows."""
    found = {}
    for name in sorted({name for methods in job.methods.values() for name in methods if ":" in name}):
        function_named(name, "method")
        file = getattr(sys.modules[name.partition(":")[0]], "__file__", None)
        found[name] = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16] if file else "unknown"
    return {"own_methods": found} if found else {}


def _without_credentials(text: str) -> str:
    """``s3://KEY:SECRET@bucket`` is a way to name object storage, and a page is shown around."""
    return re.sub(r"://[^/@\s]*@", "://...@", text)


def begin_session(engine: str, workers: int, batch_size: int, device: str) -> dict[str, Any]:
    """A session of a run, at its beginning; ``evaluate`` keeps it up."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "engine": engine,
        "workers": workers,
        "batch_size": batch_size,
        "device": device,
        "images": 0,
        "seconds": 0.0,
        "finished": False,
    }


def fingerprint(net: AnyNetwork) -> str:
    """A digest of a network's layers, normalisation, weights and split points."""
    found = hashlib.sha256(repr((net.layers, *net.normalisation)).encode())
    spread = [(each.groups, each.dilation, each.ceil_mode) for each in net.layers]
    if any(each != (1, 1, False) for each in spread):  # which are not in a layer's text
        found.update(repr(spread).encode())
    if net.splits:
        found.update(repr(sorted(net.splits.items())).encode())
    for name, values in sorted(net.state_dict().items()):
        found.update(name.encode())
        for part in _contents(values):
            found.update(part)
    return found.hexdigest()[:16]


def _contents(value: Any) -> Iterator[bytes]:
    """The bytes of an entry of a state dict, in which parts of modules may keep other things than tensors."""
    if isinstance(value, torch.Tensor):
        # By their bytes: NumPy does not have all types.
        yield plain(value).cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _contents(each)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield repr(key).encode()
            yield from _contents(each)
    elif isinstance(value, int | float | str | torch.dtype | None):
        yield repr(value).encode()
    else:  # whose text may have an address in it
        yield type(value).__name__.encode()


def trained_on(net: AnyNetwork) -> str | None:
    """What weights were trained on, and what they are not, by the card beside their file; None where there is none."""
    if net.weights_file is None:
        return None
    weights = Path(net.weights_file)
    card = weights.with_name("README.md") if weights.name == PRETRAINED else weights.with_suffix(".md")
    if not card.is_file():
        return None
    parts = card.read_text(encoding="utf-8", errors="replace").split("\n- **")
    said = {name: text for name, _, text in (part.partition("**: ") for part in parts)}
    # The first line; those after it count pictures by package.
    lines = [said["Trained on"].splitlines()[0]] if "Trained on" in said else []
    if "Is not" in said:
        lines.append(f"Not {' '.join(said['Is not'].split())}")
    return " ".join(lines) or None


def versions() -> dict[str, str]:
    """Versions of this package, of Python, and of whatever else decides the numbers, where it is installed."""
    found = {"reconstruct": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine(device: torch.device) -> dict[str, Any]:
    """System, processor, cores, memory, and the GPU that is used."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(arrays.memory(torch.device("cpu")) / 1e9, 1),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def _processor() -> str:
    """The processor's name. Linux knows it, where platform.processor() does not."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
