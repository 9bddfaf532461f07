"""Inversion: features of a layer back to images. One module a method, and the function that picks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch

from reconstruct.errors import CallError, FeatureError
from reconstruct.inversion.custom import invert_own
from reconstruct.inversion.gradient import invert_gradient
from reconstruct.inversion.linear import Damping, Form, damping_factors, invert_linear
from reconstruct.inversion.most_probable.method import invert_map
from reconstruct.inversion.problem import BUDGET, TOLERANCE, Method, Problem
from reconstruct.inversion.result import Inverted, Watch, check_limits
from reconstruct.inversion.wiener import invert_wiener
from reconstruct.network.activations import check_features, is_invertible, linear_responses
from reconstruct.network.module import TorchNetwork
from reconstruct.network.network import Layer, Network, Size
from reconstruct.operators import arrays
from reconstruct.user_function import function_named

METHODS: dict[str, Callable[..., Inverted]] = {
    "map": invert_map,
    "wiener": invert_wiener,
    "linear": invert_linear,
    "gradient": invert_gradient,
}
"""Every method by name, the default first. A module called ``map`` would hide Python's: its own is ``posterior``."""


@dataclass(frozen=True)
class Result:
    """Reconstructions and what they cost; lists hold one entry an image.

    Attributes
    ----------
    image : N x 3 x H x W, float32, in the image's scale but not clipped to [0, 1].
    feature_residual : |f(x') - z| / |z|, at the layer's linear responses where the activation keeps them (CReLU),
        at its features otherwise, those of a pooling included.
    status : ``converged``, ``budget`` (stopped by the budget) or ``stagnated`` (no step improves any more); of a
        method of the user's what it says, or ``ended`` where it says nothing and has not converged.
    iterations : of all solves together; evaluations and conjugate-gradient iterations alike.
    forward_passes : work in forward passes through the layer: forward = 1, forward and backward = 3, an operator
        and its adjoint = 2; a solve at one layer of a chain counts by its share of the multiplications.
    seconds : for the whole batch, preparation left out.
    prepare_seconds, prepare_passes : once a model, layer and size; 0 passes where it was cached.
    """

    image: torch.Tensor
    feature_residual: list[float]
    status: list[str]
    iterations: list[int]
    forward_passes: list[float]
    seconds: float
    prepare_seconds: float
    prepare_passes: float


