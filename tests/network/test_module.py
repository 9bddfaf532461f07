import json
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn

import reconstruct
from reconstruct import CallError, FeatureError, from_torch, invert, linear_operator, load_image, load_model, quality
from reconstruct.analysis.crelu.pairing import layer_pairs
from reconstruct.network.activations import activate
from reconstruct.network.calls import WHOLE
from reconstruct.network.module import ModuleNetwork
from reconstruct.network.network import Network
from reconstruct.network.read_points import point
from reconstruct.operators.autodiff import Differentiation
from reconstruct.zoo.user_module import load_user_module
from tests.builders import modules
from tests.builders.modules import IMAGENET, PhasePairs, ResNet, chain, drawn
from tests.builders.user_modules import numpy_inside
from tests.conftest import ROOT, Call

SAMPLE = ROOT / "samples" / "chelsea.jpg"


@pytest.fixture(scope="module")
def net() -> ModuleNetwork:
    """A ResNet-like module, 32 x 32 images."""
    return modules.resnet()


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return load_image(SAMPLE, 32)[None]


def by_hand(module: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """What every part of a module gives, and what its own code says goes on, by hooks that copy at once."""
    found: dict[str, torch.Tensor] = {}
    for name, part in module.named_modules():

        def keep(_: nn.Module, __: object, result: object, name: str = name) -> None:
            label = name
            while label in found:
                label = f"{name}:{int(label.partition(':')[2] or 1) + 1}"
            if isinstance(result, torch.Tensor):
                found[label] = result.detach().clone()

        part.register_forward_hook(keep)
    mean, std = (torch.tensor(each).view(1, -1, 1, 1) for each in IMAGENET)
    with torch.no_grad():
        module.eval()((images - mean) / std)
    return found


def test_layers_are_the_parts_calls(net: ModuleNetwork, image: torch.Tensor) -> None:
    """In the order in which they end, a second call of one part by its number; features are what each gives, although
    activations write in place; and the user's module is left as it was."""
    module = drawn(ResNet())
    wanted = by_hand(drawn(ResNet()), image)
    made = from_torch(module, IMAGENET, input_size=32)
    assert made.name == "ResNet"
    assert module.training
    assert all(values.requires_grad for values in module.parameters())
    assert not any(part._forward_hooks for part in module.modules())
    # The attention gives a tuple, of which one is a tensor; what the module gives as a whole its last part gives.
    assert [name for name in made.layer_names if name != "attention"] == [name for name in wanted if name]
    for name in made.layer_names:
        if name != "attention":
            assert torch.allclose(made.features(image, name), made.as_features(wanted[name], name), atol=1e-5), name
        last = made.layer(name)
        again = activate(made.responses(image, name), last.activation, last.slope)
        assert torch.equal(again, made.features(image, name))
    assert made.layer("layer1.0.relu:2").activation == "relu"
    assert made.layer("layer1").activation == "relu"
    assert made.layer("layer1.0.conv2").activation == "none"
    assert torch.allclose(made(image), wanted[""], atol=1e-5)
    assert net.layer("mix").activation == "none"


def test_a_chain_becomes_operators(image: torch.Tensor) -> None:
    """Norms folded, dropout gone, poolings and activations in their places: the module's features by the zoo's code."""
    made = from_torch(chain(), IMAGENET, input_size=32)
    for name in made.layer_names:
        operators = made.as_chain(name)
        assert type(operators) is Network, name
        wanted = made.features(image, name)
        assert torch.allclose(operators.features(image, name), wanted, atol=1e-5 * float(wanted.abs().max())), name
    last = made.as_chain("9")
    assert last is not None
    assert [(each.name, each.kind, each.activation) for each in last.layers] == [
        ("0", "conv", "relu"), ("3", "max_pool", "none"), ("5", "conv", "relu6"), ("7", "avg_pool", "none"),
        ("9", "conv", "leaky_relu"),
    ]  # fmt: skip


def test_crelu_and_avr_as_people_write_them(image: torch.Tensor) -> None:
    """A chain with CReLU at the first layer: its features invert exactly, by the paper's linear algorithm too."""
    made = from_torch(drawn(PhasePairs()), IMAGENET, input_size=32)
    found = made.as_chain("out")
    assert found is not None
    assert [each.activation for each in found.layers] == ["crelu", "relu", "avr"]
    target = made.features(image, "conv1")
    result = invert(made, target, "conv1", "linear", budget=2000, tolerance=1e-6)
    assert result.feature_residual[0] < 1e-4


def test_what_is_no_chain(net: ModuleNetwork) -> None:
    """Up to the first sum or concatenation there is one."""
    found = {name for name in net.layer_names if net.as_chain(name) is not None}
    inside = {"layer1.0.conv1", "layer1.0.norm", "layer1.0.relu", "layer1.0.conv2"}
    assert found == {"stem.0", "stem.1", "stem.2", "stem", *inside}


@pytest.mark.parametrize("change", ["uneven", "means", "twice"])
def test_convolutions_and_poolings_that_are_no_operators(change: str, image: torch.Tensor) -> None:
    """Refused as operators, run as modules."""
    odd: nn.Module = nn.Identity()
    match change:
        case "uneven":
            odd = nn.Conv2d(4, 4, (3, 1))
        case "means":
            odd = nn.AvgPool2d(3, 2, ceil_mode=True)
        case "twice":
            odd = nn.Sequential(nn.ReLU(), nn.LeakyReLU(0.5))
    made = from_torch(drawn(nn.Sequential(nn.Conv2d(3, 4, 3), odd)), IMAGENET, input_size=32)
    assert made.as_chain("0") is not None
    assert made.as_chain("1") is None
    assert made.features(image, "1").shape[1] == 4


@pytest.mark.parametrize("layer", ["layer1.0", "layer1.1.conv2", "down", "mix"])
def test_products_with_the_jacobian(
    net: ModuleNetwork, image: torch.Tensor, layer: str, generator: torch.Generator
) -> None:
    """The dot test, <J v, u> = <v, J^T u>, relative to the norms, for each image of a batch and for some of them; and
    J v against a central difference in float64."""
    images = torch.cat((image, image.flip(3), image.flip(2)))
    operators = Differentiation(net, layer, (32, 32))
    at = operators.linearise(images)
    # With gradients attention is computed in another order.
    assert torch.allclose(at.responses, net.responses(images, layer), atol=1e-5)
    for chosen in (torch.tensor([0, 1, 2]), torch.tensor([2, 0])):
        part = at[chosen]
        v = torch.randn(len(chosen), 3, 32, 32, generator=generator)
        u = torch.randn(part.responses.shape, generator=generator)
        forward, back = operators.product(part, v), operators.transposed(part, u)
        left, right = ((a.double() * b.double()).flatten(1).sum(1) for a, b in ((forward, u), (v, back)))
        bound = forward.flatten(1).norm(dim=1) * u.flatten(1).norm(dim=1)
        # Sums of some thousand float32 products through a handful of layers.
        assert float(((left - right).abs() / bound).max()) < 1e-4
    exact = from_torch(drawn(ResNet()), IMAGENET, input_size=32)
    exact.module.double()
    wide, step = images[:1].double(), torch.randn(1, 3, 32, 32, generator=generator, dtype=torch.float64)
    exact.mean, exact.std = exact.mean.double(), exact.std.double()
    size = 1e-7
    difference = (exact.responses(wide + size * step, layer) - exact.responses(wide - size * step, layer)) / (2 * size)
    product = Differentiation(exact, layer, (32, 32)).product(
        Differentiation(exact, layer, (32, 32)).linearise(wide), step
    )
    # A kink between the two points would be seen; at this distance there is next to none.
    assert float((product - difference).norm() / difference.norm()) < 1e-4


def test_map_runs_through_it_and_beats_gradient(net: ModuleNetwork, image: torch.Tensor) -> None:
    """Behind two residual blocks with random weights."""
    features = net.features(image, "layer1")
    psnr = {}
    for method in ("map", "gradient"):
        result = invert(net, features, "layer1", method, budget=150)
        assert result.status == ["budget"]
        assert result.forward_passes[0] <= 150
        reached = net.features(result.image, "layer1")
        residual = float((reached - features).norm() / features.norm())
        assert result.feature_residual[0] == pytest.approx(residual, rel=1e-3)
        psnr[method] = quality(image, result.image).psnr[0]
    assert psnr["map"] > 25
    assert psnr["map"] > psnr["gradient"] + 3


def test_batches_are_independent(net: ModuleNetwork, image: torch.Tensor) -> None:
    images = torch.cat((image, image.flip(3)))
    both = invert(net, net.features(images, "layer1"), "layer1", budget=45).image
    alone = invert(net, net.features(images[1:], "layer1"), "layer1", budget=45).image
    assert torch.allclose(both[1:], alone, atol=1e-3)


def test_methods_that_need_a_chain_say_so(net: ModuleNetwork, image: torch.Tensor) -> None:
    features = net.features(image, "layer1")
    for method in ("linear", "wiener"):
        with pytest.raises(CallError, match="is none up to layer1: map and gradient"):
            invert(net, features, "layer1", method)
    with pytest.raises(CallError, match="no layer 'layer3'; did you mean"):
        net.features(image, "layer3")
    with pytest.raises(CallError, match="no chain of convolutions up to down"):
        linear_operator(net, "down", 32, at=image[0])
    with pytest.raises(FeatureError, match="is negative"):
        invert(net, features - 1, "layer1")


@pytest.mark.parametrize("layer", ["layer1.0.relu", "layer1.1.relu:2", "down"])
def test_taps(net: ModuleNetwork, image: torch.Tensor, layer: str) -> None:
    """CReLU at a ReLU layer's responses: features of both phases, from which more comes back than from one.

    A layer without activation says the same either way.
    """
    at = point(net, layer, "crelu")
    features = at.features(image)
    assert torch.allclose(features, activate(net.responses(image, layer), "crelu"), atol=1e-4)
    assert torch.allclose(point(net, layer, "responses").features(image), net.responses(image, layer), atol=1e-4)
    psnr = [
        quality(image, invert(each.net, each.features(image), layer, budget=150).image).psnr[0]
        for each in (at, point(net, layer))
    ]
    assert net.layer(layer).activation == ("none" if layer == "down" else "relu")
    assert psnr[0] == pytest.approx(psnr[1]) if layer == "down" else psnr[0] > psnr[1]
    with pytest.raises(CallError, match="unknown tap"):
        point(net, layer, "swish")


def test_the_receptive_field_is_measured() -> None:
    """For plain convolutions it is what kernels and strides say; a response that sees the whole image has its side."""
    made = from_torch(drawn(nn.Sequential(nn.Conv2d(3, 4, 5, 2, 2), nn.Conv2d(4, 4, 3, 1, 1))), IMAGENET, input_size=32)
    for name in made.layer_names:
        exact = made.as_chain(name)
        assert exact is not None
        # 99.9 % of the energy may be in a square smaller by the outermost pixels; its middle is rounded.
        assert -2 <= exact.receptive_field(name) - made.receptive_field(name) <= 4
    assert modules.resnet().receptive_field("mix") == 32


def test_work_is_counted() -> None:
    made = from_torch(chain(), IMAGENET, input_size=32)
    counted = made.multiplications("5", (32, 32))["5"]
    assert counted == 16 * 75 * 16**2 + 24 * 16 * 9 * 8**2


def test_other_sizes(net: ModuleNetwork) -> None:
    """An image of another size; the size is asked for where it cannot be told."""
    image = load_image(SAMPLE, (40, 36))[None]
    features = net.features(image, "stem")
    with pytest.raises(FeatureError, match=r"give the image's size=\(H, W\)"):
        invert(net, features, "stem")
    assert invert(net, features, "stem", size=(40, 36), budget=20).image.shape == image.shape


def test_wrong_modules() -> None:
    with pytest.raises(CallError, match="Linear cannot be run on images of 32 x 32 pixels"):
        from_torch(nn.Linear(7, 2), IMAGENET, input_size=32)
    with pytest.raises(CallError, match="no torch module, but of the type str"):
        from_torch("resnet18", IMAGENET)  # type: ignore[arg-type]
    with pytest.raises(CallError, match="std above 0"):
        from_torch(chain(), ((0.0,) * 3, (0.0,) * 3))
    for path, message in (
        ("tests.builders.modules:nothing", "has no function nothing"),
        ("tests.nowhere:plain", "cannot be imported"),
        ("tests.builders.modules:IMAGENET", "is tuple, not a function"),
        ("tests.builders.modules:broken", "gives a int"),
        ("tests.builders.modules:drawn", "called without arguments"),
        # What goes wrong inside is no matter of arguments, whatever its kind.
        ("tests.builders.user_modules:wrong_sum", r"wrong_sum fails: TypeError in user_modules\.py, line \d+: unsupp"),
        ("tests.builders.user_modules:no_file", r"no_file fails: FileNotFoundError in user_modules\.py, line \d+: "),
    ):
        with pytest.raises(CallError, match=message):
            load_user_module(path)


def test_the_command_line(call: Call, tmp_path: Path) -> None:
    """--model package.module:function: table, pictures, records; chains with every method, the rest without linear."""
    model = ("--model", "tests.builders.modules:resnet", "--output", tmp_path, "--budget", 30)
    status, out, err = call(SAMPLE, *model, "--layer", "stem,layer1.0", "--method", "map,gradient", "--json")
    assert status == 0, err
    assert [(each["layer"], each["method"]) for each in json.loads(out)] == [
        (layer, method) for layer in ("stem", "layer1.0") for method in ("map", "gradient")
    ]
    assert (tmp_path / "chelsea.resnet.layer1.0.map.png").is_file()
    status, out, _ = call("models", "tests.builders.modules:resnet")
    assert status == 0
    for word in ("resnet: torch module ResNet", "layer1.0.relu:2", "12x16x16"):
        assert word in out
    status, _, err = call(SAMPLE, *model, "--layer", "layer1.0", "--method", "linear")
    assert (status, err.count("\n")) == (2, 1)
    status, _, err = call(SAMPLE, "--model", "tests.builders.modules:resnet", "--layer", "layer9")
    assert status == 2
    assert "layer1.0" in err


def test_analyses_look_into_the_chain_that_a_module_begins_with(call: Call, tmp_path: Path) -> None:
    """Names, shapes and numbers of its convolutions; a module that begins with none says so."""
    chain = modules.resnet().longest_chain()
    assert [each.name for each in chain.layers] == ["stem.0", "layer1.0.conv1", "layer1.0.conv2"]
    arguments = ("--model", "tests.builders.modules:resnet", "--output", tmp_path, "--json")
    status, out, err = call("analyze", "pairs", *arguments)
    assert status == 0, err
    assert "left out, for only filters of the same channels are paired: layer1.0.conv2 of resnet" in err
    expected = [layer_pairs(chain, name).record() for name in chain.layer_names[:2]]
    found = json.loads(out)
    assert [{key: each[key] for key in expected[0]} for each in found[:2]] == expected
    # Pairs are of filters alone, and so of those beyond the chain as well.
    assert [each["layer"] for each in found[2:]] == ["layer1.1.conv1", "down"]
    for analysis in (("complexity",), ("rectify", SAMPLE, "--layer", "stem.0"), ("spectrum", SAMPLE)):
        status, _, err = call("analyze", *analysis, *arguments)
        assert status == 0, err
    made = from_torch(drawn(nn.Sequential(nn.Conv2d(3, 3, (3, 1)), nn.Conv2d(3, 4, 3))), IMAGENET, input_size=32)
    with pytest.raises(CallError, match="does not begin with a chain"):
        made.longest_chain()


def test_efficientnet_by_name(photograph: torch.Tensor) -> None:
    """Its stem by map, in a few passes: far above what gradient finds in as many."""
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra 'efficientnet'")
    net = load_model("efficientnet_lite0")
    image = photograph[..., :96, :96]
    features = net.features(image, "_swish")
    psnr = {
        method: quality(image, invert(net, features, "_swish", method, size=96, budget=60).image).psnr[0]
        for method in ("map", "gradient")
    }
    assert psnr["map"] > psnr["gradient"] + 6
    assert reconstruct.load_model("efficientnet_lite0", random_weights=1).layer_names == net.layer_names


@pytest.mark.parametrize(
    "normalise",
    [
        (0.5, 0.5),
        ([0.5] * 3,),
        ([0.5] * 3, [1.0] * 3, [1.0] * 3),
        ([0.5] * 3, [1.0] * 2),
        (["half"] * 3, [1.0] * 3),
        ([float("nan")] * 3, [1.0] * 3),
        ([0.0] * 3, [0.0] * 3),
        ([1e300] * 3, [1.0] * 3),  # infinite in float32
        ([0.0] * 3, [1e-320] * 3),  # 0 there
        ([10**400] * 3, [1.0] * 3),
    ],
)
def test_a_normalisation_that_float32_does_not_hold(normalise: Any) -> None:
    with pytest.raises(CallError, match=r"normalise is \(mean, std\)"):
        from_torch(nn.Conv2d(3, 4, 3), normalise, input_size=16)


@pytest.mark.parametrize("size", [None, True, 16.0, "16", (16,), (16.0, 16.0), (16, 0)])
def test_sizes_that_no_image_has(size: Any) -> None:
    with pytest.raises(CallError, match="input_size is a side in pixels"):
        from_torch(nn.Conv2d(3, 4, 3), input_size=size)


def test_without_a_normalisation_it_is_of_as_many_channels_as_it_takes() -> None:
    for channels in (1, 2, 6):
        net = from_torch(nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU()), input_size=8)
        assert (net.channels, net.normalisation) == (channels, ((0.0,) * channels, (1.0,) * channels))
        image = torch.rand(1, channels, 8, 8)
        torch.testing.assert_close(net.features(image, "0"), net.module[0](image))
    # One whose colours become grey inside is of three channels, although its convolution takes one.
    inside = nn.Sequential(nn.AvgPool3d((3, 1, 1)), nn.Conv2d(1, 4, 3))
    assert from_torch(inside, input_size=8).channels == 3
    with pytest.raises(CallError, match="cannot be run on images of 8 x 8 pixels"):
        from_torch(nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(5, 4, 3)), input_size=8)


def test_sizes_may_be_numbers_of_numpy() -> None:
    assert from_torch(nn.Conv2d(3, 4, 3), input_size=numpy.int64(16)).input_area == (16, 16)  # type: ignore[arg-type]


def test_no_receptive_field_where_the_module_cannot_be_differentiated() -> None:
    """NumPy inside takes no tensor with a gradient: None, and the model is described all the same."""
    net = numpy_inside()
    assert {name: net.receptive_field(name) for name in net.layer_names} == {"conv": 3, WHOLE: None}
