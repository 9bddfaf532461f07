"""A network that has changed since it was last inverted is inverted as what it is now, by every method.

What is found is compared with what a network made anew from the same weights gives: nothing can have been kept of it.
"""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from reconstruct import Network, from_torch, invert, quality
from reconstruct.network.architecture import Layer
from reconstruct.network.module import ModuleNetwork
from reconstruct.network.protocol import AnyNetwork
from reconstruct.network.read_points import point
from tests.builders.modules import IMAGENET, PhasePairs, ResNet, chain, drawn
from tests.builders.networks import random_net

SIDE = 32


def zoo() -> Network:
    return random_net(Layer("conv1", 24, 5, 2, 2, "crelu"), Layer("conv2", 24, 3, 1, 1, "crelu"))


class Normed(nn.Module):
    """A convolution, a batch normalisation, CReLU, a convolution: a chain for every method, with statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(3, 24, 5, 2, 2, bias=False), nn.BatchNorm2d(24)
        self.conv2 = nn.Conv2d(48, 24, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.norm(self.conv1(x))
        return self.conv2(torch.cat((z.relu(), (-z).relu()), 1))


def module(made: Callable[[], nn.Module]) -> ModuleNetwork:
    return from_torch(drawn(made()), IMAGENET, input_size=SIDE)


ALL = ("map", "wiener", "linear", "gradient")
CASES: dict[str, tuple[Callable[[], AnyNetwork], str, tuple[str, ...]]] = {
    "zoo": (zoo, "conv2", ALL),
    "a chain": (lambda: module(Normed), "conv2", ALL),
    "a chain with pooling": (lambda: from_torch(chain(), input_size=SIDE), "5", ("map", "gradient")),
    "phases by hand": (lambda: module(PhasePairs), "conv2", ALL),
    "no chain": (lambda: module(ResNet), "layer1.0", ("map", "gradient")),
}


def anew(net: AnyNetwork) -> AnyNetwork:
    """The same weights and precision in a network of which nothing has been kept."""
    if isinstance(net, Network):
        made = Network(net.architecture).eval().requires_grad_(False).to(net.mean.dtype)
        made.load_state_dict(net.state_dict())
        return made
    assert isinstance(net, ModuleNetwork)
    made = from_torch(net.module, net.normalisation, input_size=net.input_size, name=net.name)
    return made.to(net.mean.dtype)


def weights(net: AnyNetwork) -> list[torch.Tensor]:
    return [values for values in net.parameters() if values.ndim == 4]


def in_place(net: AnyNetwork) -> None:
    for values in weights(net):
        values.mul_(1.5).add_(0.05)


def through_data(net: AnyNetwork) -> None:
    for values in weights(net):
        values.data.copy_(values.data.flip(0))


def loaded(net: AnyNetwork) -> None:
    generator = torch.Generator().manual_seed(5)
    state = net.state_dict()
    for name, values in state.items():
        if values.ndim == 4:
            state[name] = values + values.std() * torch.randn(values.shape, generator=generator)
    net.load_state_dict(state)


def statistics(net: AnyNetwork) -> None:
    """The running mean and variance of every batch normalisation."""
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.add_(0.3)
            part.running_var.mul_(0.5)


CHANGES: dict[str, Callable[[AnyNetwork], object]] = {
    "in place": in_place,
    "through .data": through_data,
    "load_state_dict": loaded,
    "half": lambda net: net.half(),
    "double": lambda net: net.double(),
    "statistics": statistics,
    "another name of the device": lambda net: net.to(torch.device("cpu", 0)),
}


def found(net: AnyNetwork, layer: str, method: str, image: torch.Tensor) -> torch.Tensor:
    features = net.features(image, layer)
    noise = 0.01 if features.dtype.itemsize == 2 else 0.0  # what half precision rounds is no activation's any more
    return invert(net, features, layer, method, size=SIDE, budget=44, noise=noise).image


@pytest.fixture
def image() -> torch.Tensor:
    """Smooth, so that it is worth something to the prior."""
    noise = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    return nn.functional.interpolate(noise, SIDE, mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("case", "method"), [(case, method) for case, (*_, own) in CASES.items() for method in own])
def test_it_is_inverted_as_it_is_now(case: str, method: str, change: str, image: torch.Tensor) -> None:
    made, layer, _ = CASES[case]
    net = made()
    if change == "statistics" and not any(isinstance(part, nn.BatchNorm2d) for part in net.modules()):
        return  # it has none: the zoo's are folded
    before = found(net, layer, method, image)
    CHANGES[change](net)
    now, wanted = found(net, layer, method, image), found(anew(net), layer, method, image)
    assert now.dtype == torch.float32
    torch.testing.assert_close(now, wanted, rtol=0, atol=1e-5)
    if change in ("half", "double"):
        # The same network up to rounding: no worse than it was.
        assert quality(image, now).psnr[0] > quality(image, before).psnr[0] - 3


@pytest.mark.parametrize("case", ["zoo", "no chain"])
@pytest.mark.parametrize("change", ["in place", "half", "another name of the device"])
def test_taps_follow(case: str, change: str, image: torch.Tensor) -> None:
    """What is read of a layer by another activation is of the network as it is now, and where it is now."""
    made, layer, _ = CASES[case]
    net = made()
    old = point(net, layer, "crelu").features(image)
    CHANGES[change](net)
    at, own = point(net, layer, "crelu"), point(anew(net), layer, "crelu")
    torch.testing.assert_close(at.features(image), own.features(image), rtol=0, atol=0)
    assert at.net.mean.dtype == net.mean.dtype
    assert at.net.mean.device == net.mean.device
    assert at.features(image).shape == old.shape


def test_the_fault_that_was_seen(image: torch.Tensor) -> None:
    """A module's chain was made once and for all: after a change in place the image came back of the old weights."""
    net = from_torch(copy.deepcopy(chain()), input_size=SIDE)
    layer = "0"
    before = quality(image, invert(net, net.features(image, layer), layer, size=SIDE).image).psnr[0]
    in_place(net)
    after = quality(image, invert(net, net.features(image, layer), layer, size=SIDE).image).psnr[0]
    assert before > 30
    assert after > before - 6
