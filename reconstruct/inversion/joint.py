"""Features of several layers that are inverted together: what belongs to what, and which of them say something.

Above a layer whose features are exact, a chain of layers only computes: what it gives says nothing of the image that
those features do not say (the data-processing inequality). With noise on them it does, and so do layers that lie beside
each other, in the branches of a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from reconstruct.errors import CallError
from reconstruct.network.activations import is_invertible
from reconstruct.network.protocol import AnyNetwork
from reconstruct.network.read_points import point
from reconstruct.operators import arrays


class Part(NamedTuple):
    """The features of one layer, N x C x h x w, and how noisy they are, as a share of their norm."""

    net: AnyNetwork
    features: torch.Tensor
    layer: str
    noise: float


def parts_of(
    net: AnyNetwork | Sequence[AnyNetwork], features: object, layer: str | Sequence[str], noise: float | Sequence[float]
) -> list[Part]:
    """The arguments of ``invert`` layer by layer.

    Raises
    ------
    CallError : lists of different lengths, no layer, one layer twice, images of different numbers, or noise that is no
        share.
    """
    names = [layer] if isinstance(layer, str) else list(layer)
    count = len(names)
    if not names or len(set(names)) < count:
        raise CallError(f"layers are named once each, and at least one, not {', '.join(names) or 'none'}")
    given = [features] if isinstance(layer, str) else features
    if not isinstance(given, (list, tuple)) or len(given) != count:
        held = f"{len(given)}" if isinstance(given, (list, tuple)) else type(given).__name__
        raise CallError(f"features of {count} layers are a list of {count} arrays, not {held}")
    nets = list(net) if isinstance(net, Sequence) else [net] * count
    noises = [float(each) for each in noise] if isinstance(noise, Sequence) else [float(noise)] * count
    for what, values in (("networks", nets), ("shares of noise", noises)):
        if len(values) != count:
            raise CallError(f"{count} layers have one of the {what} in common or {count}, not {len(values)}")
    if bad := [each for each in noises if not 0 <= each < 1]:
        raise CallError(f"noise is a share of the features' norm, at least 0 and below 1, not {bad[0]:g}")
    arrived = [arrays.as_tensor(values) for values in given]
    images = {len(values) for values in arrived if values.ndim}
    if len(images) > 1:
        raise CallError(f"the layers' features are of different numbers of images: {', '.join(map(str, images))}")
    # A split point's name is its layer's in the network that reads it.
    read = [point(own, name) for own, name in zip(nets, names, strict=True)]
    return [Part(at.net, values, at.layer, level) for at, values, level in zip(read, arrived, noises, strict=True)]


def determined(nets: Sequence[AnyNetwork], layers: Sequence[str], noise: Sequence[float]) -> dict[str, str]:
    """The layers whose features those of another layer determine, and that layer: exact ones, below them in a chain."""
    found: dict[str, str] = {}
    if len(layers) < 2:
        return found
    for net, layer in zip(nets, layers, strict=True):
        chain = net.as_chain(layer)
        below = [] if chain is None else [each.name for each in chain.up_to(layer)[:-1]]
        for other, name, level in zip(nets, layers, noise, strict=True):
            last = other.layer(name)
            # Of a layer that is read otherwise than its network goes on, only the responses are sure to tell.
            tells = other is net or is_invertible(last.activation, last.slope)
            if name in below and not level and tells:
                found[layer] = name
                break
    return found
