"""The function that inverts: features of layers back to images, by one of ``methods.METHODS``."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch

from reconstruct.errors import CallError, FeatureError
from reconstruct.inversion.checks import check_limits, checked, image_size
from reconstruct.inversion.confidence import expected_error
from reconstruct.inversion.joint import Part, determined, parts_of
from reconstruct.inversion.linear import Damping, Form, check_options
from reconstruct.inversion.methods import check_confidence, method_of
from reconstruct.inversion.problem import CustomMethod
from reconstruct.inversion.residual import feature_residual
from reconstruct.inversion.result import Inverted, Result, Watch
from reconstruct.inversion.tiles import cut_for, invert_in_tiles
from reconstruct.network.architecture import Size
from reconstruct.network.protocol import AnyNetwork
from reconstruct.network.surgery import in_float32
from reconstruct.operators.forward import Forward


def invert(
    net: AnyNetwork | Sequence[AnyNetwork],
    features: object,
    layer: str | Sequence[str],
    method: str | CustomMethod = "map",
    *,
    size: Size | int | None = None,
    linear_form: Form = "global",
    damping: Damping = "auto",
    tolerance: float | None = None,
    budget: float | None = None,
    noise: float | Sequence[float] = 0.0,
    seed: int = 0,
    watch: Watch | None = None,
    confidence: bool = False,
    tile: int | None = None,
) -> Result:
    """Images from features of one layer, or of several together, without learning.

    Parameters
    ----------
    net : the network that made the features, on their device. A list for a list of layers: a network of each, where
        they are read in different ways (``with_tap``).
    features : N x C x h x w, torch, NumPy or CuPy; after CReLU, C is twice the layer's filters. Of a pooling:
        what it gives. A list for a list of layers.
    layer : the layer's name, or a list of names. Layers together are method ``map``'s: each weighs by the covariance of
        its responses and by its noise. Where features are exact, a layer is left out that they determine, as the
        features of ``conv3`` do those of ``conv5`` above it (``joint.determined``).
    method : ``map``, ``wiener``, ``linear`` or ``gradient``: each has its module, which says what it does. Or a
        function of a ``Problem`` that returns images (``custom``), or its name, ``package.module:function``.
    size : height and width of the images (an int: square). Default the model's own where it fits the features;
        otherwise required, because a stride forgets it.
    linear_form, damping : of ``linear``.
    tolerance, budget : feature residual, and work in forward passes, at which a method stops; defaults by method.
    noise : of the features, its norm as a share of theirs, where they have been rounded or disturbed (``disturb``):
        ``map`` and ``wiener`` weigh the prior by it, and features need no longer be exactly what the activation gives.
        A list for a list of layers whose noise differs.
    seed : of whatever is random (the start of ``gradient``).
    watch : called by ``map``, ``gradient`` and a method of the user's as they go on, with the forward passes so far and
        the images.
    confidence : ``Result.expected_error`` as well, which costs as much again; ``map`` has one.
    tile : side of the overlapping tiles in which larger images are inverted, in pixels; of chains of layers. By default
        images are inverted whole, and in tiles of 512 where memory would not suffice. A budget is then each tile's.

    Returns
    -------
    Result, its image on the features' device.

    Raises
    ------
    FeatureError : features of a wrong shape, not finite, or not what the layer's activation gives.
    CallError : an unknown method or layer, or one that the method cannot invert; lists of different lengths; a
        method without an expected error; tiles that are too small for the layer, or of a network that is no chain.

    Warns
    -----
    ReconstructWarning : the image is inverted in tiles because memory would not suffice.

    Examples
    --------
    >>> import reconstruct
    >>> net = reconstruct.load_model("crelu_conv1_4")
    >>> image = reconstruct.load_image("samples/chelsea.jpg", 63)[None]
    >>> features = net.features(image, "conv1")
    >>> result = reconstruct.invert(net, features, "conv1", size=63, budget=120)
    >>> reconstruct.quality(image, result.image).psnr[0] > 30
    True
    >>> result.status, result.forward_passes[0] <= 120
    (['budget'], True)

    Two layers together, of which each has been disturbed:

    >>> layers = ["conv2", "conv3"]
    >>> received = [reconstruct.disturb(net.features(image, layer), noise=0.1)[0] for layer in layers]
    >>> result = reconstruct.invert(net, received, layers, size=63, noise=0.1, budget=60)
    >>> reconstruct.quality(image, result.image).psnr[0] > 20
    True

    How far off each pixel is expected to be, nine times of ten at most:

    >>> result = reconstruct.invert(net, features, "conv1", size=63, budget=300, confidence=True)
    >>> ((result.image - image).abs().amax(1, keepdim=True) <= result.expected_error).float().mean() > 0.8
    tensor(True)
    """
    chosen = method_of(method)
    parts = parts_of(net, features, layer, noise)
    nets, layers, noises = ([getattr(part, what) for part in parts] for what in ("net", "layer", "noise"))
    if reason := chosen.refuses(nets, layers):
        raise CallError(reason)
    if confidence:
        check_confidence(method)
    check_limits(tolerance, budget)
    ready = []
    for part in parts:
        own = in_float32(part.net)
        chain = own.as_chain(part.layer)
        check_options(chain, part.layer, linear_form, damping)
        # Where a module is a chain up to the layer, the chain is inverted.
        known = own if chain is None else chain
        last = known.layer(part.layer)
        ready.append(part._replace(net=known, features=checked(known, part.features, last, part.noise)))
    areas = {image_size(part.net, part.features, part.net.layer(part.layer), size): part.layer for part in ready}
    if len(areas) > 1:
        said = ", ".join(f"{name} of {height} x {width}" for (height, width), name in areas.items())
        raise FeatureError(f"the layers' features are of images of different sizes: {said}")
    (area,) = areas
    given = {"linear_form": linear_form, "damping": damping, "seed": seed}
    options = {name: given[name] for name in chosen.options & given.keys()}
    limits = {"tolerance": tolerance, "budget": budget}
    dropped = determined(nets, layers, noises)
    heard = [part for part in ready if part.layer not in dropped]

    cut = cut_for(heard, area, tile, chosen, options)

    def solved(parts: Sequence[Part], area: Size, watch: Watch | None) -> Inverted:
        seen = {"watch": watch} if "watch" in chosen.options else {}
        if len(parts) == 1:
            (part,) = parts
            own_noise = {"noise": part.noise} if "noise" in chosen.options else {}
            return chosen.invert(part.net, part.features, part.layer, area, **limits, **own_noise, **options, **seen)
        assert chosen.joint is not None  # as ``refuses`` has found
        return chosen.joint(*zip(*parts, strict=True), area, **limits, **options, **seen)

    def inverted_from(parts: Sequence[Part], watch: Watch | None) -> Inverted:
        return solved(parts, area, watch) if cut is None else invert_in_tiles(parts, area, cut, solved, watch)

    def again(values: Sequence[torch.Tensor]) -> torch.Tensor:
        return inverted_from(
            [part._replace(features=each) for part, each in zip(heard, values, strict=True)], None
        ).images

    began = time.perf_counter()
    with torch.no_grad():
        inverted = inverted_from(heard, watch)
        seconds = time.perf_counter() - began - inverted.prepare_seconds
        residuals = [feature_residual(Forward(part.net, part.layer), inverted.images, part.features) for part in ready]
        error = expected_error(heard, inverted.images, again) if confidence else None
    return Result(
        inverted.images,
        [math.hypot(*each) / len(ready) ** 0.5 for each in zip(*residuals, strict=True)],
        inverted.status,
        inverted.iterations,
        inverted.forward_passes,
        seconds,
        inverted.prepare_seconds,
        inverted.prepare_passes,
        error,
        1 if cut is None else len(cut[0].spans) * len(cut[1].spans),
    )
