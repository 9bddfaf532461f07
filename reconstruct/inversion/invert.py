"""The function that inverts: features of a layer back to images, by one of ``methods.METHODS``."""

from __future__ import annotations

import time

import torch

from reconstruct.errors import CallError
from reconstruct.inversion.checks import check_limits, checked, image_size
from reconstruct.inversion.linear import Damping, Form, check_options
from reconstruct.inversion.methods import method_of
from reconstruct.inversion.problem import CustomMethod
from reconstruct.inversion.residual import feature_residual
from reconstruct.inversion.result import Result, Watch
from reconstruct.network.architecture import Size
from reconstruct.network.protocol import AnyNetwork
from reconstruct.network.surgery import in_float32
from reconstruct.operators import arrays
from reconstruct.operators.forward import Forward


def invert(
    net: AnyNetwork,
    features: object,
    layer: str,
    method: str | CustomMethod = "map",
    *,
    size: Size | int | None = None,
    linear_form: Form = "global",
    damping: Damping = "auto",
    tolerance: float | None = None,
    budget: float | None = None,
    noise: float = 0.0,
    seed: int = 0,
    watch: Watch | None = None,
) -> Result:
    """Images from features of one layer, without learning.

    Parameters
    ----------
    net : the network that made the features, on their device.
    features : N x C x h x w, torch, NumPy or CuPy; after CReLU, C is twice the layer's filters. Of a pooling:
        what it gives.
    layer : the layer's name.
    method : ``map``, ``wiener``, ``linear`` or ``gradient``: each has its module, which says what it does. Or a
        function of a ``Problem`` that returns images (``custom``), or its name, ``package.module:function``.
    size : height and width of the images (an int: square). Default the model's own where it fits the features;
        otherwise required, because a stride forgets it.
    linear_form, damping : of ``linear``.
    tolerance, budget : feature residual, and work in forward passes, at which a method stops; defaults by method.
    noise : of the features, its norm as a share of theirs, where they have been rounded or disturbed (``disturb``):
        ``map`` and ``wiener`` weigh the prior by it, and features need no longer be exactly what the activation gives.
    seed : of whatever is random (the start of ``gradient``).
    watch : called by ``map``, ``gradient`` and a method of the user's as they go on, with the forward passes so far and
        the images.

    Returns
    -------
    Result, its image on the features' device.

    Raises
    ------
    FeatureError : features of a wrong shape, not finite, or not what the layer's activation gives.
    CallError : an unknown method or layer, or one that the method cannot invert.

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
    """
    chosen = method_of(method)
    if reason := chosen.refusal(net, layer):
        raise CallError(reason)
    net = in_float32(net)
    chain = net.as_chain(layer)
    check_options(chain, layer, linear_form, damping)
    check_limits(tolerance, budget)
    if not 0 <= noise < 1:
        raise CallError(f"noise is a share of the features' norm, at least 0 and below 1, not {noise:g}")
    # Where a module is a chain up to the layer, the chain is inverted.
    known = net if chain is None else chain
    values = checked(known, arrays.as_tensor(features), known.layer(layer), noise)
    area = image_size(known, values, known.layer(layer), size)
    given = {"linear_form": linear_form, "damping": damping, "noise": noise, "seed": seed, "watch": watch}
    options = {name: given[name] for name in chosen.options}
    began = time.perf_counter()
    with torch.no_grad():
        inverted = chosen.invert(known, values, layer, area, tolerance=tolerance, budget=budget, **options)
        seconds = time.perf_counter() - began - inverted.prepare_seconds
        residual = feature_residual(Forward(known, layer), inverted.images, values)
    return Result(
        inverted.images,
        residual,
        inverted.status,
        inverted.iterations,
        inverted.forward_passes,
        seconds,
        inverted.prepare_seconds,
        inverted.prepare_passes,
    )
