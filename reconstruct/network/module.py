"""Any torch module as a network whose layers can be inverted: its modules by name, what they give as features.

A module is run once with hooks on all of its parts, which tells their order, shapes and activations. A layer is a call
of a part that gives N x C x h x w: ``features.3``, ``layer1.0``, or ``layer1.0.relu:2`` where a part is called again.
Where the way from the image up to it is a chain (``torch_chain``) every method applies; elsewhere automatic
differentiation stands for the operators (``AutodiffChain``), and ``map`` and ``gradient`` apply.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.fx import Graph

from reconstruct.errors import CallError
from reconstruct.network.activations import TAPS, activate
from reconstruct.network.network import Architecture, Layer, Network, Size, with_tap
from reconstruct.network.tracing import chain_of_operators, trace
from reconstruct.user_function import function_named

FIELD_ENERGY = 0.999
"""Of a response's gradient by the image, how much lies in its receptive field as it is measured."""
FIELD_IMAGES = 4


@dataclass(frozen=True)
class Call:
    """A part's call, the ``number``-th of it; ``made_by`` the call of the activation that gives its values, if any."""

    part: str
    number: int
    layer: Layer
    made_by: tuple[str, int] | None
    multiplications: int
    size: Size


class TorchArchitecture(Architecture):
    """What ``Architecture`` says of a chain, found by running a module."""

    def attach(self, net: TorchNetwork) -> None:
        object.__setattr__(self, "net", net)

    @property
    def _net(self) -> TorchNetwork:
        net: TorchNetwork = self.__dict__["net"]
        return net

    def receptive_field(self, layer: str) -> int:
        """Side, in pixels, of the square that holds 99.9 % of the energy of a middle response's gradient."""
        return self._net.measured_field(layer)

    def response_sizes(self, size: Size, layer: str | None = None) -> dict[str, Size]:
        """Grid of each layer's features for images of this height and width, up to ``layer`` as they are called.

        Raises
        ------
        CallError : the module cannot take such images.
        """
        sizes = {name: call.size for name, call in self._net.calls(size).items()}
        if layer is None:
            return sizes
        names = list(sizes)[: self.index(layer) + 1]
        return {name: sizes[name] for name in names}

    def covered_size(self, size: Size, layer: str) -> Size:
        """All of it: what a module leaves out is not known."""
        return size

    def parameters(self, layer: str | None = None) -> int:
        """Weights without biases, of a part or of the whole module."""
        part = self._net.module if layer is None else self._net.module.get_submodule(self._net.call(layer).part)
        return sum(values.numel() for name, values in part.named_parameters() if not name.endswith("bias"))


