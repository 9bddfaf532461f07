"""Modules that torch itself has a word to say about: they work, or a sentence says why not."""

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import checkpoint

from reconstruct import CallError, ReconstructWarning, from_torch, invert
from reconstruct.network.calls import WHOLE
from reconstruct.network.module import ModuleNetwork
from tests.builders.user_modules import HALF, SIDE, WITHOUT_GRADIENT, Steps, Sum, checkpointed, without_gradient

parametrizations, old = nn.utils.parametrizations, nn.utils


@pytest.fixture
def images(generator: torch.Generator) -> torch.Tensor:
    return torch.rand(2, 3, SIDE, SIDE, generator=generator)


def made(module: Any) -> ModuleNetwork:
    return from_torch(module, HALF, input_size=SIDE)


def truth(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = module.eval()((images - 0.5) / 0.25)
    return result


NORMED = {
    "weight": parametrizations.weight_norm,
    "spectral": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "old weight": old.weight_norm,
    "old spectral": old.spectral_norm,
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("kind", NORMED)
def test_weights_that_are_computed(kind: str, trained: bool, images: torch.Tensor) -> None:
    """Fresh, and in the middle of a training: their own features, no layer that is a weight, and they are chains."""
    module = nn.Sequential(NORMED[kind](nn.Conv2d(3, 8, 3, padding=1)), nn.LeakyReLU(0.2))
    if trained:
        module.train()(images).square().mean().backward()
        assert not module[0].weight.is_leaf
    kept = copy.deepcopy(module.state_dict())
    net = made(module)
    assert net.layer_names == ["0", "1"]
    assert torch.allclose(net.features(images, "1"), truth(module, images), atol=1e-6)
    chain = net.as_chain("1")
    assert chain is not None
    assert torch.allclose(chain.features(images, "1"), net.features(images, "1"), atol=1e-5)
    assert [net.receptive_field(name) for name in net.layer_names] == [3, 3]
    assert all(torch.equal(values, kept[name]) for name, values in module.state_dict().items())
    # In other precision too, whose copy is made of the copy.
    assert invert(net.double(), net.features(images, "1"), "1", budget=12).image.shape == images.shape


def test_weight_norm_after_its_weights_have_changed(images: torch.Tensor) -> None:
    """The weight that the last run has computed is not the one of now."""
    net = made(nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 8, 3)), nn.ReLU()))
    before = net.features(images, "1")
    with torch.no_grad():
        net.module[0].parametrizations.weight.original0.mul_(2)  # type: ignore[index, union-attr]
    assert not torch.allclose(net.features(images, "1"), before)
    chain = net.as_chain("1")
    assert chain is not None
    assert torch.allclose(chain.features(images, "1"), net.features(images, "1"), atol=1e-5)


def test_lazy_parts_have_no_weights_yet(images: torch.Tensor) -> None:
    module = nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU())
    with pytest.raises(CallError, match=r"no weights yet: 0.weight is lazy, .* run it on an image before"):
        made(module)
    module(images)
    assert torch.allclose(made(module).features(images, "1"), truth(module, images), atol=1e-6)
    with pytest.raises(CallError, match=r"no weights: 0.weight is on the device meta"):
        made(nn.Sequential(nn.Conv2d(3, 8, 3)).to("meta"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_torchscript_is_read_as_a_whole(images: torch.Tensor) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval()
    for script in (torch.jit.script(module), torch.jit.trace(module, images)):
        with pytest.warns(ReconstructWarning, match="Sequential is a TorchScript: its parts cannot be read"):
            net = made(script)
        assert net.layer_names == [WHOLE]
        assert torch.allclose(net.features(images, WHOLE), truth(module, images), atol=1e-6)
        assert invert(net, net.features(images, WHOLE), WHOLE, "gradient", budget=6).image.shape == images.shape
        assert next(iter(script.parameters())).requires_grad


@pytest.mark.parametrize("dynamic", [False, True])
def test_an_exported_program_has_its_parts(dynamic: bool, images: torch.Tensor) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Sequential(nn.ReLU(), Sum(8))).eval()
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    program = torch.export.export(module, (images,), dynamic_shapes=shapes)
    net = made(program)  # type: ignore[arg-type]
    assert net.layer_names == ["0", "1", "2.0", "2.1.one", "2.1.two", "2.1", "2"]
    plain = made(module)
    for layer in net.layer_names:
        assert torch.allclose(net.features(images, layer), plain.features(images, layer), atol=1e-6), layer
    features = net.features(images[:1], "2")
    assert torch.allclose(net.features(images, "2")[:1], features, atol=1e-6)
    assert invert(net, features, "2", budget=12).image.shape == images[:1].shape
    assert invert(net.double(), features, "2", "gradient", budget=6).image.shape == images[:1].shape
    if not dynamic:  # its graph alone takes as many images as it was exported with
        with pytest.raises(CallError, match="cannot be run on images of 32 x 32 pixels: Guard failed"):
            made(program.module())


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_hides_nothing(reentrant: bool, images: torch.Tensor) -> None:
    """What is kept for training hides no gradient, and is torch's own again afterwards."""
    torch.manual_seed(1)
    module = checkpointed(reentrant=reentrant)
    net = made(module)
    features = net.features(images, "last")
    assert torch.allclose(features, truth(module, images), atol=1e-6)
    plain = made(nn.Sequential(module.part, module.last))  # type: ignore[arg-type]
    for method in ("map", "gradient"):
        found, wanted = (
            invert(each, features, layer, method, budget=6) for each, layer in ((net, "last"), (plain, "1"))
        )
        assert torch.allclose(found.image, wanted.image, atol=1e-3)
    assert checkpoint.CheckpointFunction.__module__ == "torch.utils.checkpoint"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["compile", "compiled part", "in place", "parallel"])
