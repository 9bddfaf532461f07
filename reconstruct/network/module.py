"""Any torch module as a network whose layers can be inverted: its modules by name, what they give as features.

A module is tried out with hooks on all of its parts (``trial``), which tells their order, shapes and activations. A
layer is a call of a part that gives features: ``features.3``, ``layer1.0``, or ``layer1.0.relu:2`` where a part is
called again; however the part lays them out, they are seen as N x C x h x w (``layout``). Where the way from the image
up to it is a chain (``tracing``) every method applies; elsewhere automatic differentiation stands for the operators,
and ``map`` and ``gradient`` apply.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from numbers import Integral

import torch
from torch import nn

from reconstruct.errors import CallError, ReconstructWarning
from reconstruct.network.activations import activate
from reconstruct.network.architecture import LARGEST, Architecture, Layer, Size, Split, decimals, unknown_layer
from reconstruct.network.calls import Call, Way, heard, ran, taken
from reconstruct.network.incoming import Script, device_of, incoming, name_of
from reconstruct.network.kept import kept
from reconstruct.network.measured_field import measured_field
from reconstruct.network.network import Network, check_images
from reconstruct.network.preprocessing import Preprocessing, difference_from_own
from reconstruct.network.surgery import in_float32
from reconstruct.network.tracing import Place, chain_in, trace
from reconstruct.network.trial import corner_images, tried

AGREEMENT = 1e-4
"""How far a chain's features may be from the module's, relative to their norm: float32 through some layers, and
normalisations that were folded in."""


class ModuleNetwork(nn.Module):
    """A torch module as a network; images in [0, 1] go in and are normalised inside. ``from_torch`` makes one.

    Its ``layers`` are its parts' calls in the order in which they end, of the kind ``module``. What is found out about
    the module by running it is ``kept``, and found out anew when its weights or statistics have changed.

    Attributes
    ----------
    doubts : what ``from_torch`` has warned of, a sentence each.
    """

    mean: torch.Tensor
    std: torch.Tensor
    preprocessing: Preprocessing | None = None

    def __init__(
        self, module: nn.Module, mean: Sequence[float], std: Sequence[float], input_area: Size, name: str | None
    ) -> None:
        super().__init__()
        self.module = incoming(module, name)
        name = name_of(module) if name is None else name
        self.name, self.input_area, self.input_size = name, input_area, min(input_area)
        self.normalisation = (tuple(mean), tuple(std))
        statistics = torch.tensor(self.normalisation, dtype=torch.float32, device=device_of(self.module))
        statistics = statistics.view(2, 1, -1, 1, 1)
        self.register_buffer("mean", statistics[0], persistent=False)
        self.register_buffer("std", statistics[1], persistent=False)
        self.source = f"torch module {name_of(module)}"
        self.weights_file: str | None = None
        self.splits: dict[str, Split] = {}
        self._tapped: str | None = None
        # Which calls there are is what the network is, as its layers are; at other sizes they are found out anew.
        images = self._normalised(corner_images(input_area, self.channels).to(self.mean.device))
        found = tried(self.module, images[:1], images[1:], name)
        self._own, self._refused, self.doubts = found.calls, found.refused, found.doubts
        if isinstance(self.module, Script):
            self.doubts.append(f"{name} is a TorchScript: its parts cannot be read, only what it gives as a whole")
        self.layers = tuple(call.layer for call in self._own.values())

    @property
    def channels(self) -> int:
        """Channels of its images."""
        return len(self.normalisation[0])

    @property
    def layer_names(self) -> list[str]:
        """The layers that can be asked for."""
        return [layer.name for layer in self.layers]

    @property
    def layers_with_weights(self) -> list[Layer]:
        """Its convolutions, which ``all`` stands for; where it has none, its fully connected parts, or else all."""
        parts = {name: self.module.get_submodule(call.part) for name, call in self._own.items()}
        for kind in (nn.Conv2d, nn.Linear):
            found = [layer for layer in self.layers if isinstance(parts[layer.name], kind)]
            if found:
                return found
        return list(self.layers)

    def index(self, layer: str) -> int:
        """The position of a layer in the order of the calls' ends.

        Raises
        ------
        CallError : there is no such layer; says which there are, or why what a part gives is none.
        """
        names = self.layer_names
        if layer not in names and layer in self._refused:
            raise CallError(f"{layer} of {self.name} cannot be read as features: {self._refused[layer]}")
        if layer not in names:
            unread = {part for part, _ in self.module.named_modules()} - {name.split("[")[0] for name in names}
            if layer in unread:
                raise CallError(
                    f"{layer} of {self.name} cannot be read as features: it is not called, or gives no tensors"
                )
            raise unknown_layer(self.name, layer, names)
        return names.index(layer)

    def layer(self, name: str) -> Layer:
        """A layer by its name; errors as of ``index``."""
        return self.layers[self.index(name)]

    def call(self, layer: str) -> Call:
        """The call that a layer is, in a run on an image of the network's own size; errors as of ``index``."""
        self.index(layer)
        return self._own[layer]

    def shapes(self, size: Size, layer: str | None = None) -> dict[str, Size]:
        """The grid of each layer's features for images of this height and width, up to ``layer`` as they are called.

        Raises
        ------
        CallError : the module cannot take such images.
        """
        sizes = {name: call.size for name, call in self.calls(size).items()}
        if layer is None:
            return sizes
        names = list(sizes)[: self.index(layer) + 1]
        return {name: sizes[name] for name in names}

    def covered_size(self, size: Size, layer: str) -> Size:
        """All of the image: what a module leaves out is not known."""
        return size

    def multiplications(self, layer: str, size: Size) -> dict[str, int]:
        """Multiplications of a forward pass up to the layer, all in one number."""
        self.index(layer)
        return {layer: max(1, self.calls(size)[layer].multiplications)}

    def weight_count(self, layer: str | None = None) -> int:
        """Weights without biases, of a part or of the whole module."""
        part = self.module if layer is None else self.module.get_submodule(self.call(layer).part)
        return sum(values.numel() for name, values in part.named_parameters() if not name.endswith("bias"))

    def as_chain(self, layer: str) -> Network | None:
        """The chain of convolutions, activations and poolings from the image up to a layer; None if it is none.

        It is compared with the module on a random image, and is None as well where they differ. It has copies of the
        weights, on the module's device and in float32.
        """
        self.index(layer)
        return None if layer == self._tapped else kept(self, ("chain", layer), lambda: self._chain(layer))

    def longest_chain(self) -> Network:
        """The chain of the last layer that has one: what analyses and bounds look into.

        Its layers go by the names of their convolutions and poolings, the last by its own.

        Raises
        ------
        CallError : not even the first layer is a convolution of the zoo's kind.
        """
        for name in reversed(self.layer_names):
            chain = self.as_chain(name)
            if chain is not None and chain.layers_with_weights:
                return chain
        raise CallError(f"{self.name} does not begin with a chain of convolutions: there are no filters to look into")

    def with_activation(self, layer: str, activation: str) -> Network | ModuleNetwork:
        """The same with another activation at a layer: of what goes into the layer's own, or of what a part gives
        that ends in none. Weights are shared.

        Raises
        ------
        CallError : there is no such layer.
        """
        chain = self.as_chain(layer)
        if chain is not None and chain.layers[-1].has_weights:
            return chain.with_activation(layer, activation)
        made = copy.copy(self)
        made._tapped = layer
        made.layers = tuple(
            replace(each, activation=activation, slope=0.0) if each.name == layer else each for each in self.layers
        )
        return made

    def calls(self, size: Size) -> dict[str, Call]:
        """The parts' calls for images of this size, by the layers' names.

        Raises
        ------
        CallError : the module cannot take such images, or it calls other parts than for images of its own size.
        """
        return kept(self, ("calls", size), lambda: self._calls(size))

    def receptive_field(self, layer: str) -> int | None:
        """The side, in pixels, of the square that holds 99.9 % of the energy of a middle response's gradient; None
        where no gradient reaches the image, or none that is finite."""
        self.index(layer)
        return kept(self, ("receptive field", layer), lambda: measured_field(self, layer))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """What the module gives."""
        result: torch.Tensor = ran(self.module, self._normalised(images), self.name)
        return result

    def responses(self, images: torch.Tensor, layer: str) -> torch.Tensor:
        """What goes into the activation that ends a layer; of a layer that ends in none, its features.

        N x C x H x W images in [0, 1] to N x K x h x w, in the module's precision.
        """
        call = self.call(layer)
        if call.made_by is None:
            return self._taken(images, call, (call.part, call.number, call.way), before=False)
        return self._taken(images, call, (*call.made_by, ()), before=True)

    def features(self, images: torch.Tensor, layer: str) -> torch.Tensor:
        """What the part gives: N x C x H x W images in [0, 1] to N x C x h x w."""
        if layer == self._tapped:
            last = self.layer(layer)
            return activate(self.responses(images, layer), last.activation, last.slope)
        call = self.call(layer)
        return self._taken(images, call, (call.part, call.number, call.way), before=False)

    def as_features(self, given: torch.Tensor, layer: str) -> torch.Tensor:
        """Features of a layer that are laid out as the part gives them, as a hook has seen them, as N x C x h x w.

        Those that are N x C x h x w already stay as they are, and so do those that are neither. N x C stands for
        N x C x 1 x 1.
        """
        call = self.call(layer)
        channels = self.layer(layer).channels
        if call.layout.plain and call.size == (1, 1) and given.shape[1:] == (channels,):
            return given[:, :, None, None]
        return call.layout.seen(given) if call.layout.is_own(given, channels) else given

    def axes(self, layer: str) -> str:
        """The shapes that ``as_features`` takes, in words: N x 16 x 1 x T or N x T x 16."""
        return self.call(layer).layout.words(self.layer(layer).channels)

    def features_of(self, images: torch.Tensor, layers: Iterable[str]) -> dict[str, torch.Tensor]:
        """The features of several layers by name, lowest first, from a pass each."""
        wanted = set(layers)
        for name in wanted:
            self.index(name)
        return {name: self.features(images, name) for name in self.layer_names if name in wanted}

    def _chain(self, layer: str) -> Network | None:
        same = in_float32(self)
        if same is not self:
            return same.as_chain(layer)
        # A part alone is traced as the only one of a module.
        lone = not any(self.module.children())
        module = nn.Sequential(self.module) if lone else self.module
        graph = kept(self, "graph", lambda: trace(module))
        if graph is None:
            return None
        call = self.call(layer)
        # The first of a tuple may be a max-pooling's values, beside the places of its maxima.
        if call.way not in ((), (0,)) or not call.layout.plain:
            return None
        # As they are here: a network that was in half precision has rounded them.
        mean, std = (decimals(values.flatten().tolist()) for values in (self.mean, self.std))
        area = None if len(set(self.input_area)) == 1 else self.input_area
        like = Architecture(self.name, (), self.input_size, mean, std, area=area)
        found = chain_in(module, graph, Place(layer, "0" if lone else call.part, call.number), like)
        if found is None:
            return None
        found = found.to(self.mean.device)
        return found if self._agrees(found, layer) else None

    @torch.no_grad()
    def _agrees(self, chain: Network, layer: str) -> bool:
        """Whether a chain gives the module's features of a random image."""
        image = torch.rand(1, self.channels, *self.input_area, generator=torch.Generator().manual_seed(0))
        image = image.to(self.mean.device)
        wanted = self.features(image, layer)
        try:
            found = chain.features(image, layer)
        except CallError:
            return False
        if found.shape != wanted.shape:
            return False
        return bool((found - wanted).norm() <= AGREEMENT * wanted.norm().clamp_min(1e-30))

    def _calls(self, size: Size) -> dict[str, Call]:
        image = torch.zeros(1, self.channels, *size, device=self.mean.device, dtype=self.mean.dtype)
        found = heard(self.module, image, self.name, lambda *_: None)
        calls = {}
        for name, call in self._own.items():
            each = found.get((call.part, call.number, call.way))
            if each is None or len(each.shape) != len(call.layout.shape) + 1:
                raise CallError(f"{self.name} calls other parts for images of {size[0]} x {size[1]} than for its own")
            shape = call.layout.seen(torch.empty(each.shape, device="meta")).shape
            calls[name] = replace(call, multiplications=each.work, size=(int(shape[2]), int(shape[3])))
        return calls

    def _taken(self, images: torch.Tensor, call: Call, place: tuple[str, int, Way], *, before: bool) -> torch.Tensor:
        """What goes into a call or comes out of it, as N x C x h x w."""
        inputs = self._normalised(images)
        batches = inputs.split(1) if call.alone and len(inputs) > 1 else (inputs,)
        found = [call.layout.seen(taken(self.module, each, place, self.name, before=before)) for each in batches]
        count = sum(map(len, found))
        if count != len(images):
            raise CallError(f"{call.layer.name} of {self.name} gives {count} results for {len(images)} images")
        return (found[0] if len(found) == 1 else torch.cat(found)).to(self.mean.dtype)

    def _normalised(self, images: torch.Tensor) -> torch.Tensor:
        check_images(images, self.channels)
        return (images.to(self.mean.dtype) - self.mean) / self.std


