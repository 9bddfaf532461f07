"""What people name as a model that is none by itself, and how it becomes one."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

from reconstruct.zoo.checks import is_there

_WEIGHTS = (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".npz", ".tar")
_OTHERS = {
    ".pt2": "an exported program, whose parts have no names: export the module to ONNX, or name a function of yours",
    ".h5": "Keras's: export the network to ONNX, and import that",
    ".keras": "Keras's: export the network to ONNX, and import that",
    ".pb": "TensorFlow's: export the network to ONNX, and import that",
    ".tflite": "TensorFlow's: export the network to ONNX, and import that",
    ".caffemodel": "Caffe's: convert it to ONNX or to a torch module",
    ".prototxt": "Caffe's: convert it to ONNX or to a torch module",
    ".json": "no specification: name the folder of a config.json, or a .toml file",
    ".yaml": "no specification, which is a .toml file here",
}


def what_it_is(name: str) -> str | None:
    """What a name means that is of no model here, as a sentence that says what to do; None where it means nothing.

    Nothing of a file is run, and of a Python file its text is read for the names of its functions.
    """
    path = Path(name)
    module, colon, function = name.rpartition(":")
    if colon and module.endswith(".py"):
        return f"a function is named as package.module:function, so {_dotted(Path(module))}:{function}"
    if colon and module.split(":", 1)[0] in ("hf", "hf-hub", "hf_hub", "huggingface"):
        return f"{name} is a name on a hub, and nothing is downloaded: name a folder here, or timm:{path.name}"
    if path.parent.name == "timm" and len(path.parts) == 2 and not is_there(path):
        return f"{name} is a name on a hub: here it is timm:{path.name}, and nothing is downloaded"
    if not is_there(path):
        known = path.suffix in (".onnx", ".py", *_WEIGHTS, *_OTHERS)
        return f"there is no file {name}" if known and not os.path.isdir(name) else None  # noqa: PTH112 - of any name
    return _python(path) if path.suffix == ".py" else _file(path)


def _file(path: Path) -> str:
    """A file that is no specification, by its ending."""
    if path.suffix == ".onnx":
        return f"{path} is an ONNX file: 'reconstruct models import {path}' makes a model of the chain it begins with"
    if path.suffix in _WEIGHTS:
        return (
            f"{path} holds weights and not the network that they are of: 'reconstruct models import {path} --as "
            "alexnet' where it is AlexNet's or VGG16's; torchvision:NAME:FILE and timm:NAME:FILE where it is theirs; "
            "else package.module:function, which makes the network and loads them"
        )
    if path.suffix in _OTHERS:
        return f"{path} is {_OTHERS[path.suffix]}"
    return f"{path} is a file, and no specification: those are .toml files"


def whose_config(config: dict[str, Any]) -> str | None:
    """Which library a ``config.json`` is of, if not ours, and what to do with it; None where nobody knows."""
    advice = "a function that loads it and gives the torch module serves, --model package.module:function"
    architectures = config.get("architectures")
    if isinstance(architectures, list) and architectures:
        return f"it is of transformers' {str(architectures[0])[:60]}: {advice}"
    if "model_type" in config or "transformers_version" in config:
        return f"it is of transformers: {advice}"
    if "_diffusers_version" in config or "_class_name" in config:
        return f"it is of diffusers: {advice}"
    return None


def _python(path: Path) -> str:
    """A Python file, and the functions in it that can be called without arguments."""
    try:
        lines = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return f"{path} is named as a Python file, and cannot be read as one"
    names = [each.name for each in lines if isinstance(each, ast.FunctionDef) and _callable(each)]
    public = [each for each in names if not each.startswith("_")] or names
    module = _dotted(path)
    if not public:
        return f"{path} has no function that makes a network: one without arguments, named as {module}:function"
    named = [f"{module}:{each}" for each in public[:4]]
    return f"{path} is a Python file, and a model is a function in it: --model {' or '.join(named)}"


def _callable(function: ast.FunctionDef) -> bool:
    given = function.args
    return len(given.posonlyargs) + len(given.args) <= len(given.defaults) and None not in given.kw_defaults


def _dotted(path: Path) -> str:
    """The module's name of a Python file, seen from the current folder."""
    parts = path.with_suffix("").parts
    return ".".join(part for part in parts if part not in (".", "/"))
