"""Stand-ins for torchvision and timm: modules of their names, with a network each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


class Tiny(nn.Module):
    """Two convolutions; like torchvision's GoogLeNet it may change the normalisation inside."""

    def __init__(self, transform_input: bool = False, classes: int = 5) -> None:
        super().__init__()
        self.transform_input = transform_input
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, classes, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.transform_input:
            images = images * 0.5 + 0.1
        return self.conv2(self.conv1(images).relu()).mean((2, 3))


class Detector(nn.Module):
    """It normalises inside, and only its backbone takes a batch of images."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = SimpleNamespace(min_size=(40,), fixed_size=None, image_mean=list(MEAN), image_std=list(STD))
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())


def drawn(seed: int, **options: Any) -> Tiny:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Tiny(**options)


@dataclass
class Transforms:
    """What torchvision's presets say of themselves."""

    crop_size: list[int]
    resize_size: list[int]
    mean: list[float] = field(default_factory=lambda: list(MEAN))
    std: list[float] = field(default_factory=lambda: list(STD))
    interpolation: Any = field(default_factory=lambda: SimpleNamespace(value="bilinear"))


URLS: dict[str, str] = {}
"""Where weights are, if not at their own address."""
META = {"categories": list("abcde")}


class Weights(Enum):
    """The published weights of ``tiny``."""

    V1 = ("https://download.example/tiny-1.pth", 20, 24)
    V2 = ("https://download.example/tiny-2.pth", 32, 36)
    DEFAULT = V2

    @property
    def url(self) -> str:
        return URLS.get(self.name, self.value[0])

    @property
    def meta(self) -> dict[str, list[str]]:
        return META

    def transforms(self) -> Transforms:
        return Transforms([self.value[1]], [self.value[2]])

    def get_state_dict(self, **_: Any) -> dict[str, torch.Tensor]:
        raise AssertionError("torchvision's own code would download the file, and read it by pickle")


def tiny(*, weights: Weights | None = None, transform_input: bool = False) -> Tiny:
    """torchvision's way: what the weights need is known only where they are loaded."""
    module = Tiny(transform_input or weights is not None, classes=len(META["categories"]))
    if weights is not None:
        module.load_state_dict(weights.get_state_dict(progress=True, check_hash=True))
    return module


def detector(*, weights: Weights | None = None, weights_backbone: str | None = "DEFAULT") -> Detector:
    assert weights_backbone is None, "the backbone's weights would be downloaded"
    return Detector()


def fake_torchvision(patch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Put a torchvision in place that has ``tiny`` and ``detector``; gives the folder of its checkpoints."""
    builders: dict[str, Callable[..., nn.Module]] = {"tiny": tiny, "detector": detector}
    models: Any = ModuleType("torchvision.models")
    models.detection, models.segmentation = ModuleType("detection"), ModuleType("segmentation")
    kinds = {models: ["tiny"], models.detection: ["detector"], models.segmentation: []}
    models.list_models = lambda module=None: kinds.get(module, ["tiny", "detector", "quantized_tiny", "film"])
    models.get_model_weights = lambda name: Weights
    models.get_model_builder = builders.__getitem__
    models.get_model = lambda name, **options: builders[name](**options)
    package: Any = ModuleType("torchvision")
    package.models = models
    patch.setitem(sys.modules, "torchvision", package)
    patch.setattr(torch.hub, "get_dir", lambda: str(folder))
    (folder / "checkpoints").mkdir()
    return folder / "checkpoints"


CONFIG: dict[str, Any] = {
    "input_size": (3, 30, 30),
    "crop_pct": 0.9,
    "interpolation": "bicubic",
    "mean": MEAN,
    "std": STD,
    "hf_hub_id": "timm/tiny.new",
    "url": "https://download.example/tiny_new.pth",
    "classifier": "conv2",
}


def fake_timm(patch: pytest.MonkeyPatch, folder: Path, cached: Path | None) -> None:
    """Put a timm in place that has ``tiny`` with weights ``new``, and a hub's cache that holds one file or none."""
    timm: Any = ModuleType("timm")

    def create_model(
        name: str, *, pretrained: bool = False, pretrained_cfg_overlay: Any = None, num_classes: int = 5
    ) -> nn.Module:
        module: Any = Tiny(classes=num_classes)
        module.pretrained_cfg = {**CONFIG, "architecture": "tiny", **(pretrained_cfg_overlay or {})}
        if name.startswith("local-dir:"):
            state = torch.load(Path(name.partition(":")[2]) / "weights.pth", weights_only=True) if pretrained else {}
            module.load_state_dict(state, strict=pretrained)
        elif pretrained:
            # As timm does: another number of classes than the configuration's, and the classifier is left out.
            assert pretrained_cfg_overlay["num_classes"] == num_classes
            module.load_state_dict(pretrained_cfg_overlay["state_dict"])
        return module

    timm.create_model = create_model
    timm.is_model = lambda name: name == "tiny"
    timm.list_models = lambda pattern="*", pretrained=False: [
        name for name in (["tiny.new"] if pretrained else ["tiny", "tinier"]) if fnmatch(name, pattern)
    ]
    timm.get_pretrained_cfg = lambda name: SimpleNamespace(to_dict=lambda: dict(CONFIG))
    hub: Any = ModuleType("huggingface_hub")
    hub.try_to_load_from_cache = lambda repository, file: (
        str(cached) if cached is not None and (repository, file) == ("timm/tiny.new", cached.name) else None
    )
    patch.setitem(sys.modules, "timm", timm)
    patch.setitem(sys.modules, "huggingface_hub", hub)
    patch.setattr(torch.hub, "get_dir", lambda: str(folder))