def from_torch(
    module: nn.Module,
    normalise: tuple[Sequence[float], Sequence[float]] | None = None,
    *,
    input_size: int | Size = 224,
    name: str | None = None,
) -> ModuleNetwork:
    """A torch module as a network: ``invert`` and the rest take it like one of the zoo.

    Parameters
    ----------
    module : takes N x C x H x W images that are normalised, float32. It is copied, and the copy set to evaluation
        mode. What ``torch.compile`` or ``DataParallel`` has wrapped is taken out of it; of a TorchScript only what it
        gives as a whole can be read.
    normalise : mean and standard deviation of each channel, of images in [0, 1]; default none: images as they are, of
        three channels, or, where it takes no such images, of as many as its first convolution takes.
    input_size : side of the square images that it was made for, or height and width of others.
    name : for files and messages; default the module's class.

    Raises
    ------
    CallError : it cannot be copied, has no weights yet, cannot be run on such images, or gives no features.

    Warns
    -----
    ReconstructWarning : it does not answer the same twice, or an image's features depend on the images beside it, which
        then go in one by one.

    Examples
    --------
    >>> import reconstruct, torch
    >>> module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3))
    >>> net = reconstruct.from_torch(module, input_size=32, name="mine")
    >>> net.layer_names
    ['0', '1', '2']
    >>> net.features(torch.rand(1, 3, 32, 32), "1").shape
    torch.Size([1, 8, 32, 32])
    """
    area = _area(input_size)
    if normalise is None:
        net = _of_images_as_they_are(module, area, name)
    else:
        net = ModuleNetwork(module, *_statistics(normalise), area, name)
    difference = difference_from_own(module, *net.normalisation, area)
    for doubt in [*net.doubts, *([difference] if difference else [])]:
        warnings.warn(doubt, ReconstructWarning, stacklevel=2)
    return net


