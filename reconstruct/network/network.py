"""The network: named layers, features and linear responses, shapes, receptive fields, parameter counts.

An ``Architecture`` is data, read from a TOML specification by ``zoo``. A ``Network`` is the torch module made from
it, the one forward definition that extraction, inversion, training and evaluation use.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import pairwise

import torch
from torch import nn

from reconstruct.errors import CallError
from reconstruct.network.activations import TAPS, activate, phases

Size = tuple[int, int]
"""Height and width, in pixels or in positions of a layer's grid."""

KINDS = {"conv": "convolution", "max_pool": "max-pooling", "avg_pool": "average pooling", "module": "module"}
"""Of layers, as specifications name them and as messages do."""


@dataclass(frozen=True)
class Layer:
    """One convolution with what follows it: batch normalisation (optional), activation, dropout.

    Or a pooling and its dropout, without weights or activation: of the kind ``max_pool``, padded with minus infinity,
    or ``avg_pool``, padded with zeros that count, so that it is a linear map. Its ``filters`` are the channels of its
    input; the ``Architecture`` sets them.
    """

    name: str
    filters: int = 0
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    activation: str = "relu"
    slope: float = 0.0
    dropout: float = 0.0
    batch_norm: bool = False
    kind: str = "conv"

    @property
    def has_weights(self) -> bool:
        """A convolution has weights, a pooling none; a part of a torch module (``torch_network``) counts as having."""
        return self.kind in ("conv", "module")

    @property
    def part(self) -> str:
        """What a network's own parts are called: no name of torch's has a dot."""
        return self.name.replace(".", "_")

    @property
    def channels(self) -> int:
        """Channels of the features: twice the filters after CReLU."""
        return self.filters * phases(self.activation)

    def output_size(self, size: Size) -> Size:
        """Grid of the responses for an input of this height and width."""
        height, width = ((side + 2 * self.padding - self.kernel) // self.stride + 1 for side in size)
        return height, width


@dataclass(frozen=True)
class Split:
    """A point where a published network is split in two, by its authors' name: a convolution and what is read of it."""

    layer: str
    tap: str
    """One of ``activations.TAPS``."""


@dataclass(frozen=True)
class Architecture:
    """What a specification file says: layers, input, and where it comes from."""

    name: str
    layers: tuple[Layer, ...]
    input_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    base: str | None = None
    source: str = ""
    weights: str | None = None
    damping: dict[str, dict[str, float]] = field(default_factory=dict)
    """For each layer to invert from, the damping of every layer on the way (``inversion.linear``)."""
    input_dropout: float = 0.0
    """In training, of the normalised image's entries."""
    torchvision: dict[str, str] = field(default_factory=dict)
    """Where a published checkpoint of torchvision has each layer: its keys without ``.weight`` and ``.bias``."""
    splits: dict[str, Split] = field(default_factory=dict)
    """Split points by name (``taps.point``). One that bears a layer's name is of that layer, so that sizes, which no
    tap changes, can be asked for by either kind of name."""

    def __post_init__(self) -> None:
        channels, layers = len(self.mean), []
        for layer in self.layers:
            known = layer if layer.has_weights else replace(layer, filters=channels, activation="none")
            layers.append(known)
            channels = known.channels
        object.__setattr__(self, "layers", tuple(layers))

    def index(self, layer: str) -> int:
        """Position of a layer, or of a split point's, or a ``CallError`` that names those there are."""
        names = [known.name for known in self.layers]
        if layer in names:
            return names.index(layer)
        if layer in self.splits:
            return names.index(self.splits[layer].layer)
        near = get_close_matches(layer, [*names, *self.splits], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        points = f"; its split points: {', '.join(self.splits)}" if self.splits else ""
        raise CallError(f"{self.name} has no layer '{layer}'{hint} Its layers: {', '.join(names)}{points}")

    def in_channels(self, layer: str) -> int:
        """Channels of the layer's input."""
        index = self.index(layer)
        return self.layers[index - 1].channels if index else len(self.mean)

    def parameters(self, layer: str | None = None) -> int:
        """Weights without biases, of one layer or of the whole architecture."""
        chosen = self.layers if layer is None else (self.layers[self.index(layer)],)
        with_weights = [each for each in chosen if each.has_weights]
        return sum(each.filters * self.in_channels(each.name) * each.kernel**2 for each in with_weights)

    def receptive_field(self, layer: str) -> int:
        """Side, in pixels, of the square of the image that one response of the layer sees."""
        side = jump = 1
        for each in self.layers[: self.index(layer) + 1]:
            side += (each.kernel - 1) * jump
            jump *= each.stride
        return side

    def grid(self, layer: str) -> tuple[float, int]:
        """Where the layer's positions lie in the image: the centre of the first one's receptive field, and the step.

        Both are in pixels and the same down and across: position k looks at ``start + step * k``, where pixel i
        extends from i to i + 1, so that its centre is at i + 1/2. Padding may put the first centre near the border, or
        outside; the receptive field is then centred there all the same, a part of it on the padding.
        """
        start, step = 0.5, 1
        for each in self.layers[: self.index(layer) + 1]:
            start += ((each.kernel - 1) / 2 - each.padding) * step
            step *= each.stride
        return start, step

    def response_sizes(self, size: Size, layer: str | None = None) -> dict[str, Size]:
        """Grid of each layer's responses up to ``layer`` (default: all) for images of this height and width.

        Raises
        ------
        CallError : the image is smaller than the receptive field of ``layer``, and than the model's own images: in a
            deep layer of a small model every response sees padding.
        """
        last = len(self.layers) - 1 if layer is None else self.index(layer)
        if layer is not None and min(size) < min(field := self.receptive_field(layer), self.input_size):
            what, side = f"the receptive field of {layer}", field
            if field > self.input_size:
                what, side = f"the images of {self.name}", self.input_size
            raise CallError(f"an image of {size[0]} x {size[1]} pixels is smaller than {what}, {side} x {side} pixels")
        sizes = {}
        for each in self.layers[: last + 1]:
            size = each.output_size(size)
            sizes[each.name] = size
        return sizes

    def covered_size(self, size: Size, layer: str) -> Size:
        """The part of an image, from its top left corner, that the responses of ``layer`` see.

        A stride may leave rows on the right and below that no window reaches; this is the size without them.
        """
        height, width = (self._covered_side(side, layer) for side in size)
        return height, width

    def _covered_side(self, side: int, layer: str) -> int:
        inputs = [side]
        chain = self.layers[: self.index(layer) + 1]
        for each in chain:
            inputs.append(each.output_size((inputs[-1], 1))[0])
        seen = inputs.pop()
        for each, available in zip(reversed(chain), reversed(inputs), strict=True):
            seen = min(available, (seen - 1) * each.stride - each.padding + each.kernel)
        return seen


def is_layer_name(name: str) -> bool:
    """Whether a layer can be called so: a plain word that ``Network`` and the command line have not taken already."""
    taken = ("layers", "architecture", "training", "mean", "std", "all")
    return name.isidentifier() and not name.startswith("_") and name not in taken and not hasattr(Network, name)


def with_classes(architecture: Architecture, classes: int) -> Architecture:
    """The architecture with this many outputs: of its last layer, whose filters are half of them after CReLU.

    Raises
    ------
    CallError : fewer than 1, a number that CReLU's pairs cannot give, or a last layer without weights.
    """
    last = architecture.layers[-1]
    if not last.has_weights:
        raise CallError(f"{architecture.name} ends in the {KINDS[last.kind]} {last.name}: it has no layer of classes")
    if classes < 1:
        raise CallError(f"classes are at least 1, not {classes}")
    each = phases(last.activation)
    if classes % each:
        raise CallError(f"{last.name} of {architecture.name} is {last.activation}: its classes are even, not {classes}")
    return replace(architecture, layers=(*architecture.layers[:-1], replace(last, filters=classes // each)))


def with_batch_norm(architecture: Architecture) -> Architecture:
    """The architecture with batch normalisation after every convolution; ``fold_batch_norm`` takes it off again."""
    layers = tuple(replace(layer, batch_norm=layer.has_weights) for layer in architecture.layers)
    return replace(architecture, layers=layers)


def without_dropout(architecture: Architecture) -> Architecture:
    """The architecture with no dropout anywhere, for runs too short to over-fit."""
    layers = tuple(replace(layer, dropout=0.0) for layer in architecture.layers)
    return replace(architecture, layers=layers, input_dropout=0.0)


class Network(nn.Module):
    """A chain of convolutions with activations, and poolings; images in [0, 1] go in and are normalised inside.

    Parameters
    ----------
    architecture : what to build.
    depth : how many layers to build; default all. A weights file may stop at a layer, and so does its network.

    State-dict keys are ``conv1.weight``, ``conv1.bias`` and so on, and ``conv1_bn.*`` where a layer has batch
    normalisation.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, architecture: Architecture, depth: int | None = None) -> None:
        super().__init__()
        self.architecture = architecture
        self.layers = architecture.layers[:depth]
        for layer in self.layers_with_weights:
            channels = architecture.in_channels(layer.name)
            convolution = nn.Conv2d(channels, layer.filters, layer.kernel, layer.stride, layer.padding)
            self.add_module(layer.part, convolution)
            if layer.batch_norm:
                self.add_module(f"{layer.part}_bn", nn.BatchNorm2d(layer.filters))
        statistics = torch.tensor([architecture.mean, architecture.std]).view(2, 1, -1, 1, 1)
        self.register_buffer("mean", statistics[0], persistent=False)
        self.register_buffer("std", statistics[1], persistent=False)

    @property
    def name(self) -> str:
        return self.architecture.name

    @property
    def input_size(self) -> int:
        """Side, in pixels, of the square images that the model was made for."""
        return self.architecture.input_size

    @property
    def layer_names(self) -> list[str]:
        """The layers that can be asked for: those that the weights reach."""
        return [layer.name for layer in self.layers]

    @property
    def layers_with_weights(self) -> list[Layer]:
        """All but the poolings."""
        return [layer for layer in self.layers if layer.has_weights]

    def layer(self, name: str) -> Layer:
        return self.chain(name)[-1]

    def chain(self, layer: str) -> tuple[Layer, ...]:
        """The layers from the image up to this one.

        Raises
        ------
        CallError : no such layer, or one past the last with weights; says which layers there are. A split point, which
            is read off another network (``taps.point``).
        """
        index = self.architecture.index(layer)
        if layer != self.architecture.layers[index].name:
            raise CallError(
                f"{layer} of {self.name} is a split point and no layer: reconstruct.network.read_points.point reads it"
            )
        if index >= len(self.layers):
            lacking = layer if self.architecture.layers[index].has_weights else f"the layers below {layer}"
            known = ", ".join(each.name for each in self.layers_with_weights)
            raise CallError(
                f"{self.name} has no weights for {lacking}; it has them for {known} "
                "(random weights reach every layer: --random-weights SEED, or random_weights=SEED)"
            )
        return self.layers[: index + 1]

    def convolution(self, layer: str) -> nn.Conv2d:
        """The convolution of a layer; the layer must have no batch normalisation left to fold."""
        if not self.layer(layer).has_weights:
            raise CallError(f"the {KINDS[self.layer(layer).kind]} {layer} has no weights")
        if self.layer(layer).batch_norm:
            raise CallError(f"{layer} still has its batch normalisation; call fold_batch_norm(net) first")
        convolution = getattr(self, self.layer(layer).part)
        assert isinstance(convolution, nn.Conv2d)
        return convolution

    def features(self, images: torch.Tensor, layer: str) -> torch.Tensor:
        """Features of a layer, after its activation; of a pooling what it gives.

        Parameters
        ----------
        images : N x 3 x H x W, floating point, in [0, 1].
        layer : a layer's name.

        Returns
        -------
        N x C x h x w, with C twice the layer's filters after CReLU (positive phases first).

        Raises
        ------
        CallError : no such layer, no weights for it, images of a wrong shape or type, or smaller than the
            layer's receptive field.
        """
        last = self.layer(layer)
        return activate(self.responses(images, layer), last.activation, last.slope)

    def features_of(self, images: torch.Tensor, layers: Iterable[str]) -> dict[str, torch.Tensor]:
        """Features of several layers from one pass, by name, lowest first; each as ``features`` gives it.

        ``layers`` are names in any order; arguments and errors are otherwise those of ``features``.
        """
        wanted = set(layers)
        chain = max((self.chain(name) for name in wanted), key=len, default=())
        if not chain:
            raise CallError(f"no layer named; {self.name} has {', '.join(self.layer_names)}")
        self._check(images, chain[-1].name)
        found, values = {}, self._normalise(images)
        for layer in chain:
            features = activate(self._respond(values, layer), layer.activation, layer.slope)
            if layer.name in wanted:
                found[layer.name] = features
            values = nn.functional.dropout(features, layer.dropout, self.training)
        return found

    def responses(self, images: torch.Tensor, layer: str) -> torch.Tensor:
        """Linear responses of a layer, before its activation: N x K x h x w. Arguments as in ``features``.

        Those of a pooling are its features.
        """
        chain = self.chain(layer)
        self._check(images, layer)
        return self._run(images, chain)

    def switches(self, images: torch.Tensor, layer: str) -> torch.Tensor:
        """Where each window of a max-pooling has its maximum, the first of equal ones: N x C x h x w, int64.

        Positions count through the rows of the layer below's grid, from 0 to H W - 1. Arguments as in ``features``.

        Raises
        ------
        CallError : as from ``features``, or a layer of another kind.
        """
        *below, pool = self.chain(layer)
        if pool.kind != "max_pool":
            raise CallError(f"switches are of a max-pooling, and not of the {KINDS[pool.kind]} {layer}")
        self._check(images, layer)
        features = self.features(images, below[-1].name)
        return nn.functional.max_pool2d(features, pool.kernel, pool.stride, pool.padding, return_indices=True)[1]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Class scores, N x classes: the last layer's features averaged over their grid.

        Images may be smaller than the last receptive field, as long as the last grid has a position: layers are padded.
        """
        if len(self.layers) < len(self.architecture.layers):
            deepest = self.layers_with_weights[-1].name
            raise CallError(f"{self.name} has weights only up to {deepest}: no class scores")
        self._check(images)
        top = self.layers[-1]
        return activate(self._run(images, self.layers), top.activation, top.slope).mean(dim=(2, 3))

    def _run(self, images: torch.Tensor, chain: tuple[Layer, ...]) -> torch.Tensor:
        values = self._normalise(images)
        for layer in chain[:-1]:
            values = activate(self._respond(values, layer), layer.activation, layer.slope)
            values = nn.functional.dropout(values, layer.dropout, self.training)
        return self._respond(values, chain[-1])

    def _normalise(self, images: torch.Tensor) -> torch.Tensor:
        values = (images - self.mean) / self.std
        return nn.functional.dropout(values, self.architecture.input_dropout, self.training)

    def _respond(self, values: torch.Tensor, layer: Layer) -> torch.Tensor:
        """Features of the layer below, or the normalised image, to the layer's responses."""
        if layer.has_weights:
            values = getattr(self, layer.part)(values)
        elif layer.kind == "max_pool":
            values = nn.functional.max_pool2d(values, layer.kernel, layer.stride, layer.padding)
        else:
            values = nn.functional.avg_pool2d(values, layer.kernel, layer.stride, layer.padding)
        return getattr(self, f"{layer.part}_bn")(values) if layer.batch_norm else values

    def _check_form(self, images: torch.Tensor) -> None:
        channels = len(self.architecture.mean)
        if images.ndim != 4 or images.shape[1] != channels:
            raise CallError(f"images are N x {channels} x H x W; these are {' x '.join(map(str, images.shape))}")
        if not images.is_floating_point():
            raise CallError(f"images are floating point in [0, 1]; these are {images.dtype} (divide by 255?)")

    def _check(self, images: torch.Tensor, layer: str | None = None) -> None:
        self._check_form(images)
        sizes = self.architecture.response_sizes((images.shape[2], images.shape[3]), layer)
        if any(min(size) < 1 for size in sizes.values()):
            raise CallError(f"images of {images.shape[2]} x {images.shape[3]} vanish on the way through {self.name}")


@torch.no_grad()
def fold_batch_norm(net: Network) -> Network:
    """A copy of the network with each batch normalisation folded into the convolution before it.

    In evaluation mode the copy gives the same features. ``y = gamma (W x + b - mu) / sqrt(var + eps) + beta``
    is the convolution with weights ``W g`` and bias ``(b - mu) g + beta``, ``g = gamma / sqrt(var + eps)``.
    """
    layers = tuple(replace(layer, batch_norm=False) for layer in net.architecture.layers)
    folded = Network(replace(net.architecture, layers=layers), len(net.layers)).eval()
    for layer in net.layers_with_weights:
        source, target = getattr(net, layer.part), getattr(folded, layer.part)
        gain = torch.ones(layer.filters)
        offset = source.bias
        if layer.batch_norm:
            norm = getattr(net, f"{layer.part}_bn")
            gain = norm.weight / (norm.running_var + norm.eps).sqrt()
            offset = (source.bias - norm.running_mean) * gain + norm.bias
        target.weight.copy_(source.weight * gain.to(source.weight).view(-1, 1, 1, 1))
        target.bias.copy_(offset)
    return folded.to(net.mean.device)


@torch.no_grad()
def randomise(net: Network, seed: int) -> Network:
    """Fill a network with random weights, the same for the same seed: He et al. 2015, biases 0."""
    generator = torch.Generator().manual_seed(seed)
    for layer in net.layers_with_weights:
        convolution = getattr(net, layer.part)
        fan_in = math.prod(convolution.weight.shape[1:])
        weights = torch.randn(convolution.weight.shape, generator=generator) * math.sqrt(2 / fan_in)
        convolution.weight.copy_(weights)
        convolution.bias.zero_()
    return net


def pooled_layer(net: Network, pool: str) -> tuple[Layer, Layer]:
    """A convolution and the max-pooling of its features that is asked for.

    Raises
    ------
    CallError : the layer is not a max-pooling, or not right above a convolution.
    """
    chain = net.chain(pool)
    if chain[-1].kind != "max_pool" or not chain[-2].has_weights:
        pools = [upper.name for lower, upper in pairwise(net.layers) if upper.kind == "max_pool" and lower.has_weights]
        has = f"it has {', '.join(pools)}" if pools else "it has none"
        raise CallError(f"{pool} of {net.name} is not a max-pooling of a convolution's features; {has}")
    return chain[-2], chain[-1]


def with_pool(net: Network, layer: str, kernel: int, stride: int) -> Network:
    """The network up to a convolution, then a max-pooling of its features, ``LAYER_pool``; weights are shared.

    Raises
    ------
    CallError : a layer without weights, sizes below 1, or windows larger than the layer's grid for the model's images.
    """
    chain = net.chain(layer)
    if not chain[-1].has_weights:
        raise CallError(f"{layer} is a pooling itself: name the convolution whose features are to be pooled")
    if min(kernel, stride) < 1:
        raise CallError(f"a pooling's kernel and stride are at least 1, not {kernel} and {stride}")
    height, width = net.architecture.response_sizes((net.input_size, net.input_size))[layer]
    if kernel > min(height, width):
        raise CallError(f"windows of {kernel} do not fit the {height} x {width} positions of {layer}")
    pool = Layer(f"{layer}_pool", kernel=kernel, stride=stride, kind="max_pool")
    return _sharing(net, (*chain, pool))


def with_tap(net: Network, layer: str, tap: str) -> Network:
    """The network up to a convolution, with that layer's activation replaced; weights are shared.

    What the layer would give if another activation followed its responses: a ReLU network's layer read through CReLU
    keeps both phases, and through ``responses`` keeps them as they are.

    Parameters
    ----------
    tap : one of ``activations.TAPS``: ``responses`` (before any activation), ``relu``, ``crelu``, ``avr``.

    Raises
    ------
    CallError : an unknown tap, a layer without weights for it, or a pooling, which has no activation.
    """
    if tap not in TAPS:
        raise CallError(f"unknown tap '{tap}'; there are {', '.join(TAPS)}")
    *below, last = net.chain(layer)
    if not last.has_weights:
        raise CallError(f"the {KINDS[last.kind]} {layer} has no activation to replace: a tap is of a convolution")
    return _sharing(net, (*below, replace(last, activation=TAPS[tap], slope=0.0)))


def _sharing(net: Network, layers: tuple[Layer, ...]) -> Network:
    """A network of these layers with the weights of another's; it has no split points."""
    with torch.device("meta"):  # no numbers are drawn for weights that are not kept
        shared = Network(replace(net.architecture, layers=layers, splits={}))
    shared.mean, shared.std = net.mean, net.std
    for each in shared.layers_with_weights:
        shared.add_module(each.part, net.convolution(each.name))
    shared.training = net.training
    return shared


def layer_list(net: Network, wanted: str | Iterable[str]) -> list[str]:
    """``all`` (every layer that has weights), names with commas, or names, as a list of layers the network can run.

    A split point's name stands for its layer.
    """
    layers = [net.architecture.layers[net.architecture.index(name)].name for name in name_list(net, wanted)]
    for layer in layers:
        net.chain(layer)
    return list(dict.fromkeys(layers))


def name_list(net: Network, wanted: str | Iterable[str]) -> list[str]:
    """The names in ``layer_list``'s argument, each once, before anybody has looked what they are names of."""
    names = wanted.split(",") if isinstance(wanted, str) else list(wanted)
    names = [name.strip() for name in names if name.strip()]
    if names == ["all"]:
        return [layer.name for layer in net.layers_with_weights]
    if not names:
        raise CallError(f"no layer named; {net.name} has {', '.join(net.layer_names)}")
    return list(dict.fromkeys(names))
