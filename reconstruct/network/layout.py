"""How what a part of a module gives is seen as features: which axis is the images', and which the channels'.

Features are N x C x h x w everywhere in this toolkit. What a part gives as N x h x w x C is seen with its axes in that
order, tokens N x T x C as a row of T positions, N x C x 1 x T, a vector N x C as N x C x 1 x 1, and N x h x w as one
channel. Which axis is which is measured on images that differ in one corner: positions move with the corner, channels
stay. It is the module's own affair, and nothing in its code says it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import nn

MOVED, TWICE = 0.05, 2.0
"""The share of a change that moves along both axes of N x h x w at least, and how many times more it may along one."""


@dataclass(frozen=True)
class Layout:
    """Where the images and the channels are among the axes of what a part gives.

    Attributes
    ----------
    images : the axis of the images.
    channels : the axis of the channels among those that are left without the images'; None: there is none.
    shape : what the part gives for one image, without the images' axis, at the network's own size.
    """

    images: int
    channels: int | None
    shape: tuple[int, ...]

    @property
    def plain(self) -> bool:
        """Whether it is N x C x h x w already."""
        return self.images == 0 and self.channels == 0 and len(self.shape) == 3

    def seen(self, given: torch.Tensor) -> torch.Tensor:
        """What a part gives, as N x C x h x w."""
        values = given.dequantize() if given.is_quantized else given
        values = values.movedim(self.images, 0)
        values = values.unsqueeze(1) if self.channels is None else values.movedim(1 + self.channels, 1)
        while values.ndim < 4:
            values = values.unsqueeze(2)
        return values

    def is_own(self, features: torch.Tensor, channels: int) -> bool:
        """Whether features of so many channels are laid out as the part gives them, and not as they are seen; if both,
        they are as seen."""
        if self.plain or features.ndim != len(self.shape) + 1:
            return False
        if features.ndim == 4 and features.shape[1] == channels:
            return False
        without = [side for axis, side in enumerate(features.shape) if axis != self.images]
        return self.channels is None or without[self.channels] == channels

    def words(self, channels: int) -> str:
        """The shapes that features of so many channels have, as they are seen and as the part gives them."""
        # No positions, a row of them, or a grid.
        positions = ([], ["T"], ["h", "w"])[len(self.shape) - (self.channels is not None)]
        seen = ["N", str(channels), *["1"] * (2 - len(positions)), *positions]
        own = list(positions)
        if self.channels is not None:
            own.insert(self.channels, str(channels))
        own.insert(self.images, "N")
        if self.plain and self.shape[1:] == (1, 1):
            seen, own = [*seen[:2], "1", "1"], seen[:2]
        return " or ".join(dict.fromkeys(" x ".join(each) for each in (seen, own)))


def layouts(found: dict[str, Trace]) -> dict[str, Layout]:
    """The layout of each part's results, by name; one that nothing but a measurement tells is that of its like, if any:
    after an attention over all positions everything changes everywhere."""
    known = {name: trace.known() for name, trace in found.items()}
    like = {found[name].shape: channels for name, (channels, told) in known.items() if told}
    return {
        name: Layout(
            trace.images,
            known[name][0] if known[name][1] or trace.shape not in like else like[trace.shape],
            trace.shape,
        )
        for name, trace in found.items()
    }


@dataclass(frozen=True)
class Trace:
    """What is known of a part's result when its layout is asked for.

    Attributes
    ----------
    part : the part.
    images, shape : as of ``Layout``.
    moved : for each axis of ``shape``, how much of a change at one corner of the image is elsewhere along it when the
        change is at the other corner: 0 to 1. None where that was not measured.
    """

    part: nn.Module
    images: int
    shape: tuple[int, ...]
    moved: tuple[float, ...] | None

    def known(self) -> tuple[int | None, bool]:
        """The axis of the channels, and whether that is beyond doubt and not just measured."""
        if len(self.shape) < 2:
            return (0 if self.shape else None), True
        first, last = 0, len(self.shape) - 1
        # A part that is known, then sides of 1, then the square grid of a square image.
        votes: list[tuple[bool, bool]] = [
            (isinstance(self.part, nn.Conv2d | nn.BatchNorm2d | nn.MaxPool2d | nn.AvgPool2d), self._is_of_the_last()),
            (math.prod(self.shape[1:]) == 1, math.prod(self.shape[:-1]) == 1),
            (last == 2 and self.shape[1] == self.shape[2], last == 2 and self.shape[0] == self.shape[1]),
        ]
        for front, back in votes:
            if front != back:
                return (first if front else last), True
        return self._measured(last), False

    def _measured(self, last: int) -> int | None:
        """The channels' axis by how far what changes has moved along the others."""
        if self.moved is None:
            return 0 if last == 2 else last
        low, high = sorted((self.moved[0], self.moved[last]))
        if last == 1 and self.shape[0] == self.shape[1] and low > max(MOVED, high / TWICE):
            return None  # both are positions
        return last if self.moved[0] > self.moved[last] else 0

    def _is_of_the_last(self) -> bool:
        """Whether it works on the last axis; subclasses may turn the axes."""
        if type(self.part) is nn.LayerNorm:
            return len(self.part.normalized_shape) == 1
        return type(self.part) is nn.Linear


def moved(changes: torch.Tensor) -> tuple[float, ...]:
    """For each axis of a part's result, how much of two changes lies at different places along it: 0 to 1.

    changes : 2 x ..., the squares of what a change at either corner of the image has changed.
    """
    if changes.ndim == 1:
        return ()
    total = changes.flatten(1).sum(1)
    if not bool((total > 0).all()):
        return (0.0,) * (changes.ndim - 1)
    axes = range(1, changes.ndim)
    profiles = [changes.sum([other for other in axes if other != axis]) / total[:, None] for axis in axes]
    return tuple(float((each[0] - each[1]).abs().sum()) / 2 for each in profiles)


def tensors_in(result: Any, depth: int = 3) -> dict[tuple[int | str, ...], torch.Tensor]:
    """The tensors that a part gives, by where they are: one alone at (), those in tuples, dictionaries and
    dataclasses by the way to them."""
    if isinstance(result, torch.Tensor):
        return {(): result}
    if not depth:
        return {}
    within: list[tuple[int | str, Any]] = []
    if isinstance(result, list | tuple):
        within = list(enumerate(result))
    elif hasattr(result, "keys") and hasattr(result, "items"):
        within = [(str(key), value) for key, value in result.items()]
    elif is_dataclass(result) and not isinstance(result, type):
        within = [(each.name, getattr(result, each.name)) for each in fields(result)]
    return {(key, *way): tensor for key, value in within for way, tensor in tensors_in(value, depth - 1).items()}


def tensor_at(result: Any, way: tuple[int | str, ...]) -> torch.Tensor:
    """One of ``tensors_in``."""
    return tensors_in(result)[way]
