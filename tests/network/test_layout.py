"""Stages N x h x w x C, tokens, vectors, tuples and dictionaries: seen as N x C x h x w, and inverted."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import nn

from reconstruct import CallError, FeatureError, from_torch, invert, load_image
from reconstruct.network.calls import WHOLE
from reconstruct.network.module import ModuleNetwork
from reconstruct.operators.autodiff import Differentiation
from tests.builders.user_modules import HALF, SIDE, LastChannels, Steps, Sum, Tokens
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.stack([load_image(ROOT / "samples" / f"{name}.jpg", SIDE) for name in ("chelsea", "coffee")])


def made(module: nn.Module) -> ModuleNetwork:
    torch.manual_seed(0)
    return from_torch(module, HALF, input_size=SIDE)


def given(module: nn.Module, layer: str, images: torch.Tensor) -> Any:
    """What a part gives, by a hook of our own."""
    found: list[Any] = []
    hook = module.get_submodule(layer).register_forward_hook(lambda *of: found.append(of[2]))
    with torch.no_grad():
        module.eval()((images - 0.5) / 0.25)
    hook.remove()
    return found[0]


def test_channels_that_come_last(images: torch.Tensor) -> None:
    """As many channels as rows and columns, so that only what moves tells them apart; the grid is that of the stage."""
    module = LastChannels()
    net = made(module)
    for layer, channels in (("norm", 8), ("grow", 24), ("act", 24), ("shrink", 8), ("stage", 8)):
        wanted = given(module, layer, images).permute(0, 3, 1, 2)
        assert torch.allclose(net.features(images, layer), wanted, atol=1e-6), layer
        assert torch.equal(net.as_features(wanted, layer), wanted)
        assert net.layer(layer).channels == channels
        assert net.shapes((SIDE, SIDE))[layer] == (8, 8)
        # A position sees the patch of 4 x 4 that it is made of.
        assert net.receptive_field(layer) in (3, 4, 5)
    assert torch.allclose(net.features(images, "stem"), given(module, "stem", images), atol=1e-6)
    assert net.shapes((SIDE, SIDE))["head"] == (1, 1)
    assert net.receptive_field("head") == SIDE


def test_another_size_of_stages(images: torch.Tensor) -> None:
    """Where the activations have as many positions as the image: smoothed by their mean spread."""
    net = made(LastChannels())
    wide = load_image(ROOT / "samples" / "chelsea.jpg", 40)[None, :, :, :24]
    features = net.features(wide, "stage")
    assert features.shape == (1, 8, 10, 6)
    result = invert(net, features, "stage", size=(40, 24), budget=60)
    assert result.image.shape == wide.shape
    assert result.feature_residual[0] < 0.1
    spreads = Differentiation(net, "stage", (SIDE, SIDE)).spreads(images)
    operator = Differentiation(net, "stage", (40, 24))
    assert operator.linearise(wide, spreads).responses.shape == features.shape


@pytest.mark.parametrize("first", [True, False])
def test_tokens(first: bool, images: torch.Tensor) -> None:
    """A row of positions, the class token the first of them; images may be on the second axis."""
    module = Tokens(first)
    net = made(module)
    raw = given(module, "block", images)
    assert raw.shape == ((2, 17, 16) if first else (17, 2, 16))
    features = net.features(images, "block")
    wanted = (raw if first else raw.transpose(0, 1)).transpose(1, 2)[:, :, None]
    # Attention is computed in one kernel or in several.
    assert torch.allclose(features, wanted, atol=1e-5)
    assert net.layer("block").channels == 16
    assert net.shapes((SIDE, SIDE))["block"] == (1, 17)
    assert net.receptive_field("block") is not None
    for method in ("map", "gradient"):
        results = [invert(net, each, "block", method, budget=30) for each in (features, raw)]
        assert torch.allclose(results[0].image, results[1].image, atol=1e-2)  # the two kernels again
        reached = net.features(results[0].image, "block")
        residual = (reached - features).flatten(1).norm(dim=1) / features.flatten(1).norm(dim=1)
        assert torch.allclose(residual, torch.tensor(results[0].feature_residual), rtol=1e-3)
    assert float(residual.max()) < 1


def test_vectors(images: torch.Tensor) -> None:
    """Fully connected features, more of them than any covariance would fit in memory for; smaller ones come back."""
    net = made(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * SIDE**2, 1200)))
    assert net.layer("2").channels == 4 * SIDE**2
    result = invert(net, net.features(images, "2"), "2", budget=60)
    assert max(result.feature_residual) < 0.1
    raw = net.features(images, "3").flatten(1)
    result = invert(net, raw, "3", budget=30)
    assert max(result.feature_residual) < 0.3
    for wrong in (raw[:, :-1], raw[:, None], raw[0]):
        with pytest.raises(FeatureError, match="gives N x 1200 x 1 x 1 or N x 1200 features, not"):
            invert(net, wrong, "3")


def test_a_flat_grid_of_one_channel(images: torch.Tensor) -> None:
    """N x h x w, as of depths; and one number for each image."""
    module = Steps(
        lambda own, x: own.end(own.depth(own.part(x).mean(1))), part=Sum(), depth=nn.Identity(), end=nn.Identity()
    )
    net = made(module)
    assert net.features(images, "depth").shape == (2, 1, SIDE, SIDE)
    score = Steps(lambda own, x: own.end(own.part(x).mean((1, 2, 3))), part=Sum(), end=nn.Identity())
    assert made(score).features(images, "end").shape == (2, 1, 1, 1)


def test_poolings_with_indices(images: torch.Tensor) -> None:
    """The values go by the part's name; the places are whole numbers."""
    run = lambda own, x: own.back(*own.pool(own.conv(x).relu()))  # noqa: E731
    module = Steps(
        run, conv=nn.Conv2d(3, 8, 3, padding=1), pool=nn.MaxPool2d(2, return_indices=True), back=nn.MaxUnpool2d(2)
    )
    net = made(module)
    assert net.layer_names == ["conv", "pool", "back"]
    assert torch.equal(net.features(images, "pool"), given(module, "pool", images)[0])
    result = invert(net, net.features(images, "pool"), "pool", budget=30)
    assert max(result.feature_residual) < 0.5
    with pytest.raises(CallError, match=r"pool\[1\] of Steps cannot be read as features: it gives no floating"):
        net.features(images, "pool[1]")


