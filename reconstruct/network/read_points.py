"""Where features are read: a layer, a layer with a tap, or a split point by its authors' name.

The one place that turns such a name into a network and the layer of it to read. A device that sends a convolution's
output before its ReLU, or a model whose code has names of its own for such places (``[splits]`` in its file), is
inverted like any other layer, of the network that ``with_tap`` makes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch

from reconstruct.errors import CallError
from reconstruct.network.module import TorchNetwork
from reconstruct.network.network import Network, name_list, with_tap


@dataclass(frozen=True)
class Point:
    """A name, the network and its layer that it means, and what is read of the layer; None: as the model has it."""

    name: str
    net: Network
    layer: str
    tap: str | None

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """N x C x h x w, as ``Network.features`` gives them."""
        return self.net.features(images, self.layer)


_Key = tuple[str, str, torch.device]
_made: WeakKeyDictionary[Network, dict[_Key, Network]] = WeakKeyDictionary()
"""Networks with taps: what a method prepares for one must be there for the next batch of images."""


def point(net: Network, name: str, tap: str | None = None) -> Point:
    """What a name means.

    Without a tap a split point's name goes first, so that a model's users find what its authors call so, then a
    layer's; ``conv11`` of ``cifar_split`` is its responses, as in the paper. With one the name is a layer's: the tap
    says what is read, so ``conv11`` with ``relu`` is what ``ReLU11`` is.

    Parameters
    ----------
    tap : one of ``activations.TAPS``, or None.

    Raises
    ------
    CallError : no such name, no weights for it, an unknown tap, a pooling with one, or a split point, which has one of
        its own.
    """
    layer, split = name, net.architecture.splits.get(name)
    if tap is None and split is None:
        net.chain(name)
        return Point(name, net, name, None)
    if tap is None and split is not None:
        layer, tap = split.layer, split.tap
    elif split is not None and split.layer != name:
        raise CallError(f"{name} of {net.name} reads {split.tap} of {split.layer}: name the layer to read its {tap}")
    assert tap is not None
    made = _made.setdefault(net, {})
    key = (layer, tap, net.mean.device)
    if key not in made:
        made[key] = net.tapped(layer, tap) if isinstance(net, TorchNetwork) else with_tap(net, layer, tap)
    return Point(name, made[key], layer, tap)


def points(net: Network, wanted: str | Iterable[str], tap: str | None = None) -> list[Point]:
    """What several names mean: ``all`` (every layer that has weights), names with commas, or names; each once."""
    return [point(net, name, tap) for name in name_list(net, wanted)]