def test_what_is_wrapped_is_taken_out(kind: str, images: torch.Tensor) -> None:
    """Compiled parts go by the names that they have without, those of ``DataParallel`` by their own, as everywhere in
    torch; the user's module stays wrapped."""
    plain = nn.Sequential(Sum(), nn.Sequential(nn.Conv2d(8, 4, 3), nn.ReLU()))
    wanted, wrapped = truth(plain, images), plain
    match kind:
        case "compile":
            wrapped = torch.compile(plain)  # type: ignore[assignment]
        case "compiled part":
            wrapped = nn.Sequential(torch.compile(plain[0]), plain[1])
        case "in place":
            plain[0].compile()
        case "parallel":
            wrapped = nn.Sequential(plain[0], nn.DataParallel(plain[1]))
    net = made(wrapped)
    inside = ["1.module.0", "1.module.1", "1.module"] if kind == "parallel" else ["1.0", "1.1"]
    assert net.layer_names == ["0.one", "0.two", "0", *inside, "1"]
    assert torch.allclose(net.features(images, "1"), wanted, atol=1e-6)
    assert kind != "compiled part" or "_orig_mod" in wrapped[0]._modules


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("kind", WITHOUT_GRADIENT)
def test_what_has_no_gradient_says_so(kind: str, images: torch.Tensor) -> None:
    """Its features are read; what differentiates says why it cannot; and no receptive field is made up."""
    module = without_gradient(kind)
    net = made(module)
    features = net.features(images, "last")
    assert torch.allclose(features, truth(module, images), atol=1e-6)
    once = kind == "once"
    with pytest.raises(CallError, match="map differentiates" if once else "map needs the gradient of last") as told:
        invert(net, features, "last", budget=6)
    assert len(str(told.value)) < 500
    if once:
        assert invert(net, features, "last", "gradient", budget=6).image.shape == images.shape
        assert net.receptive_field("last") is not None
    else:
        with pytest.raises(CallError, match="method gradient needs the gradient of last"):
            invert(net, features, "last", "gradient", budget=6)
    if kind not in ("once", "rounded"):
        assert net.receptive_field("last") is None


def quantised(make: Callable[[], nn.Module]) -> nn.Module:
    """A module in int8, without what torch warns of while it is made."""
    with warnings.catch_warnings(action="ignore"):
        return make()


def test_int8_of_each_image_alone(images: torch.Tensor) -> None:
    """Dynamic quantisation scales by the batch, and no gradient comes back from it: both are told, and no more."""
    plain = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Flatten(), nn.Linear(4 * 15 * 15, 6)).eval()
    module = quantised(lambda: torch.ao.quantization.quantize_dynamic(plain, {nn.Linear}, dtype=torch.qint8))
    with pytest.warns(ReconstructWarning, match="takes the images of a batch together"):
        net = made(module)
    assert net.receptive_field("2") is None
    with pytest.raises(CallError, match="none reaches it"):
        invert(net, net.features(images[:1], "2"), "2", budget=6)