class TorchNetwork(Network):
    """A torch module as a ``Network``; images in [0, 1] go in and are normalised inside. See ``from_torch``.

    Its ``layers`` are its parts' calls in the order in which they end, of the kind ``module``.
    """

    def __init__(
        self, module: nn.Module, mean: Sequence[float], std: Sequence[float], input_size: int, name: str
    ) -> None:
        nn.Module.__init__(self)
        self.module = copy.deepcopy(module).float().eval().requires_grad_(False)
        statistics = torch.tensor([tuple(mean), tuple(std)], dtype=torch.float32).view(2, 1, -1, 1, 1)
        self.register_buffer("mean", statistics[0], persistent=False)
        self.register_buffer("std", statistics[1], persistent=False)
        self._calls: dict[Size, dict[str, Call]] = {}
        self._fields: dict[str, int] = {}
        self._chains: dict[str, Network | None] = {}
        self._graph: tuple[Graph | None] | None = None
        self.estimates: dict[tuple[str, str, int], torch.Tensor] = {}
        found = self.calls((input_size, input_size), (tuple(mean), name))
        self.layers = tuple(call.layer for call in found.values())
        architecture = TorchArchitecture(name, self.layers, input_size, tuple(mean), tuple(std))
        architecture.attach(self)
        self.architecture: Architecture = architecture

    @property
    def layers_with_weights(self) -> list[Layer]:
        """Its convolutions, which ``all`` stands for."""
        calls = self.calls((self.input_size, self.input_size))
        parts = {name: self.module.get_submodule(call.part) for name, call in calls.items()}
        return [call.layer for name, call in calls.items() if isinstance(parts[name], nn.Conv2d)]

    def chain(self, layer: str) -> tuple[Layer, ...]:
        """The layer alone: what is below it is the module's affair."""
        return (self.layers[self.architecture.index(layer)],)

    def convolution(self, layer: str) -> nn.Conv2d:
        self.chain(layer)
        raise CallError(
            f"{self.name} is no chain of convolutions up to {layer}: its filters are not known. "
            f"{self.name}.operators(layer) gives the chain of a layer that has one"
        )

    def call(self, layer: str) -> Call:
        """Of a layer, for the network's own images; an unknown one is answered with those there are."""
        self.chain(layer)
        return self.calls((self.input_size, self.input_size))[layer]

    def graph(self) -> Graph | None:
        """What ``torch.fx`` sees of the module, traced once; None where it cannot follow the code."""
        if self._graph is None:
            self._graph = (trace(self.module),)
        return self._graph[0]

    def operators(self, layer: str) -> Network | None:
        """The chain of convolutions, activations and poolings from the image up to a layer; None if it is none.

        It is compared with the module on a random image, and is None as well where they differ.
        """
        if layer not in self._chains:
            self.chain(layer)
            self._chains[layer] = chain_of_operators(self, layer)
        return self._chains[layer]

    def tapped(self, layer: str, tap: str) -> Network:
        """The same with another activation at a layer (``network.with_tap``): of what goes into the layer's own, or of
        what the part gives if it ends in none.

        Raises
        ------
        CallError : an unknown tap or layer.
        """
        if tap not in TAPS:
            raise CallError(f"unknown tap '{tap}'; there are {', '.join(TAPS)}")
        chain = self.operators(layer)
        if chain is not None and chain.layers[-1].has_weights:
            return with_tap(chain, layer, tap)
        made = copy.copy(self)
        made.layers = tuple(
            replace(each, activation=TAPS[tap], slope=0.0) if each.name == layer else each for each in self.layers
        )
        own = self.architecture
        architecture = TorchArchitecture(own.name, made.layers, own.input_size, own.mean, own.std)
        architecture.attach(made)
        made.architecture = architecture
        made._chains = dict.fromkeys(self.layer_names)
        made.estimates = {}
        return made

    def longest_chain(self) -> Network:
        """The chain of the last layer that has one: what analyses and bounds look into.

        Its layers go by the names of their convolutions and poolings, the last by its own.

        Raises
        ------
        CallError : not even the first layer is a convolution of the zoo's kind.
        """
        for name in reversed(self.layer_names):
            chain = self.operators(name)
            if chain is not None and chain.layers_with_weights:
                return chain
        raise CallError(f"{self.name} does not begin with a chain of convolutions: there are no filters to look into")

    def calls(self, size: Size, new: tuple[tuple[float, ...], str] | None = None) -> dict[str, Call]:
        """The parts' calls for images of this size, by the layers' names; ``new`` before there is an architecture."""
        if size not in self._calls:
            channels, name = (len(new[0]), new[1]) if new else (len(self.architecture.mean), self.name)
            found = _listen(self.module, torch.zeros(1, channels, *size, device=self.mean.device), name)
            if new is None and list(found) != [layer.name for layer in self.layers]:
                raise CallError(f"{name} calls other parts for images of {size[0]} x {size[1]} than for its own")
            self._calls[size] = found
        return self._calls[size]

    def measured_field(self, layer: str) -> int:
        """See ``TorchArchitecture.receptive_field``."""
        if layer not in self._fields:
            side = self.input_size
            generator = torch.Generator().manual_seed(0)
            noise = torch.rand(FIELD_IMAGES, len(self.architecture.mean), side, side, generator=generator)
            with torch.enable_grad():
                images = noise.to(self.mean).requires_grad_(True)
                responses = self.responses(images, layer)
                height, width = responses.shape[2:]
                signs = torch.randn(responses.shape[:2], generator=generator).to(self.mean)
                middle = (responses[:, :, height // 2, width // 2] * signs).sum()
                (slope,) = torch.autograd.grad(middle, images)
            energy = slope.double().square().sum((0, 1))
            self._fields[layer] = _side_of(energy, FIELD_ENERGY)
        return self._fields[layer]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """What the module gives."""
        self._check_form(images)
        result: torch.Tensor = self.module((images - self.mean) / self.std)
        return result

    def responses(self, images: torch.Tensor, layer: str) -> torch.Tensor:
        """What goes into the activation that ends a layer; of a layer that ends in none, its features."""
        call = self.call(layer)
        self._check_form(images)
        if call.made_by is None:
            return self._taken(images, call.part, call.number, before=False)
        return self._taken(images, *call.made_by, before=True)

    def features(self, images: torch.Tensor, layer: str) -> torch.Tensor:
        """What the part gives: N x C x h x w."""
        last = self.layer(layer)
        return activate(self.responses(images, layer), last.activation, last.slope)

    def features_of(self, images: torch.Tensor, layers: Any) -> dict[str, torch.Tensor]:
        """Features of several layers; of a module, a pass a layer."""
        return {layer: self.features(images, layer) for layer in layers}

    def switches(self, images: torch.Tensor, layer: str) -> torch.Tensor:
        raise CallError(f"switches are of the zoo's max-poolings; {layer} is a part of the module {self.name}")

    def _taken(self, images: torch.Tensor, part: str, number: int, *, before: bool) -> torch.Tensor:
        """Runs up to the part's call of this number, and gives a copy of what goes in or comes out.

        A copy, because an activation in place would write over it.
        """
        seen = 0

        def into(module: nn.Module, given: tuple[Any, ...]) -> None:
            nonlocal seen
            seen += 1
            if before and seen == number:
                raise _TakenError(given[0].clone())

        def out(module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
            if not before and seen == number:
                raise _TakenError(result.clone())

        target = self.module.get_submodule(part)
        hooks = (target.register_forward_pre_hook(into), target.register_forward_hook(out))
        try:
            self.module((images - self.mean) / self.std)
        except _TakenError as taken:
            return taken.values
        finally:
            for hook in hooks:
                hook.remove()
        raise CallError(f"{self.name} did not call {part} {number} times")


class _TakenError(Exception):
    """Ends a run of a module where what is wanted of it is there."""

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.values = values


def from_torch(
    module: nn.Module,
    normalise: tuple[Sequence[float], Sequence[float]] = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    *,
    input_size: int = 224,
    name: str | None = None,
) -> TorchNetwork:
    """A torch module as a network: ``invert`` and the rest take it like one of the zoo.

    Parameters
    ----------
    module : takes N x C x H x W images that are normalised, float32. It is copied, and the copy set to evaluation mode.
    normalise : mean and standard deviation of each channel, of images in [0, 1]; default none, images as they are.
    input_size : side of the square images that it was made for.
    name : for files and messages; default the module's class.

    Raises
    ------
    CallError : it cannot be run on such images, or no part of it gives N x C x h x w.
    """
    mean, std = (tuple(float(value) for value in values) for values in normalise)
    if len(mean) != len(std) or not mean or min(std) <= 0 or not all(map(math.isfinite, (*mean, *std))):
        raise CallError("normalise is (mean, std), as many numbers each as an image has channels, std above 0")
    return TorchNetwork(module, mean, std, input_size, name or type(module).__name__)


def load_torch(path: str, device: str | torch.device = "cpu") -> TorchNetwork:
    """The network that the function ``package.module:function`` gives: a ``from_torch``'s, or a module as it is.

    Raises
    ------
    CallError : as ``named.function_named``, or it gives something else, or fails.
    """
    function = function_named(path, "model")
    try:
        found = function()
    except TypeError as error:
        raise CallError(f"{path} is called without arguments: {error}") from error
    if isinstance(found, nn.Module) and not isinstance(found, Network):
        found = from_torch(found, name=path.partition(":")[2].replace(".", "_"))
    if not isinstance(found, TorchNetwork):
        raise CallError(
            f"{path} gives a {type(found).__name__}, and not a torch module or what from_torch makes of one"
        )
    return found.to(device)


def _listen(module: nn.Module, images: torch.Tensor, name: str) -> dict[str, Call]:
    """The calls of a module's parts that give N x C x h x w, by layer name, in the order in which they end."""
    calls: dict[str, Call] = {}
    counts: dict[str, int] = {}
    made_by: dict[int, tuple[str, int, str, float]] = {}
    kept: list[Any] = []  # what is looked up by id must live
    work = 0

    def ended(part: str, each: nn.Module, result: Any) -> None:
        nonlocal work
        counts[part] = number = counts.get(part, 0) + 1
        if not isinstance(result, torch.Tensor):
            return
        kept.append(result)
        if not any(each.children()):
            known = _activation(each)
            if known is None:
                made_by.pop(id(result), None)
            else:
                made_by[id(result)] = (part, number, *known)
            if isinstance(each, nn.Conv2d):
                work += result.numel() * each.weight[0].numel()
            elif isinstance(each, nn.Linear):
                work += result.numel() * each.in_features
        if result.ndim != 4:
            return
        label = part if number == 1 else f"{part}:{number}"
        maker = made_by.get(id(result))
        activation, slope = ("none", 0.0) if maker is None else maker[2:]
        layer = Layer(label, int(result.shape[1]), activation=activation, slope=slope, kind="module")
        calls[label] = Call(
            part, number, layer, None if maker is None else maker[:2], work, (result.shape[2], result.shape[3])
        )

    with _hooked(module, ended), torch.no_grad():
        try:
            module(images)
        except Exception as error:  # whatever the user's own code raises
            size = f"{images.shape[2]} x {images.shape[3]}"
            reason = " ".join(str(error).split()) or type(error).__name__
            raise CallError(f"{name} cannot be run on images of {size} pixels: {reason}") from error
    if not calls:
        raise CallError(f"no part of {name} gives N x C x h x w: there is no layer to invert")
    return calls


@contextmanager
def _hooked(module: nn.Module, ended: Callable[[str, nn.Module, Any], None]) -> Iterator[None]:
    hooks = [
        part.register_forward_hook(lambda each, _, result, name=name: ended(name, each, result))
        for name, part in module.named_modules()
        if name
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _activation(module: nn.Module) -> tuple[str, float] | None:
    """The activation that a part is, as ``activations`` names it, and its slope."""
    match module:
        case nn.ReLU6():
            return "relu6", 0.0
        case nn.ReLU():
            return "relu", 0.0
        case nn.LeakyReLU() if 0 <= module.negative_slope < 1:
            return "leaky_relu", float(module.negative_slope)
    return None


def _side_of(energy: torch.Tensor, share: float) -> int:
    """Of the smallest square about the energy's centre that holds this share of it."""
    total = float(energy.sum())
    if total == 0:
        return max(energy.shape)
    centres = [
        round(float((energy.sum(1 - axis) * torch.arange(energy.shape[axis], device=energy.device)).sum()) / total)
        for axis in (0, 1)
    ]
    rows, columns = (
        (torch.arange(side, device=energy.device) - centre).abs()
        for side, centre in zip(energy.shape, centres, strict=True)
    )
    reach = torch.maximum(rows[:, None], columns[None, :]).flatten()
    order = reach.argsort()
    within = energy.flatten()[order].cumsum(0) >= share * total
    return min(max(energy.shape), 2 * int(reach[order][int(within.int().argmax())]) + 1)
