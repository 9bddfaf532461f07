"""How published weights want their pictures: size, crop, interpolation, mean and standard deviation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconstruct.errors import ModelError
from reconstruct.network.architecture import Size

INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
"""Those that Pillow has too, which torchvision and timm resize pictures with."""


@dataclass(frozen=True)
class Preprocessing:
    """What a publisher states of its weights: pictures are resized, cut and normalised like this.

    Attributes
    ----------
    stated_by : who says so, as messages call it.
    mean, std : of each channel, of images in [0, 1].
    size : side of the square that is cut out of the middle, in pixels.
    resize : side to which a picture is resized before: its shorter one, the longer in proportion; of a squashed picture
        both.
    interpolation : one of ``INTERPOLATIONS``.
    squashed : whether every picture becomes a square, whatever its shape.
    """

    stated_by: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    resize: int
    interpolation: str
    squashed: bool = False

    def __str__(self) -> str:
        """The way of a picture in words, without the normalisation."""
        what = "both sides" if self.squashed else "the shorter side"
        cut = "" if self.size == self.resize and self.squashed else f", the middle {self.size} x {self.size} cut out"
        return f"{what} resized to {self.resize} by {self.interpolation} interpolation{cut}"

    def record(self) -> dict[str, Any]:
        """What can be written as JSON."""
        return {
            "stated_by": self.stated_by,
            "how": str(self),
            "size": self.size,
            "resize": self.resize,
            "interpolation": self.interpolation,
            "squashed": self.squashed,
        }

    def difference(self, mean: Sequence[float], std: Sequence[float], area: Size) -> str | None:
        """What a call has otherwise than the publisher, in words, or None."""
        said = []
        for name, own, given in (("mean", self.mean, mean), ("standard deviation", self.std, std)):
            if len(own) != len(given) or any(abs(a - b) > 1e-3 for a, b in zip(own, given, strict=True)):
                said.append(f"the {name} {_numbers(own)}, not {_numbers(given)}")
        if area != (self.size, self.size):
            said.append(f"{self.size} x {self.size} pixels, not {area[0]} x {area[1]}")
        return f"{self.stated_by} has {', and '.join(said)}" if said else None


def timm_preprocessing(config: Mapping[str, Any], stated_by: str) -> Preprocessing:
    """What timm's ``pretrained_cfg`` states.

    Raises
    ------
    ModelError : it has something that we have no way to do: another shape than a square, a border, an unknown
        interpolation; or it is no such configuration.
    """
    try:
        channels, height, width = (int(value) for value in config.get("input_size", (3, 224, 224)))
        mean, std = (tuple(float(value) for value in config[name]) for name in ("mean", "std"))
        cut = float(config.get("crop_pct") or 0.875)
        resize = math.floor(height / cut)
    except (KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise ModelError(f"{stated_by} has no input_size, mean, std and crop_pct of timm's kind: {error}") from error
    # One number stands for every channel, as in timm.
    mean, std = (values * channels if len(values) == 1 else values for values in (mean, std))
    finite = all(map(math.isfinite, (*mean, *std)))
    if not finite or min(std, default=0) <= 0 or not len(mean) == len(std) == channels:
        raise ModelError(
            f"{stated_by} has the mean {_numbers(mean)} and the standard deviation {_numbers(std)}; of {channels} "
            "channels it must have as many finite numbers each, the latter above 0"
        )
    mode, interpolation = config.get("crop_mode") or "center", config.get("interpolation") or "bicubic"
    if not 0 < height == width or resize < 1 or mode not in ("center", "squash") or interpolation not in INTERPOLATIONS:
        raise ModelError(
            f"{stated_by} asks for {height} x {width} pixels, crop_mode {mode} and {interpolation} interpolation, and "
            "pictures are made squares here, center or squash, by Pillow's interpolations; from_torch takes the module "
            "with pictures that you make ready"
        )
    return Preprocessing(stated_by, mean, std, height, resize, interpolation, mode == "squash")


def difference_from_own(module: object, mean: Sequence[float], std: Sequence[float], area: Size) -> str | None:
    """What a call has otherwise than a module says itself, in timm's ``pretrained_cfg``; None where it says nothing."""
    config = getattr(module, "pretrained_cfg", None)
    if not isinstance(config, Mapping):
        return None
    try:
        stated = timm_preprocessing(config, f"the pretrained_cfg of this {type(module).__name__}")
    except ModelError:  # nothing that could be compared
        return None
    return stated.difference(mean, std, area)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
