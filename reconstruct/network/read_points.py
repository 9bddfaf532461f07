"""Where features are read: a layer, a layer with a tap, or a split point by its authors' name.

The one place that turns such a name into a network and the layer of it to read. A device that sends a convolution's
output before its ReLU, or a model whose code has names of its own for such places (``[splits]`` in its file), is
inverted like any other layer, of the network that ``with_tap`` makes.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, replace

import torch

from reconstruct.errors import CallError
from reconstruct.network.activations import TAPS
from reconstruct.network.architecture import Split
from reconstruct.network.kept import kept
from reconstruct.network.network import Network
from reconstruct.network.protocol import AnyNetwork
from reconstruct.network.surgery import with_tap


@dataclass(frozen=True)
class Point:
    """A name, the network and its layer that it means, and what is read of the layer; None: as the model has it."""

    name: str
    net: AnyNetwork
    layer: str
    tap: str | None

    @property
    def parts(self) -> tuple[Point]:
        """Itself alone, where a ``Joint`` has several."""
        return (self,)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """N x C x h x w, as ``Network.features`` gives them."""
        return self.net.features(images, self.layer)


@dataclass(frozen=True)
class Joint:
    """Several points that are read together, ``conv3+conv5``: of each the network and its layer, as of ``Point``."""

    name: str
    parts: tuple[Point, ...]
    tap: str | None

    @property
    def net(self) -> list[AnyNetwork]:
        """The networks, one a point."""
        return [part.net for part in self.parts]

    @property
    def layer(self) -> list[str]:
        """The layers, one a point."""
        return [part.layer for part in self.parts]

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Those of every point, N x C x h x w each."""
        return [part.features(images) for part in self.parts]


def point(net: AnyNetwork, name: str, tap: str | None = None) -> Point:
    """What a name means, here, in ``Network.features``, in ``inversion.invert`` and on the command line.

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
    layer, split = name, net.splits.get(name)
    if tap is None and split is None:
        net.layer(name)
        return Point(name, layers_alone(net) if isinstance(net, Network) else net, name, None)
    if tap is None and split is not None:
        layer, tap = split.layer, split.tap
    elif split is not None and split.layer != name:
        raise CallError(f"{name} of {net.name} reads {split.tap} of {split.layer}: name the layer to read its {tap}")
    assert tap is not None
    tapped, read = net, tap  # as the function below sees them
    made = kept(net, ("tap", layer, tap), lambda: with_tap(tapped, layer, read))
    return Point(name, made, layer, tap)


def layers_alone(net: Network) -> Network:
    """The network without split points: there a name of both kinds is the layer's, as whoever looks inside means it."""
    return kept(net, "without split points", lambda: net.sharing(net.layers)) if net.splits else net


def joint(net: AnyNetwork, name: str, tap: str | None = None) -> Point | Joint:
    """What a name means, or several that ``+`` joins; arguments and errors as of ``point``, for each of them."""
    names = joined(net, name)
    if len(names) == 1:
        return point(net, names[0], tap)
    return Joint("+".join(names), tuple(point(net, each, tap) for each in names), tap)


def joined(net: AnyNetwork, name: str) -> list[str]:
    """The names that ``+`` joins, each once; a layer's name that has one itself is whole.

    Raises
    ------
    CallError : there is none before, between or behind.
    """
    if name in net.layer_names or name in net.splits:
        return [name]
    parts = [part.strip() for part in name.split("+")]
    if len(parts) > 1 and not all(parts):
        raise CallError(f"'{name}' joins layers by '+' and lacks one: as conv3+conv5")
    return list(dict.fromkeys(parts))


def points(net: AnyNetwork, wanted: str | Iterable[str], tap: str | None = None) -> list[Point]:
    """What several names mean: ``all`` (every layer that has weights), names with commas, or names; each once."""
    return [point(net, name, tap) for name in name_list(net, wanted)]


def layers_read(net: AnyNetwork, names: Iterable[str]) -> list[str]:
    """The names of single points among these, those that ``+`` joins apart; each once."""
    return list(dict.fromkeys(part for name in names for part in joined(net, name)))


def joints(net: AnyNetwork, wanted: str | Iterable[str], tap: str | None = None) -> list[Point | Joint]:
    """As ``points``, where ``+`` joins names that are read together."""
    return [joint(net, name, tap) for name in name_list(net, wanted)]


def layer_list(net: AnyNetwork, wanted: str | Iterable[str]) -> list[str]:
    """``all`` (every layer that has weights), names with commas, or names, as a list of layers the network can run.

    A split point's name stands for its layer: of what looks at a layer's weights or responses, or at both of its ends.
    """
    layers = []
    for name in layers_read(net, name_list(net, wanted)):
        split = None if name in net.layer_names else net.splits.get(name)
        layers.append(net.layer(name if split is None else split.layer).name)
    return list(dict.fromkeys(layers))


def named_chain(net: AnyNetwork, wanted: str | Iterable[str]) -> Network:
    """The longest chain that a network begins with, which also knows layers by the network's own names for them.

    A chain has one layer where a module has several: its convolution, what normalises that, and its activation.

    Parameters
    ----------
    wanted : the names that will be asked for, as in ``layer_list``.

    Raises
    ------
    CallError : there is no chain, or a layer of the network is outside of it.
    """
    chain = net.longest_chain()
    if chain is net:
        return chain
    splits = {}
    # All of a chain are those that it has itself.
    for name in [] if wanted == "all" else layers_read(net, name_list(net, wanted)):
        if name not in net.layer_names or name in chain.layer_names:
            continue
        part = net.as_chain(name)
        if part is None or len(part.layers) > len(chain.layers):
            raise CallError(
                f"{name} of {net.name} is outside the chain of convolutions that it begins with, which alone is looked "
                f"into here: {', '.join(chain.layer_names)}"
            )
        activation = part.layers[-1].activation
        splits[name] = Split(chain.layers[len(part.layers) - 1].name, activation if activation in TAPS else "responses")
    named = copy(chain)  # it is kept, and others look into it
    named.architecture = replace(chain.architecture, splits=splits)
    named.preprocessing = net.preprocessing
    return named


def name_list(net: AnyNetwork, wanted: str | Iterable[str]) -> list[str]:
    """The names in ``layer_list``'s argument, each once, before anybody has looked what they are names of.

    Raises
    ------
    CallError : there are none.
    """
    names = wanted.split(",") if isinstance(wanted, str) else list(wanted)
    names = [name.strip() for name in names if name.strip()]
    if names == ["all"]:
        return [layer.name for layer in net.layers_with_weights]
    if not names:
        raise CallError(f"no layer named; {net.name} has {', '.join(net.layer_names)}")
    return list(dict.fromkeys(names))
