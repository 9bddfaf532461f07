"""Whether features are a layer's, which images they come from, and whether a call's limits make sense."""

from __future__ import annotations

import math

import torch

from reconstruct.errors import CallError, FeatureError
from reconstruct.network.activations import check_features, is_invertible
from reconstruct.network.architecture import Layer, Size
from reconstruct.network.protocol import AnyNetwork
from reconstruct.operators.autodiff import no_gradient


def checked(net: AnyNetwork, features: torch.Tensor, layer: Layer, noise: float) -> torch.Tensor:
    """A layer's features as methods take them, N x C x h x w, float32 or float64.

    They may be laid out as the part of a module gives them (``as_features``).

    Raises
    ------
    FeatureError : another shape, numbers that are not floating point, features on another device, or none that the
        layer's activation can give (``activations.check_features``).
    """
    features = net.as_features(features, layer.name)
    if features.ndim != 4 or features.shape[1] != layer.channels:
        shape = " x ".join(map(str, features.shape))
        raise FeatureError(f"{layer.name} of {net.name} gives {net.axes(layer.name)} features, not {shape}")
    if not features.is_floating_point():
        raise FeatureError(f"features are floating point, not {features.dtype}")
    if features.device != net.mean.device:
        raise FeatureError(f"features are on {features.device}, the network on {net.mean.device}; bring them together")
    # Those of a pooling are the last activation's, their maxima or means.
    chain = net.as_chain(layer.name)
    layers = (layer,) if chain is None else chain.up_to(layer.name)
    source = next(each for each in reversed(layers) if each.has_weights)
    # Disturbed features are finite, no more.
    activation = "none" if noise else source.activation
    check_features(features, activation, source.slope, pooled=not layer.has_weights)
    return features if features.dtype == torch.float64 else features.float()


def image_size(net: AnyNetwork, features: torch.Tensor, layer: Layer, size: Size | int | None) -> Size:
    """The size asked for, or the model's own, if features of this grid come from it.

    Raises
    ------
    FeatureError : they do not.
    """
    wanted = net.input_area if size is None else size
    asked: Size = (wanted, wanted) if isinstance(wanted, int) else (int(wanted[0]), int(wanted[1]))
    grid = net.shapes(asked, layer.name)[layer.name]
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


def not_linear(net: AnyNetwork, layer: str, method: str) -> str | None:
    """Why a method that solves linear systems layer by layer cannot invert a layer; None where it can.

    It needs a chain of convolutions whose activations, up to the layer's own, keep the linear responses.
    """
    chain = net.as_chain(layer)
    if chain is None:
        return (
            f"method {method} solves with a chain of convolutions, and {net.name} is none up to {layer}: "
            "map and gradient differentiate through it"
        )
    for each in chain.up_to(layer):
        if each.kind == "max_pool":
            return f"method {method} solves linear systems, and no linear map undoes the max-pooling {each.name}"
        if not is_invertible(each.activation, each.slope):
            return (
                f"method {method} needs the linear responses of {each.name}, and its {each.activation} does not "
                f"keep them: it needs CReLU at and below {layer}"
            )
    return None


def not_differentiable(net: AnyNetwork, layer: str, method: str, *, twice: bool = False) -> str | None:
    """Why a method that differentiates by the image cannot invert a layer; None where it can.

    twice : whether it needs derivatives of derivatives, as products with the Jacobian of a module are.
    """
    net.layer(layer)
    reason = no_gradient(net, layer)
    if reason is not None:
        return f"method {method} needs the gradient of {layer} of {net.name} by the image: {reason}"
    reason = no_gradient(net, layer, twice=True) if twice else None
    if reason is not None:
        return f"method {method} differentiates {layer} of {net.name} twice: {reason}; gradient does so once"
    return None


def check_limits(tolerance: float | None, budget: float | None) -> None:
    """Refuses a tolerance or a budget at which no method could stop or begin."""
    if tolerance is not None and not 0 < tolerance < 1:
        raise CallError(f"tolerance is a relative residual between 0 and 1, not {tolerance:g}")
    if budget is not None and not 1 <= budget < math.inf:
        raise CallError(f"budget is a finite number of forward passes, at least 1, not {budget:g}")
