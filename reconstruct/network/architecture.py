"""Architectures as data: layers, their shapes, receptive fields and parameter counts.

An ``Architecture`` is read from a specification by ``zoo``; ``network.Network`` is the torch module made from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

import numpy

from reconstruct.errors import CallError
from reconstruct.network.activations import phases

Size = tuple[int, int]
"""Height and width, in pixels or in positions of a layer's grid."""

LARGEST = 1e30
"""Numbers beyond this, and positive ones below its inverse, are not taken: in float32, which everything here is
computed in, their products are infinite or nothing."""

KINDS = {"conv": "convolution", "max_pool": "max-pooling", "avg_pool": "average pooling", "module": "module"}
"""Kinds of layers, as specifications name them and as messages do."""


@dataclass(frozen=True)
class Layer:
    """One convolution with what follows it: batch normalisation (optional), activation, dropout.

    Or a pooling and its dropout, without weights or activation: of the kind ``max_pool``, padded with minus infinity,
    or ``avg_pool``, padded with zeros that count, so that it is a linear map. Its ``filters`` are the channels of its
    input; the ``Architecture`` sets them.

    ``groups`` parts of a convolution's filters see as many parts of the input's channels, each its own; the taps of its
    kernel are ``dilation`` positions apart. With ``ceil_mode`` a max-pooling has one more window where the last one
    would leave positions out; an average pooling then has no such sizes.
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
    # Not in the text of a layer, from which estimates that were kept before there were these have their names.
    groups: int = field(default=1, repr=False)
    dilation: int = field(default=1, repr=False)
    ceil_mode: bool = field(default=False, repr=False)

    @property
    def has_weights(self) -> bool:
        """A convolution has weights, a pooling none; a part of a torch module (``module``) counts as having."""
        return self.kind in ("conv", "module")

    @property
    def channels(self) -> int:
        """Channels of the features: twice the filters after CReLU."""
        return self.filters * phases(self.activation)

    @property
    def extent(self) -> int:
        """The side of a window: the kernel's, and what dilation leaves between its taps."""
        return self.dilation * (self.kernel - 1) + 1

    def output_size(self, size: Size) -> Size:
        """Grid of the responses for an input of this height and width.

        Raises
        ------
        CallError : an average pooling would have to round its grid up, to means of fewer numbers.
        """
        height, width = map(self.output_side, size)
        return height, width

    def output_side(self, side: int) -> int:
        """``output_size`` for one of both directions."""
        room = side + 2 * self.padding - self.extent
        count = room // self.stride + 1
        if self.ceil_mode and self.kind == "avg_pool" and room % self.stride:
            raise CallError(
                f"the average pooling {self.name} rounds its grid up for an input with a side of {side} (ceil_mode), "
                "and chains have no means of fewer numbers: choose another size of the image"
            )
        # One window more, unless it would begin in the padding on the right.
        more = self.ceil_mode and room >= 0 and room % self.stride and count * self.stride < side + self.padding
        return count + 1 if more else count


@dataclass(frozen=True)
class Split:
    """A point where a published network is split in two, by its authors' name: a convolution and what is read of it."""

    layer: str
    tap: str
    """One of ``activations.TAPS``."""


@dataclass(frozen=True)
class Architecture:
    """What a specification file says: layers, input, and where it comes from.

    Examples
    --------
    >>> import reconstruct
    >>> from reconstruct.network.architecture import Layer
    >>> layers = (Layer("conv1", 16, kernel=5, stride=2, activation="crelu"), Layer("conv2", 8, kernel=3))
    >>> tiny = reconstruct.Architecture("tiny", layers, 32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    >>> tiny.response_sizes((32, 32)), tiny.parameters(), tiny.receptive_field("conv2")
    ({'conv1': (14, 14), 'conv2': (12, 12)}, 3504, 9)
    """

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
    """Split points by name (``read_points.point``). One that bears a layer's name is of that layer, so that sizes,
    which no tap changes, can be asked for by either kind of name."""
    area: Size | None = None
    """Height and width of the images that it was made for, where they are no square; ``input_size`` is the shorter."""

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
        raise unknown_layer(self.name, layer, names, list(self.splits))

    def in_channels(self, layer: str) -> int:
        """Channels of the layer's input."""
        index = self.index(layer)
        return self.layers[index - 1].channels if index else len(self.mean)

    def parameters(self, layer: str | None = None) -> int:
        """Weights without biases, of one layer or of the whole architecture."""
        chosen = self.layers if layer is None else (self.layers[self.index(layer)],)
        with_weights = [each for each in chosen if each.has_weights]
        return sum(
            each.filters * (self.in_channels(each.name) // each.groups) * each.kernel**2 for each in with_weights
        )

    def receptive_field(self, layer: str) -> int:
        """Side, in pixels, of the square of the image that one response of the layer sees."""
        side = jump = 1
        for each in self.layers[: self.index(layer) + 1]:
            side += (each.extent - 1) * jump
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
            start += ((each.extent - 1) / 2 - each.padding) * step
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

    def multiplications(self, layer: str, size: Size) -> dict[str, int]:
        """Multiplications of a forward pass on one image of this height and width, for every layer up to ``layer``.

        An average pooling counts as the convolution that it is, a max-pooling as 0.
        """
        sizes = self.response_sizes(size)
        weights = {
            each.name: each.filters * each.kernel**2 if each.kind == "avg_pool" else self.parameters(each.name)
            for each in self.layers[: self.index(layer) + 1]
        }
        return {name: count * math.prod(sizes[name]) for name, count in weights.items()}

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
            inputs.append(each.output_side(inputs[-1]))
        seen = inputs.pop()
        for each, available in zip(reversed(chain), reversed(inputs), strict=True):
            seen = min(available, (seen - 1) * each.stride - each.padding + each.extent)
        return seen


def as_area(size: Size | int) -> Size:
    """Height and width, of both or of a square's side."""
    return (size, size) if isinstance(size, int) else size


def side_or_area(size: Size) -> int | list[int]:
    """The side of a square, or height and width of what is none, as JSON holds them."""
    height, width = size
    return height if height == width else [height, width]


def decimals(values: Iterable[float]) -> tuple[float, ...]:
    """The shortest decimals that are the same numbers in float32, in which a network has them."""
    with numpy.errstate(over="ignore"):  # whoever takes them refuses infinities
        return tuple(float(str(value)) for value in numpy.asarray([*values], dtype=numpy.float32))


def unknown_layer(network: str, layer: str, names: list[str], splits: Sequence[str] = ()) -> CallError:
    """The error that answers a layer's name which there is not, with the nearest one and all that there are."""
    known = {name.lower(): name for name in [*splits, *names]}
    near = get_close_matches(layer[:100].lower(), known, n=1)  # quadratic in a word's length
    end = f"; did you mean {known[near[0]]}?" if near else "."
    points = f"; its split points: {', '.join(splits)}" if splits else ""
    return CallError(f"{network} has no layer '{layer}'{end} Its layers: {', '.join(names)}{points}")
