"""What this installation consists of, and what is wrong with it: the findings of ``reconstruct doctor``."""

from __future__ import annotations

import importlib
import os
import platform
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_info

from reconstruct.errors import words_of
from reconstruct.evaluation.provenance import machine, versions
from reconstruct.extras import EXTRAS, install_hint
from reconstruct.prior.disk_cache import folder
from reconstruct.threads import cpu_quota

BUILT_FOR_ONE_TORCH = ("torchvision", "cupy")
"""Modules that may be installed and not fit what is beside them: these are imported, of others it is asked whether they
are there."""
VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES")


def examine() -> dict[str, Any]:
    """Versions, machine, device, threads, cache and optional packages; ``problems`` lists in sentences what is wrong.

    An optional package that is not there is no problem. Everything in it can be written as JSON.
    """
    found: dict[str, Any] = {
        "python": sys.executable,
        "versions": versions(),
        "machine": machine(torch.device("cpu")),
        "device": _device(),
        "threads": _threads(),
        "cache": _cache(folder()),
        "extras": [_extra(name) for name in EXTRAS],
    }
    return found | {"problems": _problems(found)}


def _device() -> dict[str, Any]:
    """What ``--device auto`` finds."""
    gpu = torch.cuda.is_available()
    return {
        "gpu": torch.cuda.get_device_name() if gpu else None,
        "torch_built_for_cuda": torch.version.cuda,
        "auto": "cuda" if gpu and find_spec("cupy") is not None else "cpu",
    }


def _threads() -> dict[str, Any]:
    """The threads that libraries would start, and the cores that there are for them."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {
        "torch": torch.get_num_threads(),
        "torch_between_operations": torch.get_num_interop_threads(),
        "pools": [
            {"library": each["internal_api"], "of": each["user_api"], "threads": each["num_threads"]}
            for each in threadpool_info()
        ],
        "cores": os.cpu_count(),
        "cores_of_this_process": allowed,
        "cpu_quota": cpu_quota(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def _cache(path: Path) -> dict[str, Any]:
    """The folder of what is prepared once, and whether it can be written to; a folder that is not there is made."""
    error = None
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as wrong:
        error = wrong.strerror or str(wrong)
    files = [each.stat().st_size for each in path.rglob("*") if each.is_file()] if path.is_dir() else []
    return {"folder": str(path), "files": len(files), "bytes": sum(files), "error": error}


def _extra(name: str) -> dict[str, Any]:
    """An optional group: which of its modules are missing, which are there and cannot be used, and what to do."""
    extra = EXTRAS[name]
    missing = [module for module in extra.modules if find_spec(module) is None]
    broken = {}
    for module in extra.modules:
        if module in BUILT_FOR_ONE_TORCH and module not in missing:
            try:
                importlib.import_module(module)
            except Exception as error:  # whatever a library raises that was built for another
                broken[module] = words_of(error)
    return {
        "name": name,
        "purpose": extra.purpose,
        "missing": missing,
        "broken": broken,
        "install": install_hint(name) if missing else None,
    }


def _problems(found: dict[str, Any]) -> list[str]:
    """What is wrong, each in a sentence that says what to do."""
    told = []
    threads, cache = found["threads"], found["cache"]
    room = threads["cpu_quota"] or threads["cores_of_this_process"] or threads["cores"]
    if threads["torch"] > max(1, round(room)):
        told.append(
            f"torch starts {threads['torch']} threads and this process has {room:g} cores: they would wait for each "
            f"other; set OMP_NUM_THREADS={max(1, int(room))}"
        )
    if cache["error"] is not None:
        told.append(
            f"the cache folder {cache['folder']} cannot be written to ({cache['error']}), and everything is prepared "
            "anew each time; set RECONSTRUCT_CACHE to a folder that can"
        )
    broken = {module: words for extra in found["extras"] for module, words in extra["broken"].items()}
    told += [
        f"{module} is installed and cannot be imported ({words}): install the build of it that fits torch "
        f"{found['versions']['torch']}"
        for module, words in broken.items()
    ]
    if found["device"]["gpu"] is not None and found["device"]["auto"] == "cpu":
        told.append(f"there is a GPU, and it is not used without CuPy: {install_hint('gpu')}")
    if platform.system() == "Linux" and found["device"]["gpu"] is None and Path("/proc/driver/nvidia").is_dir():
        told.append("there is an NVIDIA driver, and torch finds no device: install torch's build for CUDA")
    return told
