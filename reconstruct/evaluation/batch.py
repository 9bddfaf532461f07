"""What an evaluation does with a batch of images: read them, invert their features, judge what comes back.

``evaluate_batch`` turns a batch into rows, one an image, layer and method. It knows neither folders of results nor
other processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

import numpy
import torch
from PIL import Image

from reconstruct.errors import ReconstructError
from reconstruct.evaluation.perceptual import BACKBONES, perceptual
from reconstruct.images.batches import in_batches
from reconstruct.images.files import model_input, pixels_of, to_picture, webp
from reconstruct.images.names import shown
from reconstruct.images.quality import quality
from reconstruct.images.sets import Source
from reconstruct.inversion.disturb import disturb
from reconstruct.inversion.invert import invert
from reconstruct.inversion.linear import Damping, Form
from reconstruct.inversion.memory import of_values
from reconstruct.inversion.result import Result, Watch
from reconstruct.network.architecture import Size, as_area
from reconstruct.network.protocol import AnyNetwork
from reconstruct.network.read_points import Joint, Point, joint, layers_read
from reconstruct.operators import arrays

FAILURES = (ReconstructError, MemoryError, RuntimeError, ArithmeticError, numpy.linalg.LinAlgError)
"""Errors that the inversion of one image may end in (torch says RuntimeError for want of memory); any other is a fault
of ours."""

CPU_PIXELS = 450_000
"""How many pixels are inverted together on a CPU: eight images of 227 x 227. More are no faster, fewer lose a third."""

GPU_PIXELS = 8 * CPU_PIXELS
"""How many pixels are inverted together on a GPU, where memory allows. Never measured."""

SHARE = 0.4
"""The share of the memory that a batch may take."""

THUMBNAIL = 224
"""The longer side of a small picture, in pixels."""

Rows = list[dict[str, Any]]
Features = torch.Tensor | list[torch.Tensor]
"""N x C x h x w of one layer, or of each of several that are inverted together."""
Noise = float | list[float]
"""Their noise as a share of their norm, of one layer or of each."""


class Options(TypedDict, total=False):
    """Arguments of ``inversion.invert`` that a run may set: a plain dictionary, as ``run.json`` has it."""

    linear_form: Form
    damping: Damping
    tolerance: float | None
    budget: float | None
    seed: int
    confidence: bool
    tile: int | None


class Disturbance(TypedDict, total=False):
    """Arguments of ``inversion.disturb``: how features differ from what the network gave."""

    noise: float
    quantise: str | None
    seed: int


@dataclass(frozen=True)
class Item:
    """An image of a set: H x W x C bytes as they go into the network, or the reason why there are none."""

    index: int
    name: str
    pixels: numpy.ndarray | None
    error: str | None = None


@dataclass(frozen=True)
class Job:
    """What is done with every image; it can be sent to another process.

    Attributes
    ----------
    methods : the methods that are run at each layer or split point, by its name (``read_points.point``).
    size, native : how a picture is made to fit, as in ``images.files.model_input``.
    options : how images are inverted.
    disturbance : how features are disturbed before that.
    pixels : how many pixels the images that are inverted together have at most.
    thumbnails : whether small pictures go with the rows: ``original`` and ``reconstruction``, WebP files.
    tap : what is read of every layer; None is what its own activation gives.
    perceptual : measures beside PSNR and SSIM, as ``perceptual.perceptual`` has them.
    """

    methods: Mapping[str, Sequence[str]]
    size: Size | int | None = None
    native: bool = False
    options: Options = field(default_factory=Options)
    disturbance: Disturbance = field(default_factory=Disturbance)
    pixels: int = CPU_PIXELS
    thumbnails: bool = False
    tap: str | None = None
    perceptual: tuple[str, ...] = ()


def read(source: Source, indices: Sequence[int], net: AnyNetwork, job: Job) -> list[Item]:
    """Images of a source as they go into the network; those that cannot be used say why."""
    items = []
    for index in indices:
        name = source.names[index]
        try:
            picture = source.picture(index)
            fitted = model_input(picture, name, net, layers_read(net, job.methods), job.size, job.native)
            items.append(Item(index, name, pixels_of(fitted)))
        except ReconstructError as error:  # decoders' own errors are made these where pictures are decoded
            items.append(Item(index, name, None, str(error)))
        except MemoryError:
            items.append(Item(index, name, None, "there is not enough memory to read it and make it fit"))
    return items


def evaluate_batch(net: AnyNetwork, items: Sequence[Item], job: Job) -> Rows:
    """The rows of a batch, one for each image, layer and method: what ``measure`` says of it, or an ``error``.

    Images of one size are inverted together. Where that fails, as for want of memory, each half is inverted by itself,
    and so on down to the one image, layer and method that fails alone.
    """
    rows: Rows = [_failed(net, item, item.error) for item in items if item.pixels is None]
    for group in _together(items, job.pixels):
        for layer, methods in job.methods.items():
            rows += _attempt(net, group, layer, methods, job)
    return rows


def sent(at: Point | Joint, images: torch.Tensor, disturbance: Disturbance) -> tuple[Features, Noise]:
    """The features of images as somebody else receives them, and how noisy they are; of several layers, of each."""
    if isinstance(at, Point):
        return disturb(at.features(images), **disturbance)
    received = []
    for place, values in enumerate(at.features(images)):
        own = disturbance.copy()
        own["seed"] = place + disturbance.get("seed", 0)  # noise of its own at every layer
        received.append(disturb(values, **own))
    return [values for values, _ in received], [share for _, share in received]


def measure(
    at: Point | Joint, names: Sequence[str], images: torch.Tensor | None, features: Features, method: str,
    *, size: Size | None = None, noise: Noise = 0.0, perceptually: Sequence[str] = (), watch: Watch | None = None,
    **options: Unpack[Options],
) -> tuple[Result, Rows]:  # fmt: skip
    """Invert a batch, and record of each image how good its reconstruction is and what it cost.

    Parameters
    ----------
    at : where the features were read; its name is the record's ``layer``.
    names : the images' names, N of them.
    images : N x C x H x W in [0, 1], on the network's device; None where nobody has them, and the records' quality is
        None. Their SSIM is None as well where they are smaller than its window.
    features : N x C x h x w, as they are to be inverted; of several layers together, those of each.
    size : height and width of the images, where there are none.
    perceptually : measures beside PSNR and SSIM, each a record's entry; None where there is no value.
    noise, watch, options : as in ``inversion.invert``.

    Raises
    ------
    FeatureError, CallError : as in ``inversion.invert``.
    """
    net = at.parts[0].net
    area = size if images is None else (images.shape[2], images.shape[3])
    result = invert(at.net, features, at.layer, method, size=area, noise=noise, watch=watch, **options)
    judged = None if images is None else quality(images, result.image)
    seen = {} if images is None else perceptual(images, result.image, perceptually)
    return result, [
        {
            "image": name,
            "model": net.name,
            "layer": at.name,
            "method": method,
            "psnr": None if judged is None else judged.psnr[i],
            "ssim": None if judged is None or math.isnan(judged.ssim[i]) else judged.ssim[i],
            "relative_error": None if judged is None else judged.relative_error[i],
            "feature_residual": result.feature_residual[i],
            "status": result.status[i],
            "seconds": result.seconds / len(names),
            "forward_passes": result.forward_passes[i],
            # What a batch prepares is there already for all but its first image.
            "prepare_seconds": 0.0 if i else result.prepare_seconds,
            "prepare_passes": 0.0 if i else result.prepare_passes,
            # Of several layers the noisiest.
            "noise": max(noise) if isinstance(noise, Sequence) else noise,
            "device": str(net.mean.device),
            **{name: seen[name][i] if name in seen else None for name in perceptually},
        }
        for i, name in enumerate(names)
    ]


def batch_size(net: AnyNetwork, job: Job, workers: int = 1) -> int:
    """How many images of the job's size are inverted together, by the memory that the device has for each worker."""
    area = net.input_area if job.size is None else as_area(job.size)
    device = net.mean.device
    deepest = max(layers_read(net, job.methods), key=net.index)
    room = SHARE * arrays.memory(device) / workers / of_values(net, deepest, area)
    most = (CPU_PIXELS if device.type == "cpu" else GPU_PIXELS) / math.prod(area)
    return max(1, int(min(room, most)))