def _of_images_as_they_are(module: nn.Module, area: Size, name: str | None) -> ModuleNetwork:
    try:
        return ModuleNetwork(module, (0.0,) * 3, (1.0,) * 3, area, name)
    except CallError:
        parts = module.modules() if isinstance(module, nn.Module) else ()
        taken = next((part.in_channels for part in parts if isinstance(part, nn.Conv2d)), 3)
        if taken == 3:
            raise
    return ModuleNetwork(module, (0.0,) * taken, (1.0,) * taken, area, name)


def _statistics(normalise: object) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation as they are given, if float32 holds what is made of them."""
    try:
        mean, std = (tuple(float(value) for value in values) for values in normalise)  # type: ignore[attr-defined]
    except (TypeError, ValueError, OverflowError):
        mean, std = (), ()
    held = all(abs(value) < LARGEST for value in mean) and all(1 / LARGEST < value < LARGEST for value in std)
    if not mean or len(mean) != len(std) or not held:
        raise CallError(
            "normalise is (mean, std), as many numbers each as an image has channels, std above 0, and all within "
            "what float32 holds"
        )
    return mean, std


def _area(input_size: object) -> Size:
    """Height and width, of a side or of both."""
    sides = (input_size, input_size) if isinstance(input_size, Integral) else input_size
    if not isinstance(sides, Sequence) or len(sides) != 2 or not all(map(_is_side, sides)):
        raise CallError(f"input_size is a side in pixels, or height and width as (64, 32), not {input_size!r}")
    return int(sides[0]), int(sides[1])


def _is_side(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) > 0
