"""Modules as people write them, read as chains, beside what the modules' own code gives."""

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  # as in the code that is read

from reconstruct import CallError, from_torch, invert
from reconstruct.network.network import Network
from reconstruct.operators.layer_stack import LayerStack
from tests.builders.modules import IMAGENET, drawn

SIDE = 21

Forward = Callable[[Any, torch.Tensor], torch.Tensor]
Layers = list[tuple[str, str, str]]


class Written(nn.Module):
    """Two convolutions and other parts; the forward pass is somebody's code."""

    def __init__(self, forward: Forward, **parts: nn.Module) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3)
        self.wide = nn.Conv2d(12, 5, 3)
        self.norm, self.act, self.pool = nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)
        self.code = forward
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]))
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.code(self, x)


def images(side: int = SIDE) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(3))


def found(module: nn.Module, layer: str, side: int = SIDE) -> Network | None:
    """The chain up to a layer, after its features have been compared with what a hook hears."""
    heard: list[torch.Tensor] = []
    made = from_torch(drawn(module), IMAGENET, input_size=side)
    chain = made.as_chain(layer)
    part, _, number = layer.partition(":")
    hook = module.eval().get_submodule(part).register_forward_hook(lambda _, __, given: heard.append(given.clone()))
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in IMAGENET)
    with torch.no_grad():
        module((images(side) - mean) / std)
    hook.remove()
    if chain is not None:
        wanted = heard[int(number or 1) - 1]
        reached = chain.features(images(side), layer)
        assert reached.shape == wanted.shape
        assert float((reached - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())
    return chain


def layers(chain: Network | None) -> Layers | None:
    return None if chain is None else [(each.name, each.kind, each.activation) for each in chain.layers]


def first(activation: str) -> Layers:
    """Two convolutions, the first with this activation."""
    return [("conv1", "conv", activation), ("conv2", "conv", "none")]


def pooled(name: str, kind: str, activation: str = "relu") -> Layers:
    """A pooling between two convolutions."""
    return [("conv1", "conv", activation), (name, kind, "none"), ("conv2", "conv", "none")]


def both_signs(z: torch.Tensor) -> torch.Tensor:
    return F.relu(torch.cat([z, -z], 1))


def of_itself(function: Callable[..., torch.Tensor], z: torch.Tensor) -> torch.Tensor:
    return function(z, z)


def by_its_size(z: torch.Tensor) -> torch.Tensor:
    return z / z.shape[1]


ACTIVATIONS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "F.relu": (F.relu, "relu"),
    "torch.relu": (torch.relu, "relu"),
    "x.relu()": (lambda z: z.relu(), "relu"),
    "x.relu_()": (lambda z: z.relu_(), "relu"),
    "F.relu twice": (lambda z: F.relu(F.relu(z)), "relu"),
    "clamp(min=0)": (lambda z: z.clamp(min=0), "relu"),
    "clamp_min": (lambda z: torch.clamp_min(z, 0), "relu"),
    "F.leaky_relu": (lambda z: F.leaky_relu(z, 0.2), "leaky_relu"),
    "F.relu6": (F.relu6, "relu6"),
    "F.hardtanh": (lambda z: F.hardtanh(z, 0.0, 6.0), "relu6"),
    "clamp(0, 6)": (lambda z: torch.clamp(z, 0, 6), "relu6"),
    "torch.abs": (torch.abs, "avr"),
    "abs": (abs, "avr"),
    "no dropout": (lambda z: F.dropout(z, 0.5, False).contiguous(), "none"),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_functions_are_activations(name: str) -> None:
    function, activation = ACTIVATIONS[name]
    chain = found(Written(lambda m, x: m.conv2(function(m.conv1(x)))), "conv2")
    assert layers(chain) == first(activation)
    if activation == "leaky_relu":
        assert chain is not None
        assert chain.layers[0].slope == 0.2


@pytest.mark.parametrize("part", [nn.ReLU6(), nn.Hardtanh(0.0, 6.0), nn.PReLU(), nn.LeakyReLU(0.3)])
def test_parts_are_activations(part: nn.Module) -> None:
    module = Written(lambda m, x: m.conv2(m.act(m.conv1(x))), act=part)
    chain = from_torch(module, IMAGENET, input_size=SIDE).as_chain("conv2")
    wanted = {nn.ReLU6: "relu6", nn.Hardtanh: "relu6"}.get(type(part), "leaky_relu")
    assert layers(chain) == first(wanted)


POOLS: dict[str, tuple[Forward, Layers]] = {
    "F.max_pool2d": (lambda m, x: F.max_pool2d(F.relu(x), 2), pooled("max_pool2d", "max_pool")),
    "torch.max_pool2d": (lambda m, x: torch.max_pool2d(F.relu(x), 3, 2, 1), pooled("max_pool2d", "max_pool")),
    "F.avg_pool2d": (
        lambda m, x: F.avg_pool2d(F.relu(x), 3, stride=1, padding=1),
        pooled("avg_pool2d", "avg_pool"),
    ),
    "F.avg_pool2d, padding left out": (
        lambda m, x: F.avg_pool2d(F.relu(x), 3, 2, 0, False, False),
        pooled("avg_pool2d", "avg_pool"),
    ),
    "with indices": (
        lambda m, x: F.max_pool2d(F.relu(x), 2, return_indices=True)[0],
        pooled("max_pool2d_with_indices", "max_pool"),
    ),
    "ReLU after it": (lambda m, x: F.relu(m.pool(x)), pooled("pool", "max_pool")),
    "leaky ReLU after it": (
        lambda m, x: F.leaky_relu(F.max_pool2d(x, 3, 2, 1)),
        pooled("max_pool2d", "max_pool", "leaky_relu"),
    ),
    "ReLU on both sides": (lambda m, x: F.relu(m.pool(F.relu(x))), pooled("pool", "max_pool")),
    "norm and ReLU after it": (lambda m, x: F.relu(F.max_pool2d(m.norm(x), 2)), pooled("max_pool2d", "max_pool")),
    "ceil_mode with nothing to round": (
        lambda m, x: F.max_pool2d(F.relu(x), 3, 2, ceil_mode=True),
        pooled("max_pool2d", "max_pool"),
    ),
    "zeros around": (
        lambda m, x: F.max_pool2d(F.pad(F.relu(x), (1, 1, 1, 1)), 3, 2),
        pooled("max_pool2d", "max_pool"),
    ),
    "zeros around the mean": (
        lambda m, x: F.avg_pool2d(F.pad(F.relu(x), (1, 1, 1, 1)), 3, 2, count_include_pad=False),
        pooled("avg_pool2d", "avg_pool"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", POOLS)
def test_functions_are_poolings(name: str) -> None:
    between, wanted = POOLS[name]
    assert layers(found(Written(lambda m, x: m.conv2(between(m, m.conv1(x)))), "conv2")) == wanted


def test_parts_called_again() -> None:
    """A pooling, an activation, a part with parts of its own, and a convolution of its own channels."""
    module = Written(
        lambda m, x: m.block(m.block(m.pool(m.act(m.conv2(m.pool(m.act(m.conv1(x))))))))
        , block=nn.Sequential(nn.Conv2d(5, 5, 1), nn.ReLU())
    )  # fmt: skip
    below: Layers = [
        ("conv1", "conv", "relu"), ("pool", "max_pool", "none"), ("conv2", "conv", "relu"),
        ("pool:2", "max_pool", "none"),
    ]  # fmt: skip
    assert layers(found(module, "pool:2")) == below
    assert layers(found(module, "act:2")) == [*below[:2], ("act:2", "conv", "relu")]
    assert layers(found(module, "block")) == [*below, ("block", "conv", "relu")]
    assert layers(found(module, "block:2")) == [*below, ("block.0", "conv", "relu"), ("block:2", "conv", "relu")]


NORMALISED: dict[str, Forward] = {
    "numbers": lambda m, x: (x - 0.5) / 0.25,
    "in place": lambda m, x: x.clone().sub_(0.5).div_(0.25),
    "factor and offset": lambda m, x: x * 4 + 2,
    "a mean a channel": lambda m, x: (x - m.mean.view(1, 3, 1, 1)) / 0.25,
    "by indices": lambda m, x: (x - m.mean[None, :, None, None].to(x.device)) * 4,
    "a constant in the code": lambda m, x: torch.sub(x, torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)).mul(3),
    "bytes": lambda m, x: (x * 255 - 128) / 60,
    "batch normalisation": lambda m, x: m.input_norm(x),
}


@pytest.mark.parametrize("name", NORMALISED)
def test_the_modules_own_normalisation_is_the_networks(name: str) -> None:
    """Zeros around come after it."""
    normalised = NORMALISED[name]
    module = Written(
        lambda m, x: m.padded(normalised(m, x)), input_norm=nn.BatchNorm2d(3), padded=nn.Conv2d(3, 4, 3, padding=1)
    )
    chain = found(module, "padded")
    assert layers(chain) == [("padded", "conv", "none")]
    if name == "numbers":
        assert chain is not None
        mean, std = chain.normalisation
        assert mean == pytest.approx([m + 0.5 * s for m, s in zip(*IMAGENET, strict=True)])
        assert std == pytest.approx([0.25 * s for s in IMAGENET[1]])
        made = from_torch(module, IMAGENET, input_size=SIDE)
        result = invert(made, made.features(images(), "padded"), "padded", "linear", budget=20)
        assert result.feature_residual[0] < 1


def test_a_network_that_was_in_half_precision() -> None:
    """Its own normalisation has been rounded, and the chain's is that."""
    made = from_torch(drawn(Written(lambda m, x: m.conv1((x - 0.5) / 0.25))), IMAGENET, input_size=SIDE)
    made.half().float()
    chain = made.as_chain("conv1")
    assert chain is not None
    wanted = made.features(images(), "conv1")
    assert float((chain.features(images(), "conv1") - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())


PADDED: dict[str, tuple[nn.Module, int]] = {
    "same": (nn.Conv2d(6, 5, 5, padding="same"), 2),
    "valid": (nn.Conv2d(6, 5, 5, padding="valid"), 0),
    "ZeroPad2d": (nn.Sequential(nn.ZeroPad2d(2), nn.Conv2d(6, 5, 3, padding=1)), 3),
    "ConstantPad2d": (nn.Sequential(nn.ConstantPad2d((1, 1, 1, 1), 0.0), nn.Dropout(), nn.Conv2d(6, 5, 3)), 1),
    "ReLU between": (nn.Sequential(nn.ZeroPad2d(1), nn.ReLU(), nn.Conv2d(6, 5, 3)), 1),
}


@pytest.mark.parametrize("name", PADDED)
def test_zeros_around_are_the_padding_of_what_takes_them(name: str) -> None:
    part, padding = PADDED[name]
    chain = found(Written(lambda m, x: m.after(m.conv1(x)), after=part), "after")
    assert chain is not None
    assert [each.padding for each in chain.layers] == [0, padding]


PAIRS: dict[str, tuple[Forward, str]] = {
    "as in the paper": (lambda m, z: torch.cat((F.relu(z), F.relu(-z)), 1), "crelu"),
    "a list, a keyword": (lambda m, z: torch.cat([z.relu(), z.neg().relu()], dim=1), "crelu"),
    "one ReLU": (lambda m, z: F.relu(torch.cat([z, -z], 1)), "crelu"),
    "a part": (lambda m, z: m.act(torch.concat([z, z * -1], dim=-3)), "crelu"),
    "a part called twice": (lambda m, z: torch.cat([m.act(z), m.act(-z)], 1), "crelu"),
    "leaky": (lambda m, z: F.leaky_relu(torch.cat([z, 0 - z], 1), 0.1), "leaky_crelu"),
    "leaky each": (lambda m, z: torch.cat([F.leaky_relu(z, 0.1), F.leaky_relu(-z, 0.1)], 1), "leaky_crelu"),
    "normalised": (lambda m, z: F.relu(torch.cat([m.norm(z), -m.norm(z)], 1)), ""),
    "normalised once": (lambda m, z: both_signs(m.norm(z)), "crelu"),
    "negative first": (lambda m, z: torch.cat((F.relu(-z), F.relu(z)), 1), ""),
    "twice the same": (lambda m, z: F.relu(torch.cat((z, z), 1)), ""),
    "two slopes": (lambda m, z: torch.cat([F.leaky_relu(z, 0.1), F.leaky_relu(-z, 0.2)], 1), ""),
    "written over": (lambda m, z: torch.cat((F.relu(z, inplace=True), F.relu(-z)), 1), ""),
    "along the rows": (lambda m, z: torch.cat((F.relu(z), F.relu(-z)), 2).repeat(1, 2, 1, 1), ""),
}


@pytest.mark.parametrize("name", PAIRS)
def test_crelu_as_people_write_it(name: str) -> None:
    """And what only looks like it, which is no chain."""
    pair, activation = PAIRS[name]
    chain = found(Written(lambda m, x: m.wide(pair(m, m.conv1(x)))), "wide")
    assert layers(chain) == ([("conv1", "conv", activation), ("wide", "conv", "none")] if activation else None)


def test_norms_and_weights_in_functions() -> None:
    """Convolutions and normalisations as functions of the module's own weights, computed ones included."""
    module = Written(
        lambda m, x: m.out(
            F.conv2d(
                F.relu(F.batch_norm(m.conv1(x), m.norm.running_mean, m.norm.running_var, m.norm.weight, m.norm.bias)),
                m.conv2.weight / m.conv2.weight.abs().amax((1, 2, 3), keepdim=True),
                padding=1,
            )
        ),
        out=nn.ReLU(),
    )
    assert layers(found(module, "out")) == [("conv1", "conv", "relu"), ("out", "conv", "relu")]


def test_arithmetic_between_layers_is_theirs() -> None:
    """A normalisation whose statistics are constants, and a scale for each channel."""
    module = Written(lambda m, x: m.conv2(F.relu(0.5 - m.conv1(x) * m.gain.view(6, 1, 1))))
    module.register_buffer("gain", torch.linspace(-1, 2, 6))
    assert layers(found(module, "conv2")) == first("relu")


TAKEN_IN: dict[str, tuple[Forward, Layers]] = {
    "norm after ReLU": (lambda m, x: m.conv2(m.norm(F.relu(m.conv1(x)))), first("relu")),
    "norm after a pooling": (
        lambda m, x: m.conv2(m.norm(m.pool(m.conv1(x)))),
        [("conv1", "conv", "none"), ("pool", "max_pool", "none"), ("conv2", "conv", "none")],
    ),
    "a factor before zeros": (
        lambda m, x: m.padded(F.relu(m.conv1(x)) * -0.5),
        [("conv1", "conv", "relu"), ("padded", "conv", "none")],
    ),
    "channels in another order": (lambda m, x: m.conv2(F.relu(m.conv1(x))[:, [3, 0, 2, 1, 5, 4]]), first("relu")),
    "as OpenCV has them": (
        lambda m, x: m.conv2(F.relu(m.conv1(x[:, [2, 1, 0]] - m.mean.view(1, 3, 1, 1)))),
        first("relu"),
    ),
    "the other way round": (lambda m, x: m.conv2(F.relu(m.conv1((x.flip(1) * 255 - 100) / 60))), first("relu")),
    "both": (lambda m, x: m.conv2(m.norm(torch.flip(F.relu(m.conv1(x)), [1]))), first("relu")),
}


@pytest.mark.parametrize("name", TAKEN_IN)
def test_what_the_convolution_above_takes_in(name: str) -> None:
    """Norms, factors and orders of channels below it; its features, and those of the layers below, are the module's."""
    code, wanted = TAKEN_IN[name]
    module = Written(code, padded=nn.Conv2d(6, 5, 3, padding=1))
    assert layers(found(module, wanted[-1][0])) == wanted


def test_what_comes_above_a_chain_does_not_hide_it() -> None:
    """Code that decides by values, which cannot be traced."""

    def classified(m: Any, x: torch.Tensor) -> torch.Tensor:
        x = m.conv2(F.relu(m.conv1(x)))
        return x if x.mean() > 0 else -x

    assert layers(found(Written(classified), "conv2")) == first("relu")


def test_max_pooling_that_gives_indices() -> None:
    """Its values go on, the places of its maxima are for an unpooling above."""

    def unpooled(m: Any, x: torch.Tensor) -> torch.Tensor:
        x, places = m.pool(F.relu(m.conv1(x)))
        y = m.conv2(x)
        return F.max_unpool2d(x, places, 2) + y.mean((1, 2, 3), keepdim=True)

    module = Written(unpooled, pool=nn.MaxPool2d(2, return_indices=True))
    assert layers(found(module, "conv2", 22)) == pooled("pool", "max_pool")


def test_a_max_pooling_that_gives_indices_is_a_layer() -> None:
    """Of what it gives the values are its features, and their way is a chain; what it is unpooled to is none."""

    def unpooled(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.unpool(*m.pool(F.relu(m.conv1(x))))

    module = Written(unpooled, pool=nn.MaxPool2d(2, return_indices=True), unpool=nn.MaxUnpool2d(2))
    made = from_torch(drawn(module), IMAGENET, input_size=22)
    chain = made.as_chain("pool")
    assert layers(chain) == [("conv1", "conv", "relu"), ("pool", "max_pool", "none")]
    assert chain is not None
    assert torch.allclose(chain.features(images(22), "pool"), made.features(images(22), "pool"), atol=1e-5)
    assert made.as_chain("unpool") is None


def test_batch_normalisation_by_keywords() -> None:
    module = Written(
        lambda m, x: m.conv2(
            F.batch_norm(m.conv1(x), running_mean=m.norm.running_mean, running_var=m.norm.running_var, eps=0.1)
        )
    )
    assert layers(found(module, "conv2")) == first("none")


@pytest.mark.parametrize("side", [20, 21, 22, 23])
def test_a_grid_that_is_rounded_up(side: int) -> None:
    """One more window, where the last would leave positions out and the next does not begin in the padding."""
    module = Written(
        lambda m, x: m.conv2(F.relu(m.pool(m.conv1(x)))), pool=nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
    )
    chain = found(module, "conv2", side)
    assert layers(chain) == pooled("pool", "max_pool")
    assert chain is not None
    assert chain.layers[1].ceil_mode
    stack = LayerStack(chain, "conv2", (side, side))
    linear = stack.linearise(images(side)).responses
    assert float((linear - chain.responses(images(side), "conv2")).abs().max()) <= 1e-5 * float(linear.abs().max())


def test_means_of_fewer_numbers_are_no_chain() -> None:
    """An average pooling that rounds up is one only at the sizes at which there is nothing to round."""
    module = Written(lambda m, x: m.conv2(m.pool(m.conv1(x))), pool=nn.AvgPool2d(2, ceil_mode=True))
    chain = found(module, "conv2", 20)
    assert chain is not None
    with pytest.raises(CallError, match="the average pooling pool rounds its grid up for an input with a side of 17"):
        chain.features(images(19), "conv2")
    assert found(module, "conv2", 21) is None


GROUPED: dict[str, Callable[[], nn.Module]] = {
    "depthwise and pointwise": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU6(),
        nn.Conv2d(6, 12, 3, 1, 1, groups=6), nn.BatchNorm2d(12), nn.ReLU6(), nn.Conv2d(12, 5, 1),
    ),
    "AlexNet of 2012": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 5, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(8, 12, 3, padding=1, groups=2), nn.ReLU(), nn.Conv2d(12, 6, 3, padding=1, groups=2), nn.Identity(),
    ),
    "gaps": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3, dilation=2), nn.ReLU(), nn.Conv2d(6, 6, 3, padding="same", dilation=3, groups=3), nn.ReLU(),
        nn.Identity(), nn.Identity(), nn.Conv2d(6, 5, 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GROUPED)
def test_groups_and_gaps(name: str) -> None:
    """The chain and its operators are the module's; the adjoint is the transpose; every method for them runs."""
    module = Written(lambda m, x: m.body(x), body=GROUPED[name]())
    chain = found(module, "body.6", 32)
    assert chain is not None
    stack = LayerStack(chain, "body.6", (32, 32), dtype=torch.float64)
    pictures = images(32).double()
    at = stack.linearise(pictures)
    wanted = chain.responses(images(32), "body.6")
    assert float((at.responses - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())
    generator = torch.Generator().manual_seed(5)
    moved, pulled = (torch.randn(each.shape, generator=generator).double() for each in (pictures, at.responses))
    left, right = (stack.product(at, moved) * pulled).sum(), (moved * stack.transposed(at, pulled)).sum()
    assert float(left) == pytest.approx(float(right), rel=1e-9, abs=1e-9)
    weights = sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Conv2d))
    own = sum(each.weight.numel() for each in (module.conv1, module.conv2, module.wide))
    assert chain.weight_count() == weights - own


def test_a_depthwise_layer_of_crelu_is_inverted_exactly() -> None:
    """Two filters for every channel, and both phases of each: as many equations as unknowns, and well conditioned."""
    torch.manual_seed(0)
    part = nn.Conv2d(3, 12, 3, padding=1, groups=3)
    module = Written(lambda m, x: both_signs(m.part(x)), part=part)
    module.out = nn.Identity()
    module.code = lambda m, x: m.out(both_signs(m.part(x)))
    made = from_torch(module, IMAGENET, input_size=SIDE)
    chain = made.as_chain("out")
    assert layers(chain) == [("out", "conv", "crelu")]
    result = invert(made, made.features(images(), "out"), "out", "linear", budget=400)
    assert float((result.image - images()).abs().max()) < 1e-2


PARALLEL: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "whole": (nn.DataParallel, "module.conv2"),
    "twice": (lambda module: nn.DataParallel(nn.DataParallel(module)), "module.module.conv2"),
    "a part": (lambda module: nn.Sequential(nn.DataParallel(module)), "0.module.conv2"),
}


@pytest.mark.parametrize("name", PARALLEL)
def test_data_parallel(name: str) -> None:
    """Its layers go by their names in the whole module."""
    spread, layer = PARALLEL[name]
    chain = found(spread(Written(lambda m, x: m.conv2(F.relu(m.conv1(x))))), layer)
    assert layers(chain) == [(layer.replace("conv2", "conv1"), "conv", "relu"), (layer, "conv", "none")]


def test_parts_of_any_name() -> None:
    """Those that a network has for itself, and two that are one without their dots."""
    parts = {"features": nn.Sequential(nn.Conv2d(5, 5, 1), nn.ReLU()), "layers": nn.Conv2d(5, 5, 1)}
    module = Written(lambda m, x: m.layers(m.features(m.conv2(m.conv1(x)))), **parts)
    wanted: Layers = [("conv1", "conv", "none"), ("conv2", "conv", "none")]
    assert layers(found(module, "features")) == [*wanted, ("features", "conv", "relu")]
    assert layers(found(module, "layers")) == [*wanted, ("features.0", "conv", "relu"), ("layers", "conv", "none")]
    module = Written(lambda m, x: m.a_b(m.a.b(x)), a=nn.ModuleDict({"b": nn.Conv2d(3, 4, 3)}), a_b=nn.Conv2d(4, 5, 1))
    assert layers(found(module, "a_b")) == [("a.b", "conv", "none"), ("a_b", "conv", "none")]


NO_CHAINS: dict[str, Forward] = {
    "uneven padding": lambda m, x: m.conv2(F.pad(m.conv1(x), (0, 1, 0, 1))),
    "padded with ones": lambda m, x: m.conv2(F.pad(m.conv1(x), (1, 1, 1, 1), value=1.0)),
    "padded by reflection": lambda m, x: m.conv2(F.pad(m.conv1(x), (1, 1, 1, 1), mode="reflect")),
    "cropped": lambda m, x: m.conv2(F.pad(m.conv1(x), (-1, -1, -1, -1))),
    "padded before it is normalised": lambda m, x: m.conv2(m.norm(F.pad(m.conv1(x), (1, 1, 1, 1)))),
    "zeros among maxima of any sign": lambda m, x: m.conv2(F.max_pool2d(F.pad(m.conv1(x), (1, 1, 1, 1)), 3)),
    "even padding='same'": lambda m, x: m.conv2(F.conv2d(m.conv1(x), m.even, padding="same")),
    "leaky over a mean": lambda m, x: m.conv2(F.leaky_relu(F.avg_pool2d(m.conv1(x), 2))),
    "norm after ReLU, before zeros": lambda m, x: m.conv2(F.pad(m.norm(F.relu(m.conv1(x))), (1, 1, 1, 1))),
    "norm after ReLU, before groups": lambda m, x: m.grouped(m.norm(F.relu(m.conv1(x)))),
    "channels between two activations": lambda m, x: m.conv2(F.relu(F.relu(m.conv1(x))[:, [1, 0, 2, 3, 5, 4]])),
    "some channels": lambda m, x: m.conv2(m.conv1(x)[:, [0, 1, 2, 0, 1, 2]]),
    "turned over": lambda m, x: m.conv2(m.conv1(x).flip(2)),
    "padding out of the means": lambda m, x: m.conv2(F.avg_pool2d(m.conv1(x), 3, 1, 1, count_include_pad=False)),
    "another divisor": lambda m, x: m.conv2(F.avg_pool2d(m.conv1(x), 2, divisor_override=3)),
    "dropout at all times": lambda m, x: m.conv2(F.dropout(m.conv1(x), 1e-9)),
    "squared": lambda m, x: m.conv2(of_itself(operator.mul, m.conv1(x))),
    "doubled": lambda m, x: m.conv2(of_itself(operator.add, m.conv1(x))),
    "divided by": lambda m, x: m.conv1(1 / (x.abs() + 3)),
    "every other row": lambda m, x: m.conv2(m.conv1(x)[:, :, ::2]),
    "turned around": lambda m, x: m.conv1(0.5 - x),
    "a factor a position": lambda m, x: m.conv2(m.conv1(x) * m.mask),
    "sigmoid": lambda m, x: m.conv2(torch.sigmoid(m.conv1(x))),
    "clamped elsewhere": lambda m, x: m.conv2(m.conv1(x).clamp(-1, 1)),
    "scaled by itself": lambda m, x: m.conv2(by_its_size(m.conv1(x))),
    "batch statistics": lambda m, x: m.conv2(F.batch_norm(m.conv1(x), None, None, training=True)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch's own, of even kernels
@pytest.mark.filterwarnings("ignore:Written takes the images of a batch together")
@pytest.mark.parametrize("name", NO_CHAINS)
def test_what_is_no_chain(name: str) -> None:
    module = Written(NO_CHAINS[name], grouped=nn.Conv2d(6, 4, 3, groups=2))
    module.register_buffer("mask", torch.rand(19))
    module.register_buffer("even", torch.rand(6, 6, 4, 4))
    layer = "conv1" if name in ("divided by", "turned around") else "grouped" if "groups" in name else "conv2"
    assert found(module, layer) is None
    if name == "uneven padding":
        made = from_torch(module, IMAGENET, input_size=SIDE)
        assert invert(made, made.features(images(), layer), layer, budget=8).forward_passes[0] <= 8


def test_a_pooling_of_the_image_alone_is_no_chain() -> None:
    """There is no convolution in it whose features its features would be."""
    made = from_torch(nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(3, 4, 3)), IMAGENET, input_size=SIDE)
    assert made.as_chain("0") is None
    assert invert(made, made.features(images(), "0"), "0", budget=8).image.isfinite().all()
    assert layers(made.as_chain("1")) == [("0", "avg_pool", "none"), ("1", "conv", "none")]


class Normalize(nn.Module):
    """A stand-in for ``torchvision.transforms.Normalize``, whose code cannot be traced either."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert isinstance(x, torch.Tensor)
        return (x - torch.tensor(self.mean).view(3, 1, 1)) / torch.tensor(self.std).view(3, 1, 1)


def test_torchvisions_normalize_within_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Written(lambda m, x: m.conv1(m.normalise(x)), normalise=Normalize(*IMAGENET))
    assert found(module, "conv1") is None
    monkeypatch.setattr(Normalize, "__module__", "torchvision.transforms.transforms")
    assert layers(found(module, "conv1")) == [("conv1", "conv", "none")]