@pytest.mark.filterwarnings("ignore:.*quantiz", "ignore:.*must run observer")
def test_whole_numbers_inside(images: torch.Tensor) -> None:
    """A network in int8: its features, dequantised, at every part that gives images'; no gradient."""
    quantisation = torch.ao.quantization
    parts = {"q": quantisation.QuantStub(), "conv": nn.Conv2d(3, 8, 3), "end": quantisation.DeQuantStub()}
    module: Any = Steps(lambda own, x: own.end(own.conv(own.q(x))), **parts).eval()
    module.qconfig = quantisation.default_qconfig
    quantisation.prepare(module, inplace=True)
    module(images)
    quantisation.convert(module, inplace=True)
    net = made(module)
    assert net.layer_names == ["q", "conv", "end"]
    for layer in ("conv", "end"):
        assert torch.equal(net.features(images, layer), truth(module, images))
    with pytest.raises(CallError, match="none reaches it"):
        invert(net, net.features(images, "end"), "end", budget=6)


@pytest.mark.parametrize("kind", ["autocast", "cast", "half module", "double module"])
def test_other_precisions(kind: str, images: torch.Tensor) -> None:
    """Inside, or of the whole module: features are of the network's own type, and are inverted. Images of any."""
    run = {
        "autocast": torch.autocast("cpu", torch.bfloat16)(lambda own, x: own.last(own.part(x))),
        "cast": lambda own, x: own.last(own.part(x).bfloat16().float()),
    }.get(kind, lambda own, x: own.last(own.part(x)))
    module: nn.Module = Steps(run, part=Sum(), last=nn.Conv2d(8, 8, 3, 2))
    module = {"half module": module.half, "double module": module.double}.get(kind, lambda: module)()
    net = made(module)
    features = net.features(images.double(), "last")
    assert features.dtype == torch.float32
    for method in ("map", "gradient"):
        for given in (features, features.double()):
            result = invert(net, given, "last", method, budget=12)
            assert result.image.dtype == torch.float32
            assert math.isfinite(result.feature_residual[0])


def test_a_part_alone_and_what_no_part_gives(images: torch.Tensor) -> None:
    """A lone convolution is a chain; what a function ends with is a layer; what a part gives is none again."""
    alone = nn.Conv2d(3, 8, 3, 2, 1)
    net = made(alone)
    assert net.layer_names == [WHOLE]
    assert torch.allclose(net.features(images, WHOLE), truth(alone, images), atol=1e-6)
    assert net.as_chain(WHOLE) is not None
    assert invert(net, net.features(images, WHOLE), WHOLE, "gradient", budget=6).image.shape == images.shape
    ends = Steps(lambda own, x: own.part(x).relu(), part=nn.Conv2d(3, 8, 3))
    net = made(ends)
    assert net.layer_names == ["part", WHOLE]
    assert torch.allclose(net.features(images, WHOLE), truth(ends, images), atol=1e-6)
    chain = net.as_chain(WHOLE)
    assert chain is not None
    assert [each.activation for each in chain.layers] == ["relu"]
    assert made(Sum()).layer_names == ["one", "two", WHOLE]
    assert made(nn.Sequential(nn.Conv2d(3, 8, 3))).layer_names == ["0"]


def test_errors_of_the_module_are_a_sentence(images: torch.Tensor) -> None:
    """At other sizes too, and where its own code catches everything."""
    net = made(nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Flatten(), nn.Linear(4 * 15 * 15, 5)))
    for run in (net, lambda given: net.features(given, "2"), lambda given: net.responses(given, "2")):
        with pytest.raises(CallError, match="Sequential cannot be run on images of 40 x 40 pixels: mat1 and mat2"):
            run(torch.rand(1, 3, 40, 40))

    def guarded(own: Any, x: torch.Tensor) -> torch.Tensor:
        try:
            return own.part(x)  # type: ignore[no-any-return]
        except Exception:
            return x

    module = Steps(guarded, part=Sum())
    assert torch.allclose(made(module).features(images, "part"), truth(module, images), atol=1e-6)
