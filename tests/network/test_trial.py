"""Whose output a layer's is, by value; and whether a module answers the same twice, alone and in a batch."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

from reconstruct import CallError, ReconstructWarning, from_torch, invert, load_image
from reconstruct.network.module import ModuleNetwork
from tests.builders.user_modules import HALF, SIDE, Doubled, Steps, Sum, WritesInto
from tests.conftest import ROOT, Call


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.stack([load_image(ROOT / "samples" / f"{name}.jpg", SIDE) for name in ("chelsea", "coffee")])


def made(module: nn.Module) -> ModuleNetwork:
    return from_torch(module, HALF, input_size=SIDE)


def hooked(module: nn.Module, layer: str, images: torch.Tensor) -> torch.Tensor:
    """What a part gives, copied by a hook of our own."""
    found: list[torch.Tensor] = []
    hook = module.get_submodule(layer).register_forward_hook(lambda *given: found.append(given[2].detach().clone()))
    with torch.no_grad():
        module.eval()((images - 0.5) / 0.25)
    hook.remove()
    return found[0]


@pytest.mark.parametrize("how", ["add", "multiply", "slice", "data"])
@pytest.mark.parametrize("act", [nn.ReLU(), nn.LeakyReLU(0.1), nn.ReLU6(inplace=True)])
def test_what_is_written_into_is_another_layer(how: str, act: nn.Module, images: torch.Tensor) -> None:
    """The block's features are what the block gives, and the activation's what that gave."""
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), WritesInto(act, how))
    net = made(module)
    for layer in ("1", "1.act"):
        assert torch.allclose(net.features(images, layer), hooked(module, layer, images), atol=1e-6), layer
    assert net.layer("1").activation == "none"
    assert net.layer("1.act").activation != "none"
    if isinstance(act, nn.LeakyReLU):  # torch cannot differentiate through the others once they are written into
        wanted = net.features(images[:1], "1")
        result = invert(net, wanted, "1", budget=15)
        reached = net.features(result.image, "1")
        assert result.feature_residual == [pytest.approx(float((reached - wanted).norm() / wanted.norm()), rel=1e-3)]


def test_an_activation_is_one_by_what_it_gives(images: torch.Tensor) -> None:
    """A subclass that gives something else is none; what only passes one on is one; a keyword does no harm."""
    module = Steps(
        lambda own, x: own.drop(own.named(input=own.conv(own.twice(x)))),
        twice=Doubled(), conv=nn.Conv2d(3, 8, 3), named=nn.ReLU(), drop=nn.Dropout(),
    )  # fmt: skip
    net = made(module)
    assert {name: net.layer(name).activation for name in net.layer_names} == {
        "twice": "none", "conv": "none", "named": "relu", "drop": "relu",
    }  # fmt: skip
    for layer in net.layer_names:
        assert torch.allclose(net.features(images, layer), hooked(module, layer, images), atol=1e-6), layer
        assert net.responses(images, layer).shape == net.features(images, layer).shape


def test_training_does_not_make_a_block_an_activation(images: torch.Tensor) -> None:
    """Its branch gives 0 at first, as residual branches are begun: it is a sum all the same."""
    block = Steps(lambda own, x: own.act(x).add_(own.branch(x)), act=nn.ReLU(), branch=nn.Conv2d(8, 8, 1))
    nn.init.zeros_(block.branch.weight)  # type: ignore[arg-type, union-attr]
    nn.init.zeros_(block.branch.bias)  # type: ignore[arg-type, union-attr]
    net = made(nn.Sequential(nn.Conv2d(3, 8, 3), block))
    assert net.layer("1").activation == "none"
    net.module[1].branch.bias.fill_(-3.0)  # type: ignore[index, union-attr, operator]
    assert net.features(images, "1").min() < -2


@pytest.mark.parametrize("kind", ["functional", "noise", "depth"])
def test_what_is_drawn_at_random_is_told(kind: str) -> None:
    """Once, as the module comes in, with the first layer; the user's own generator stays where it was."""
    runs = {
        "functional": lambda own, x: own.last(functional.dropout(own.first(x))),
        "noise": lambda own, x: own.last(own.first(x) + 0.1 * torch.randn(())),
        "depth": lambda own, x: own.last(own.first(x) * torch.randint(2, (), dtype=torch.float32).add(1)),
    }
    torch.manual_seed(1)
    module = Steps(runs[kind], first=nn.Conv2d(3, 8, 3), last=nn.Conv2d(8, 8, 3))
    before = torch.get_rng_state()
    with pytest.warns(ReconstructWarning, match=r"does not answer the same twice: the features last of") as told:
        made(module)
    assert len(told) == 1
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["norm", "mean", "maximum"])
def test_what_depends_on_its_neighbours_goes_in_alone(kind: str, images: torch.Tensor) -> None:
    """Told once; the features of a picture are then its own, in any batch, and below they go in together."""
    runs = {
        "norm": lambda own, x: own.norm(own.first(x)),
        "mean": lambda own, x: own.last(own.first(x) - own.first(x).mean((0, 2, 3), keepdim=True)),
        "maximum": lambda own, x: own.last(own.first(x) / own.first(x).abs().max()),
    }
    parts = {
        "first": nn.Conv2d(3, 8, 3),
        "last": nn.Conv2d(8, 8, 1),
        "norm": nn.BatchNorm2d(8, track_running_stats=False),
    }
    net = None
    with pytest.warns(ReconstructWarning, match="takes the images of a batch together: .* each goes in alone"):
        net = made(Steps(runs[kind], **parts))
    layer = net.layer_names[-1]
    both = net.features(images, layer)
    assert torch.allclose(both[:1], net.features(images[:1], layer), atol=1e-5)
    assert not net.call("first").alone
    result = invert(net, both, layer, budget=12).image
    assert torch.allclose(result[1:], invert(net, both[1:], layer, budget=12).image, atol=1e-3)


