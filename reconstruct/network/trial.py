"""A module tried out when it comes in: its layers, which results are none and why, and if it answers the same twice.

It runs on an image, on three at once of which that is the first and the others differ from it in one corner, and on
the image again. What differs between the first run and the last is drawn at random; what differs between the image
alone and in the batch depends on the images beside it. The corners tell positions from channels (``layout``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from reconstruct.errors import CallError
from reconstruct.network.architecture import Layer, Size
from reconstruct.network.calls import Call, Heard, Place, differ, heard, label_of, sample
from reconstruct.network.layout import Layout, Trace, layouts, moved

SAME_TWICE = 1e-4
"""How far two runs on the same image may be apart, relative to the norm: sums in another order on a GPU."""
SAME_BESIDE, SAME_BESIDE_ROUNDED = 1e-3, 5e-2
"""The same alone and in a batch, whose convolutions torch computes in another way; and with half precision inside."""
QUANTISED = (torch.quint8, torch.qint8, torch.qint32)


@dataclass(frozen=True)
class Trial:
    """What a module's layers are.

    Attributes
    ----------
    calls : the layers by name, in the order in which they end.
    refused : why the results of other calls are no features, by name.
    doubts : what whoever brings the module should know, a sentence each.
    """

    calls: dict[str, Call]
    refused: dict[str, str]
    doubts: list[str]


def tried(module: nn.Module, image: torch.Tensor, corners: torch.Tensor, name: str) -> Trial:
    """Its layers, and what is wrong with others.

    Parameters
    ----------
    image : 1 x C x H x W, as the module takes it.
    corners : 2 x C x H x W, the same but for one corner each.

    Raises
    ------
    CallError : the module cannot be run on such images, or nothing that it gives is features.
    """
    with torch.random.fork_rng(devices=[]):  # a module that draws numbers leaves the user's as they were
        # A copy each: a module may write into what it is given.
        first = heard(module, image.clone(), name, lambda _, values: sample(values))
        batch, doubts = _beside(module, torch.cat((image, corners)), name, first)
        again = heard(module, image.clone(), name, lambda _, values: sample(values))
    moves = {place: each.noted for place, each in (batch or {}).items() if each.noted is not None}
    refused: dict[Place, str] = {}
    traces: dict[Place, Trace] = {}
    for place, each in first.items():
        # A part may be called for one image, and not for several.
        found = _images(each, None if batch is None else batch.get(place), 1 + len(corners))
        if isinstance(found, str):
            refused[place] = found
            continue
        apart = moves[place][1] if place in moves else None
        shape = tuple(side for axis, side in enumerate(each.shape) if axis != found)
        traces[place] = Trace(module.get_submodule(place[0]), found, shape, apart)
    names = _names(list(traces), first)
    if not names:
        reasons = "; ".join(dict.fromkeys(refused.values())) or "it gives no tensors"
        raise CallError(f"{name} gives nothing that can be read as features: {reasons}")
    seen = layouts({names[place]: trace for place, trace in traces.items() if place in names})
    broken = [names[place] for place in names if not first[place].noted.isfinite().all()]
    if broken:
        doubts.append(
            f"{name} gives numbers that are infinite or none at all (NaN), as {_and_others(broken)} of an image of "
            "noise; its weights may be damaged"
        )
    random = [
        names[place]
        for place in names
        if place not in again or differ(first[place].noted, again[place].noted) > SAME_TWICE
    ]
    rounded = any(each.numbers not in (torch.float32, torch.float64) for each in first.values())
    allowed = SAME_BESIDE_ROUNDED if rounded else SAME_BESIDE
    beside = {
        names[place] for place in names if place not in moves or differ(first[place].noted, moves[place][0]) > allowed
    } - set(random)
    if random:
        doubts.append(
            f"{name} does not answer the same twice: {_and_others(random)} of one picture differ between two runs, as "
            "after a dropout that goes on in evaluation mode; no picture gives such features exactly"
        )
    elif beside and batch is not None:
        which = _and_others([each for each in names.values() if each in beside])
        doubts.append(
            f"{name} takes the images of a batch together: {which} "
            "of a picture change with the pictures beside it, as by the statistics of a batch; each goes in alone"
        )
    calls = {label: _call(label, place, first[place], seen[label], label in beside) for place, label in names.items()}
    return Trial(calls, {label_of(*place): reason for place, reason in refused.items()}, doubts)


def corner_images(size: Size, channels: int) -> torch.Tensor:
    """Three images in [0, 1], N x C x H x W: noise, and the same but for the upper left corner, or the lower right.

    The corners are black and white: whatever looks at the range or the spread of a batch sees another one.
    """
    generator = torch.Generator().manual_seed(0)
    base = 0.25 + 0.5 * torch.rand(1, channels, *size, generator=generator)
    rows, columns = math.ceil(size[0] / 2), math.ceil(size[1] / 2)
    corner = (torch.rand(channels, rows, columns, generator=generator) > 0.5).float()
    images = base.repeat(3, 1, 1, 1)
    images[1, :, :rows, :columns] = corner
    images[2, :, size[0] - rows :, size[1] - columns :] = corner
    return images


def _beside(
    module: nn.Module, images: torch.Tensor, name: str, first: dict[Place, Heard]
) -> tuple[dict[Place, Heard] | None, list[str]]:
    """What is heard of several images, and of each a sample of the first image's and how changes move along its axes;
    None where the module does not take several."""

    def note(place: Place, values: torch.Tensor) -> Any:
        before = first.get(place)
        axis = None if before is None else _axis(before.shape, tuple(values.shape), len(images))
        if axis is None:
            return None
        numbers = (values.dequantize() if values.is_quantized else values).movedim(axis, 0)
        if not numbers.is_floating_point():
            return None
        return sample(numbers[0]), moved((numbers[1:].float() - numbers[:1].float()).square())

    try:
        found = heard(module, images, name, note)
    except CallError as error:
        return None, [f"{error}, if there are several; each goes in alone"]
    return found, []


def _images(one: Heard, several: Heard | None, count: int) -> int | str:
    """Which axis of a result is the images', ``count`` of them in ``several``; or why it is no features of theirs."""
    if not one.numbers.is_floating_point and one.numbers not in QUANTISED:
        return "it gives no floating point numbers"
    shape = " x ".join(map(str, one.shape)) or "one number"
    if len(one.shape) > 4:
        return f"it gives {shape}, of more than four axes"
    if several is None:
        return 0 if one.shape and one.shape[0] == 1 else f"it gives {shape} for one image"
    axis = _axis(one.shape, several.shape, count)
    if axis is not None:
        return axis
    for each, other in zip(one.shape, several.shape, strict=False):
        if len(one.shape) == len(several.shape) and each > 1 and other == count * each:
            return f"it gives {each} results for each image, such as views or windows of it: {shape} for one"
    return f"what it gives, {shape}, does not follow the number of images"