def invert(
    net: Network,
    features: object,
    layer: str,
    method: str | Method = "map",
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
        function of a ``Problem`` that returns images (``own.invert_own``), or its name, ``package.module:function``.
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
    """
    own = method_of(method)
    if reason := applicable(net, layer, method):
        raise CallError(reason)
    if isinstance(net, TorchNetwork):
        net = net.operators(layer) or net
    if linear_form not in ("global", "patch"):
        raise CallError(f"linear_form is 'global' or 'patch', not '{linear_form}'")
    if not isinstance(net, TorchNetwork):
        damping_factors(net, layer, damping)  # refuses a wrong one before any method has worked
    check_limits(tolerance, budget)
    if not 0 <= noise < 1:
        raise CallError(f"noise is a share of the features' norm, at least 0 and below 1, not {noise:g}")
    chosen = net.layer(layer)
    values = checked(net, arrays.as_tensor(features), chosen, noise)
    area = image_size(net, values, chosen, size)
    options: dict[str, Any] = {"tolerance": tolerance, "budget": budget}
    if method == "linear":
        options |= {"linear_form": linear_form, "damping": damping}
    if method in ("map", "wiener"):
        options["noise"] = noise
    if method in ("map", "gradient"):
        options["watch"] = watch
    if method == "gradient":
        options["seed"] = seed
    began = time.perf_counter()
    with torch.no_grad():
        if own is None:
            inverted = METHODS[str(method)](net, values, layer, area, **options)
        else:
            limits = TOLERANCE if tolerance is None else tolerance, BUDGET if budget is None else budget
            inverted = invert_own(own, Problem(net, layer, area, values, noise, *limits, seed, watch))
        seconds = time.perf_counter() - began - inverted.prepare_seconds
        residual = feature_residual(net, inverted.images, values, chosen)
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


def disturb(
    features: torch.Tensor, *, noise: float = 0.0, quantise: str | None = None, seed: int = 0
) -> tuple[torch.Tensor, float]:
    """Features as somebody else receives them, and the disturbance's norm as a share of theirs (its mean over images).

    Parameters
    ----------
    noise : standard deviation of Gaussian noise, in units of the root mean square of an image's features: the norm of
        the noise is this share of the features' norm.
    quantise : ``float16``, or ``int8``: 256 equal steps from an image's smallest feature to its largest.
    seed : of the noise; an image's does not depend on the batch that it is in.
    """
    disturbed = features
    if noise:
        shape = features.shape[1:]
        normal = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(features)
        level = features.flatten(1).square().mean(dim=1).sqrt().view(-1, *[1] * len(shape))
        disturbed = features + noise * level * normal
    if quantise == "float16":
        disturbed = disturbed.half().to(features.dtype)
    elif quantise == "int8":
        flat = disturbed.flatten(1)
        low, high = (each.view(-1, *[1] * (features.ndim - 1)) for each in (flat.amin(1), flat.amax(1)))
        width = (high - low).clamp_min(torch.finfo(features.dtype).tiny) / 255
        disturbed = low + ((disturbed - low) / width).round() * width
    elif quantise is not None:
        raise CallError(f"features are rounded to float16 or int8, not '{quantise}'")
    if not len(features):
        return disturbed, noise
    scale = features.flatten(1).norm(dim=1)
    share = (disturbed - features).flatten(1).norm(dim=1) / torch.where(scale > 0, scale, 1)
    return disturbed, float(share.mean())


def feature_residual(net: Network, images: torch.Tensor, features: torch.Tensor, layer: Layer) -> list[float]:
    """|f(x') - z| / |z| of each image: linear responses where the activation keeps them, else features."""
    if is_invertible(layer.activation, layer.slope):
        target = linear_responses(features, layer.activation, layer.slope)
        reached = net.responses(images, layer.name)
    else:
        target, reached = features, net.features(images, layer.name)
    misfit = (reached - target).flatten(1).norm(dim=1)
    scale = target.flatten(1).norm(dim=1)
    ratio: list[float] = (misfit / torch.where(scale > 0, scale, 1)).tolist()
    return ratio


def method_of(method: str | Method) -> Method | None:
    """The user's function that is meant, or None for one of ``METHODS``.

    Raises
    ------
    CallError : no such method, with the nearest that there is; or a function that is not there.
    """
    if not isinstance(method, str):
        if not callable(method):
            raise CallError(f"method is a name or a function of a reconstruct.Problem, not {type(method).__name__}")
        return method
    if method in METHODS:
        return None
    if ":" in method:
        return function_named(method, "method")
    near = get_close_matches(method, METHODS, n=1)
    hint = f", did you mean {near[0]}?" if near else ""
    raise CallError(f"unknown method '{method}'{hint} There are: {', '.join(METHODS)}, and package.module:function")


def applicable(net: Network, layer: str, method: str | Method) -> str | None:
    """None if the method can invert this layer, otherwise why not."""
    if isinstance(net, TorchNetwork):
        chain = net.operators(layer)
        if chain is None and method in ("linear", "wiener"):
            return (
                f"method {method} solves with a chain of convolutions, and {net.name} is none up to {layer}: "
                "map and gradient differentiate through it"
            )
        net = chain or net
    if method in ("linear", "wiener"):
        for each in net.chain(layer):
            if each.kind == "max_pool":
                return f"method {method} solves linear systems, and no linear map undoes the max-pooling {each.name}"
            if not is_invertible(each.activation, each.slope):
                return (
                    f"method {method} needs the linear responses of {each.name}, and its {each.activation} does not "
                    f"keep them: it needs CReLU at and below {layer}"
                )
    return None


def checked(net: Network, features: torch.Tensor, layer: Layer, noise: float) -> torch.Tensor:
    """Features as methods take them, float32 or float64; refused as ``invert`` says where they are not the layer's."""
    if features.ndim != 4 or features.shape[1] != layer.channels:
        shape = " x ".join(map(str, features.shape))
        raise FeatureError(f"{layer.name} of {net.name} gives N x {layer.channels} x h x w features, not {shape}")
    if not features.is_floating_point():
        raise FeatureError(f"features are floating point, not {features.dtype}")
    if features.device != net.mean.device:
        raise FeatureError(f"features are on {features.device}, the network on {net.mean.device}; bring them together")
    # Those of a pooling are the last activation's, their maxima or means.
    source = next(each for each in reversed(net.chain(layer.name)) if each.has_weights)
    # Disturbed features are finite, no more.
    activation = "none" if noise else source.activation
    check_features(features, activation, source.slope, pooled=not layer.has_weights)
    return features if features.dtype == torch.float64 else features.float()


def image_size(net: Network, features: torch.Tensor, layer: Layer, size: Size | int | None) -> Size:
    """The size asked for, or the model's own, if features of this grid come from it."""
    asked: Size
    if size is None:
        asked = (net.input_size, net.input_size)
    else:
        asked = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    grid = net.architecture.response_sizes(asked, layer.name)[layer.name]
    if grid == tuple(features.shape[2:]):
        return asked
    here = f"{features.shape[2]} x {features.shape[3]}"
    if size is None:
        raise FeatureError(
            f"features of {here} do not come from the model's own {asked[0]} x {asked[1]} images: "
            "give the image's size=(H, W), or --size HxW"
        )
    raise FeatureError(
        f"{asked[0]} x {asked[1]} images give {layer.name} features of {grid[0]} x {grid[1]}, not {here}"
    )