class Several(nn.Module):
    """A tuple, and a dictionary with a list in it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 6, 3, 2)
        self.pair, self.named = (
            Steps(lambda _, x: (x[0] + 1, x[1])),
            Steps(lambda _, x: {"low": x[0], "more": [x[1], 2 * x[1]]}),
        )

    def forward(self, x: torch.Tensor) -> Any:
        return self.named(self.pair((self.one(x), self.two(x))))


def test_tuples_and_dictionaries(images: torch.Tensor) -> None:
    module = Several()
    net = made(module)
    assert net.layer_names == [
        "one", "two", "pair[0]", "pair[1]", "named[low]", "named[more][0]", "named[more][1]",
    ]  # fmt: skip
    raw = given(module, "named", images)
    assert torch.allclose(net.features(images, "named[more][1]"), raw["more"][1], atol=1e-6)
    assert torch.allclose(net.features(images, "pair[0]"), raw["low"], atol=1e-6)
    result = invert(net, net.features(images, "named[more][1]"), "named[more][1]", "gradient", budget=6)
    assert math.isfinite(result.feature_residual[0])
    with pytest.raises(CallError, match=r"no layer 'named'"):
        net.features(images, "named")


def test_what_a_part_gives_in_a_class_of_its_own(images: torch.Tensor) -> None:
    """A dataclass has its fields; of what nobody can look into it is said that there is nothing to read."""
    given = dataclasses.make_dataclass("Given", ["hidden", "count"])
    parts = {
        "named": Steps(lambda _, x: given(x[:, :2], 3)), "closed": Steps(lambda _, x: iter([x])),
        "last": nn.Conv2d(2, 4, 3), "idle": nn.ReLU(),
    }  # fmt: skip
    net = made(Steps(lambda own, x: own.last(own.named(next(own.closed(x))).hidden), **parts))
    assert net.layer_names == ["named", "last"]
    assert torch.allclose(net.features(images, "named"), ((images - 0.5) / 0.25)[:, :2], atol=1e-6)
    reason = "it is not called, or gives no tensors"
    for name in ("closed", "idle"):
        with pytest.raises(CallError, match=f"{name} of Steps cannot be read .*: {reason}"):
            net.layer(name)


def test_what_a_module_gives_in_a_dictionary(images: torch.Tensor) -> None:
    """As torchvision's segmentation does; what a part has given already is no layer again."""
    net = made(Steps(lambda own, x: {"out": own.part(x) * 2, "same": own.part(x)}, part=Sum()))
    whole = f"{WHOLE}[out]"
    assert [name for name in net.layer_names if name.startswith(WHOLE)] == [whole]
    assert torch.allclose(net.features(images, whole), 2 * net.features(images, "part"), atol=1e-6)


def test_results_that_are_no_features() -> None:
    run = lambda own, x: (own.part(x), own.five(x[:, :, None, :, None]), own.waves(x))  # noqa: E731
    waves = Steps(lambda _, x: torch.fft.rfft2(x))
    net = made(Steps(run, part=Sum(), five=nn.Identity(), waves=waves))
    for name, reason in (("five", "of more than four axes"), ("waves", "no floating point numbers")):
        with pytest.raises(CallError, match=f"{name} of Steps cannot be read as features: .*{reason}"):
            net.layer(name)


def test_a_layer_that_says_nothing_yet(images: torch.Tensor) -> None:
    """As the last scale of a residual branch, which is 0 where training begins: said, and not divided by."""
    scaled = nn.BatchNorm2d(8)
    nn.init.zeros_(scaled.weight)
    net = made(Steps(lambda own, x: own.scaled(own.part(x)), part=Sum(), scaled=scaled))
    with pytest.raises(CallError, match="the gradient of scaled of Steps by the image: it is 0 everywhere"):
        invert(net, net.features(images, "scaled"), "scaled", budget=9)
    chain = made(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), scaled))
    with pytest.raises(CallError, match="3 of Sequential gives the same for every image"):
        invert(chain, chain.features(images, "3"), "3", budget=9)
