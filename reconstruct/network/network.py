"""A chain of convolutions, activations and poolings as a torch module: the one forward definition.

Extraction, inversion, training and evaluation use it. Its ``Architecture`` says what it consists of.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from reconstruct.errors import CallError
from reconstruct.network.activations import TAPS, activate
from reconstruct.network.architecture import KINDS, Architecture, Layer, Size, Split
from reconstruct.network.preprocessing import Preprocessing


class Network(nn.Module):
    """A chain of convolutions with activations, and poolings; images in [0, 1] go in and are normalised inside.

    Parameters
    ----------
    architecture : what to build.
    depth : how many layers to build; default all. A weights file may stop at a layer, and so does its network.

    State-dict keys are ``conv1.weight``, ``conv1.bias`` and so on, and ``conv1_bn.*`` where a layer has batch
    normalisation.

    Examples
    --------
    >>> import reconstruct, torch
    >>> net = reconstruct.load_model("crelu_conv1_4")
    >>> net.features(torch.rand(1, 3, 227, 227), "conv3").shape
    torch.Size([1, 192, 28, 28])
    >>> net.layer("conv3").activation, net.receptive_field("conv3")
    ('crelu', 19)
    """

    mean: torch.Tensor
    std: torch.Tensor
    preprocessing: Preprocessing | None = None

    def __init__(self, architecture: Architecture, depth: int | None = None) -> None:
        super().__init__()
        self.architecture = architecture
        self.layers = architecture.layers[:depth]
        for layer in self.layers_with_weights:
            channels = architecture.in_channels(layer.name)
            geometry = (layer.kernel, layer.stride, layer.padding, layer.dilation, layer.groups)
            convolution = nn.Conv2d(channels, layer.filters, *geometry)
            self.add_module(part_of(layer.name), convolution)
            if layer.batch_norm:
                self.add_module(f"{part_of(layer.name)}_bn", nn.BatchNorm2d(layer.filters))
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
    def input_area(self) -> Size:
        """Height and width of the images that it was made for."""
        return self.architecture.area or (self.input_size, self.input_size)

    @property
    def source(self) -> str:
        """Where the architecture comes from."""
        return self.architecture.source

    @property
    def weights_file(self) -> str | None:
        """The file that its specification names; None where it names none."""
        return self.architecture.weights

    @property
    def splits(self) -> dict[str, Split]:
        """Split points by name."""
        return self.architecture.splits

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel of images in [0, 1]."""
        return self.architecture.mean, self.architecture.std

    @property
    def channels(self) -> int:
        """Channels of its images."""
        return len(self.architecture.mean)

    @property
    def layer_names(self) -> list[str]:
        """The layers that can be asked for: those that the weights reach."""
        return [layer.name for layer in self.layers]

    @property
    def layers_with_weights(self) -> list[Layer]:
        """All but the poolings."""
        return [layer for layer in self.layers if layer.has_weights]

    def index(self, layer: str) -> int:
        """The position of a layer, or of a split point's; see ``Architecture.index``."""
        return self.architecture.index(layer)

    def shapes(self, size: Size, layer: str | None = None) -> dict[str, Size]:
        """The grid of each layer's responses up to ``layer``; see ``Architecture.response_sizes``."""
        return self.architecture.response_sizes(size, layer)

    def covered_size(self, size: Size, layer: str) -> Size:
        """The part of an image that the responses of ``layer`` see; see ``Architecture.covered_size``."""
        return self.architecture.covered_size(size, layer)

    def receptive_field(self, layer: str) -> int:
        """The side, in pixels, of the square that a response of the layer sees."""
        return self.architecture.receptive_field(layer)

    def multiplications(self, layer: str, size: Size) -> dict[str, int]:
        """Multiplications of a forward pass, for every layer up to ``layer``; see ``Architecture.multiplications``."""
        self.up_to(layer)
        return self.architecture.multiplications(layer, size)

    def weight_count(self, layer: str | None = None) -> int:
        """Weights without biases; see ``Architecture.parameters``."""
        return self.architecture.parameters(layer)

    def layer(self, name: str) -> Layer:
        """A layer by its name; errors as of ``up_to``."""
        return self.up_to(name)[-1]

    def up_to(self, layer: str) -> tuple[Layer, ...]:
        """The layers from the image up to this one.

        Raises
        ------
        CallError : no such layer, or one past the last with weights; says which layers there are. A split point, whose
            features another network's layer gives (``read_points.point``).
        """
        index = self.architecture.index(layer)
        if layer != self.architecture.layers[index].name:
            raise CallError(
                f"{layer} of {self.name} is a split point and no layer: its layer is "
                f"{self.architecture.layers[index].name}, and reconstruct.network.read_points.point reads it"
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
        """The convolution of a layer.

        Raises
        ------
        CallError : no such layer, no weights for it, a pooling, or a batch normalisation that is not folded.
        """
        if not self.layer(layer).has_weights:
            raise CallError(f"the {KINDS[self.layer(layer).kind]} {layer} has no weights")
        if self.layer(layer).batch_norm:
            raise CallError(f"{layer} still has its batch normalisation; call fold_batch_norm(net) first")
        convolution = getattr(self, part_of(layer))
        assert isinstance(convolution, nn.Conv2d)
        return convolution

    def features(self, images: torch.Tensor, layer: str) -> torch.Tensor:
        """Features of a layer, after its activation; of a pooling what it gives, of a split point what is read there.

        Where a split point and a layer bear one name, the name is the split point's, here as on the command line.

        Parameters
        ----------
        images : N x C x H x W, floating point, in [0, 1].
        layer : a layer's or a split point's name.

        Returns
        -------
        N x K x h x w, with K twice the layer's filters after CReLU (positive phases first).

        Raises
        ------
        CallError : no such layer, no weights for it, images of a wrong shape or type, or smaller than the
            layer's receptive field.
        """
        own, activation, slope = self._read(layer)
        return activate(self.responses(images, own), activation, slope)

    def as_features(self, given: torch.Tensor, layer: str) -> torch.Tensor:
        """Features as they are: its layers give N x C x h x w, and N x C stands for N x C x 1 x 1."""
        vectors = given.shape[1:] == (self.layer(layer).channels,) and self._gives_vectors(layer)
        return given[:, :, None, None] if vectors else given

    def axes(self, layer: str) -> str:
        """The shapes that ``as_features`` takes, in words: N x 10 x h x w, or N x 10 x 1 x 1 or N x 10."""
        channels = self.layer(layer).channels
        return f"N x {channels} x 1 x 1 or N x {channels}" if self._gives_vectors(layer) else f"N x {channels} x h x w"

    def features_of(self, images: torch.Tensor, layers: Iterable[str]) -> dict[str, torch.Tensor]:
        """Features of several layers from one pass, by name, lowest first; each as ``features`` gives it.

        ``layers`` are names in any order; arguments and errors are otherwise those of ``features``.
        """
        wanted = {name: self._read(name) for name in layers}
        chain = max((self.up_to(own) for own, _, _ in wanted.values()), key=len, default=())
        if not chain:
            raise CallError(f"no layer named; {self.name} has {', '.join(self.layer_names)}")
        self._check(images, chain[-1].name)
        found, values = {}, self._normalise(images)
        for layer in chain:
            responses = self._respond(values, layer)
            features = activate(responses, layer.activation, layer.slope)
            for name, (own, activation, slope) in wanted.items():
                if own == layer.name:
                    known = (activation, slope) == (layer.activation, layer.slope)
                    found[name] = features if known else activate(responses, activation, slope)
            values = nn.functional.dropout(features, layer.dropout, self.training)
        return found

    def responses(self, images: torch.Tensor, layer: str) -> torch.Tensor:
        """Linear responses of a layer, before its activation: N x K x h x w. Arguments as in ``features``.

        Those of a pooling are its features.
        """
        chain = self.up_to(layer)
        self._check(images, layer)
        return self._run(images, chain)

    def switches(self, images: torch.Tensor, layer: str) -> torch.Tensor:
        """Where each window of a max-pooling has its maximum, the first of equal ones: N x C x h x w, int64.

        Positions count through the rows of the layer below's grid, from 0 to H W - 1. Arguments as in ``features``.

        Raises
        ------
        CallError : as from ``features``, or a layer of another kind.
        """
        *below, pool = self.up_to(layer)
        if pool.kind != "max_pool":
            raise CallError(f"switches are of a max-pooling, and not of the {KINDS[pool.kind]} {layer}")
        self._check(images, layer)
        last = below[-1]
        features = activate(self.responses(images, last.name), last.activation, last.slope)
        return nn.functional.max_pool2d(
            features, pool.kernel, pool.stride, pool.padding, ceil_mode=pool.ceil_mode, return_indices=True
        )[1]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Class scores, N x classes: the last layer's features averaged over their grid.

        Images may be smaller than the last receptive field, as long as the last grid has a position: layers are padded.

        Raises
        ------
        CallError : there are no weights for the last layer, or images of a wrong shape or type, or ones that vanish.
        """
        if len(self.layers) < len(self.architecture.layers):
            deepest = self.layers_with_weights[-1].name
            raise CallError(f"{self.name} has weights only up to {deepest}: no class scores")
        self._check(images)
        top = self.layers[-1]
        return activate(self._run(images, self.layers), top.activation, top.slope).mean(dim=(2, 3))

    def _read(self, name: str) -> tuple[str, str, float]:
        """The layer that a name reads, and what is made of its responses: an activation and its slope."""
        split = self.splits.get(name)
        if split is not None:
            return split.layer, TAPS[split.tap], 0.0
        layer = self.layer(name)
        return name, layer.activation, layer.slope

    def _gives_vectors(self, layer: str) -> bool:
        return self.shapes(self.input_area, layer)[layer] == (1, 1)

    def _run(self, images: torch.Tensor, chain: tuple[Layer, ...]) -> torch.Tensor:
        values = self._normalise(images)
        for layer in chain[:-1]:
            values = activate(self._respond(values, layer), layer.activation, layer.slope)
            values = nn.functional.dropout(values, layer.dropout, self.training)
        return self._respond(values, chain[-1])

    def _normalise(self, images: torch.Tensor) -> torch.Tensor:
        values = (images.to(self.mean.dtype) - self.mean) / self.std
        return nn.functional.dropout(values, self.architecture.input_dropout, self.training)

    def _respond(self, values: torch.Tensor, layer: Layer) -> torch.Tensor:
        """Features of the layer below, or the normalised image, to the layer's responses."""
        if layer.has_weights:
            values = getattr(self, part_of(layer.name))(values)
        elif layer.kind == "max_pool":
            values = nn.functional.max_pool2d(
                values, layer.kernel, layer.stride, layer.padding, ceil_mode=layer.ceil_mode
            )
        else:
            values = nn.functional.avg_pool2d(values, layer.kernel, layer.stride, layer.padding)
        return getattr(self, f"{part_of(layer.name)}_bn")(values) if layer.batch_norm else values

    def _check(self, images: torch.Tensor, layer: str | None = None) -> None:
        check_images(images, self.channels)
        sizes = self.shapes((images.shape[2], images.shape[3]), layer)
        if any(min(size) < 1 for size in sizes.values()):
            raise CallError(f"images of {images.shape[2]} x {images.shape[3]} vanish on the way through {self.name}")

    def as_chain(self, layer: str) -> Network:
        """Itself: it is a chain up to every layer that it has."""
        self.up_to(layer)
        return self

    def longest_chain(self) -> Network:
        """Itself."""
        return self

    def with_activation(self, layer: str, activation: str) -> Network:
        """The network up to a convolution, with another activation there; weights are shared.

        Raises
        ------
        CallError : a layer without weights for it, or a pooling, which has no activation.
        """
        *below, last = self.up_to(layer)
        if not last.has_weights:
            raise CallError(f"the {KINDS[last.kind]} {layer} has no activation to replace: a tap is of a convolution")
        return self.sharing((*below, replace(last, activation=activation, slope=0.0)))

    def sharing(self, layers: tuple[Layer, ...]) -> Network:
        """A network of these layers with this one's weights, not copied; it has no split points."""
        with torch.device("meta"):  # no numbers are drawn for weights that are not kept
            shared = Network(replace(self.architecture, layers=layers, splits={}))
        shared.mean, shared.std = self.mean, self.std
        for each in shared.layers_with_weights:
            shared.add_module(part_of(each.name), self.convolution(each.name))
        shared.training = self.training
        return shared


def check_images(images: torch.Tensor, channels: int) -> None:
    """Refuse what is not N x C x H x W, floating point."""
    if images.ndim != 4 or images.shape[1] != channels:
        raise CallError(f"images are N x {channels} x H x W; these are {' x '.join(map(str, images.shape))}")
    if not images.is_floating_point():
        raise CallError(f"images are floating point in [0, 1]; these are {images.dtype} (divide by 255?)")


def is_layer_name(name: str) -> bool:
    """Whether a layer can be called so: a plain word that ``Network`` and the command line have not taken already."""
    taken = ("layers", "architecture", "training", "mean", "std", "all")
    return name.isidentifier() and not name.startswith("_") and name not in taken and not hasattr(Network, name)


def part_of(layer: str) -> str:
    """What the part of a network with a layer's weights is called: as the layer, or what no other is called.

    Layers of a torch module may have any name, also that of something which networks have already.
    """
    return layer if is_layer_name(layer) else f"layer {layer.replace('.', '/')}"