def _attempt(net: AnyNetwork, items: Sequence[Item], layer: str, methods: Sequence[str], job: Job) -> Rows:
    try:
        images = _tensor(items).to(net.mean.device)
        at = joint(net, layer, job.tap)
        features, noise = sent(at, images, job.disturbance)
        names = [item.name for item in items]
        rows: Rows = []
        for method in methods:
            result, records = measure(
                at, names, images, features, method, noise=noise, perceptually=job.perceptual, **job.options
            )
            for i, (item, record) in enumerate(zip(items, records, strict=True)):
                row = {"index": item.index, **dict.fromkeys(BACKBONES), **record, "output": None, "error": None}
                if job.thumbnails:
                    row |= {"original": _small(images[i]), "reconstruction": _small(result.image[i])}
                rows.append(row)
        return rows
    except FAILURES as error:
        # Not the error itself, whose frames hold the batch in memory.
        reason = str(error) or type(error).__name__
    if len(items) > 1:
        half = len(items) // 2
        return [row for part in (items[:half], items[half:]) for row in _attempt(net, part, layer, methods, job)]
    if len(methods) > 1:
        return [row for method in methods for row in _attempt(net, items, layer, [method], job)]
    return [_failed(net, items[0], reason, layer, methods[0])]


def _failed(
    net: AnyNetwork, item: Item, error: str | None, layer: str | None = None, method: str | None = None
) -> dict[str, Any]:
    from reconstruct.evaluation.results import SCHEMA  # with pyarrow, which inverting one picture does not need

    row: dict[str, Any] = dict.fromkeys(SCHEMA.names)
    reason = shown(" ".join((error or "").split()))
    return row | {
        "index": item.index, "image": item.name, "model": net.name, "layer": layer, "method": method, "error": reason,
    }  # fmt: skip


def _together(items: Sequence[Item], pixels: int) -> Iterator[list[Item]]:
    """The items that have pixels, in batches of one size."""
    return in_batches(sorted((item for item in items if item.pixels is not None), key=_size), _size, pixels)


def _size(item: Item) -> Size:
    assert item.pixels is not None
    height, width, _ = item.pixels.shape
    return height, width


def _tensor(items: Sequence[Item]) -> torch.Tensor:
    """N x C x H x W, float32 in [0, 1]."""
    stacked = numpy.stack([item.pixels for item in items if item.pixels is not None])
    return torch.from_numpy(stacked.transpose(0, 3, 1, 2).astype(numpy.float32) / 255)


def _small(image: torch.Tensor) -> bytes:
    """A small picture of C x H x W in [0, 1], as a WebP file."""
    picture = to_picture(image)
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC)
    return webp(picture)
