"""What every part of the toolkit may ask of a network, be it the zoo's, somebody's module, or either read elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import torch
from torch import nn

if TYPE_CHECKING:
    from reconstruct.network.architecture import Layer, Size, Split
    from reconstruct.network.network import Network
    from reconstruct.network.preprocessing import Preprocessing


@runtime_checkable
class AnyNetwork(Protocol):
    """A torch module that takes images in [0, 1] and knows its layers by name; ``Network`` and ``ModuleNetwork``.

    Attributes
    ----------
    name : for files and messages.
    input_size : side, in pixels, of the square images that it was made for; of others the shorter side.
    input_area : height and width of the images that it was made for.
    mean, std : 1 x C x 1 x 1, by which it normalises images itself; on its device and in its precision.
    layers : those that can be asked for, lowest first.
    splits : split points by their authors' names (``read_points``).
    normalisation : the same numbers as they were given, mean and standard deviation of each channel.
    preprocessing : how its publisher makes pictures ready, None where that is not known.
    source, weights_file : where it comes from, and the file of its weights, None where it has none.
    """

    mean: torch.Tensor
    std: torch.Tensor
    layers: tuple[Layer, ...]
    preprocessing: Preprocessing | None

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """``torch.nn.Module.to``."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """``torch.nn.Module.parameters``."""

    def buffers(self) -> Iterator[torch.Tensor]:
        """``torch.nn.Module.buffers``."""

    def state_dict(self) -> dict[str, torch.Tensor]:
        """``torch.nn.Module.state_dict``."""

    @property
    def name(self) -> str: ...

    @property
    def input_size(self) -> int: ...

    @property
    def input_area(self) -> Size: ...

    @property
    def splits(self) -> Mapping[str, Split]: ...

    @property
    def source(self) -> str: ...

    @property
    def weights_file(self) -> str | None: ...

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]: ...

    @property
    def channels(self) -> int:
        """Channels of its images."""

    @property
    def layer_names(self) -> list[str]: ...

    @property
    def layers_with_weights(self) -> list[Layer]:
        """Its convolutions, which ``all`` stands for."""

    def index(self, layer: str) -> int:
        """Position of a layer, or a ``CallError`` that names those there are."""

    def layer(self, name: str) -> Layer:
        """A layer by its name, or a ``CallError`` that says which can be asked for."""

    def shapes(self, size: Size, layer: str | None = None) -> dict[str, Size]:
        """Grid of each layer's responses up to ``layer`` (default: all) for images of this height and width."""

    def covered_size(self, size: Size, layer: str) -> Size:
        """The part of an image, from its top left corner, that the responses of ``layer`` see."""

    def receptive_field(self, layer: str) -> int | None:
        """Side, in pixels, of the square of the image that one response of the layer sees; None where nothing tells."""

    def multiplications(self, layer: str, size: Size) -> dict[str, int]:
        """Multiplications of a forward pass on one image, for every layer up to ``layer`` that is known apart."""

    def weight_count(self, layer: str | None = None) -> int:
        """Weights without biases, of a layer or of the whole network."""

    def responses(self, images: torch.Tensor, layer: str) -> torch.Tensor:
        """What goes into a layer's activation: N x C x H x W to N x K x h x w."""

    def features(self, images: torch.Tensor, layer: str) -> torch.Tensor:
        """What a layer gives: N x C x H x W to N x K x h x w."""

    def as_features(self, given: torch.Tensor, layer: str) -> torch.Tensor:
        """Features in the layout of whatever part gives them, or as they are here, as N x C x h x w.

        Where a layer gives 1 x 1 they may be N x C. Those that are none of these stay as they are.
        """

    def axes(self, layer: str) -> str:
        """The shapes that ``as_features`` takes, in words: N x 16 x 1 x T or N x T x 16."""

    def features_of(self, images: torch.Tensor, layers: Iterable[str]) -> dict[str, torch.Tensor]:
        """The features of several layers, by name."""

    def as_chain(self, layer: str) -> Network | None:
        """The chain of convolutions, activations and poolings from the image up to a layer; None if it is none."""

    def longest_chain(self) -> Network:
        """The longest chain that the network begins with."""

    def with_activation(self, layer: str, activation: str) -> AnyNetwork:
        """The same network and weights with another activation at a layer."""