def _axis(one: tuple[int, ...], several: tuple[int, ...], count: int) -> int | None:
    """The axis that is 1 for one image and ``count`` for as many, if it is the only one that changes."""
    if len(one) != len(several):
        return None
    changed = [axis for axis in range(len(one)) if one[axis] != several[axis]]
    return changed[0] if len(changed) == 1 and (one[changed[0]], several[changed[0]]) == (1, count) else None


def _names(places: list[Place], first: dict[Place, Heard]) -> dict[Place, str]:
    """The layers' names: a call's alone where one of its tensors can be read, else with the way to each. What the whole
    module gives is a layer of its own where no part gives it."""
    alone: dict[tuple[str, int], int] = {}
    for part, number, _ in places:
        alone[part, number] = alone.get((part, number), 0) + 1
    return {
        (part, number, way): label_of(part, number, () if alone[part, number] == 1 else way)
        for part, number, way in places
        if part or not first[part, number, way].repeats
    }


def _call(label: str, place: Place, found: Heard, layout: Layout, alone: bool) -> Call:
    part, number, way = place
    seen = layout.seen(torch.empty(found.shape, device="meta"))
    activation, slope = ("none", 0.0) if found.made_by is None else found.made_by[2:]
    layer = Layer(label, int(seen.shape[1]), activation=activation, slope=slope, kind="module")
    made_by = None if found.made_by is None else found.made_by[:2]
    size = (int(seen.shape[2]), int(seen.shape[3]))
    return Call(part, number, way, layout, layer, made_by, found.work, size, alone)


def _and_others(names: list[str]) -> str:
    """The first of some layers, and how many more there are."""
    more = len(names) - 1
    return f"the features {names[0]}" + (f" and those of {more} more layers" if more else "")