def test_a_module_of_one_image_at_a_time(images: torch.Tensor) -> None:
    """Its code says 1 where the number of images belongs."""
    module = Steps(
        lambda own, x: own.last(own.first(x).reshape(1, 8, -1).reshape(1, 8, 16, 16)),
        first=nn.Conv2d(3, 8, 2, 2), last=nn.Conv2d(8, 4, 3),
    )  # fmt: skip
    with pytest.warns(ReconstructWarning, match="if there are several; each goes in alone"):
        net = made(module)
    assert torch.equal(net.features(images, "last")[1:], net.features(images[1:], "last"))


def test_batches_that_grow_are_refused_with_the_reason() -> None:
    """Two views of each image, patches, windows: their results are not those of images, what comes after may be."""

    def views(own: Steps, x: torch.Tensor) -> torch.Tensor:
        both = own.part(torch.cat((x, x.flip(3))))  # type: ignore[operator]
        return own.last(both[: len(x)] + both[len(x) :].flip(3))  # type: ignore[operator, no-any-return]

    def patches(own: Steps, x: torch.Tensor) -> torch.Tensor:
        each = x.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 8, 8)
        return own.last(own.part(each).mean((2, 3)).view(len(x), 4, 4, 8).permute(0, 3, 1, 2))  # type: ignore[operator, no-any-return]

    for run, count in ((views, 2), (patches, 16)):
        net = made(Steps(run, part=Sum(), last=nn.Conv2d(8, 4, 1)))
        assert net.layer_names == ["last"]
        with pytest.raises(
            CallError, match=f"part of Steps cannot be read as features: it gives {count} results for each"
        ):
            net.features(torch.rand(1, 3, SIDE, SIDE), "part")
    with pytest.raises(CallError, match="gives nothing that can be read as features: it gives 2 results"):
        made(Steps(lambda own, x: own.part(torch.cat((x, x))), part=Sum()))


def test_an_input_that_is_written_into_is_no_randomness(images: torch.Tensor) -> None:
    """Normalised in place, in its own forward: from a copy each time."""
    module = Steps(lambda own, x: own.conv(x.sub_(0.5).div_(0.25)), conv=nn.Conv2d(3, 8, 3))
    with warnings.catch_warnings(action="error"):
        net = from_torch(module, input_size=SIDE)
    before = images.clone()
    assert torch.allclose(net.features(images, "conv"), hooked(module.conv, "", images), atol=1e-5)  # type: ignore[arg-type]
    assert torch.equal(images, before)


def test_weights_that_are_damaged_are_told() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    torch.nn.init.constant_(module[2].weight, math.nan)  # type: ignore[arg-type]
    with pytest.warns(ReconstructWarning, match=r"infinite or none at all \(NaN\), as the features 2 "):
        net = made(module)
    assert (net.receptive_field("1"), net.receptive_field("2")) == (3, None)


def test_ordinary_modules_are_told_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made(nn.Sequential(Sum(), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout()))


def random_network() -> nn.Module:
    """What the command line is told of below."""
    return Steps(
        lambda own, x: own.last(functional.dropout(own.first(x))), first=nn.Conv2d(3, 4, 3), last=nn.Conv2d(4, 4, 3)
    )


def test_the_command_line_tells_it_in_a_line(call: Call) -> None:
    status, _, err = call("models", "tests.network.test_trial:random_network", "--json")
    assert status == 0
    assert err.startswith("reconstruct: random_network does not answer the same twice: the features last of")
    assert err.count("\n") == 1


def test_a_part_that_is_called_for_one_image_alone(images: torch.Tensor) -> None:
    """Each image goes in by itself, then: the same features one by one and together, and that is told."""
    module = Steps(
        lambda own, x: own.extra(own.conv(x)) if len(x) == 1 else own.conv(x), conv=nn.Conv2d(3, 8, 3), extra=nn.ReLU()
    )
    with pytest.warns(ReconstructWarning, match="takes the images of a batch together: the features extra"):
        net = made(module)
    assert net.layer_names == ["conv", "extra"]
    found = net.features(images, "extra")
    assert torch.equal(found, torch.cat([net.features(image[None], "extra") for image in images]))
    assert torch.allclose(found, net.features(images, "conv").relu(), atol=1e-6)
