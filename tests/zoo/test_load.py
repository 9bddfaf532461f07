import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from reconstruct import Convolution, ModelError, describe, frame, load_model, model_names
from reconstruct.network.network import Network
from reconstruct.network.surgery import randomise
from reconstruct.zoo.export import export
from reconstruct.zoo.registry import MODELS
from reconstruct.zoo.specification import read_architecture
from tests.builders.specifications import NORMED, POOLED, SMALL, write

# Weights without biases. Table 5 of Shang et al. prints 9.4M of the first, 10.1M, 4.7M and 8.6M; the others it has not.
PARAMETERS = {
    "all_cnn_b": 9_367_584,
    "crelu_conv1_4": 10_139_680,
    "crelu_conv1_7": 11_761_696,
    "crelu_conv1_9": 16_627_744,
    "crelu_all": 4_683_792,
    "crelu_conv1_conv4_conv7": 8_600_592,
    "avr_conv1_4": 9_367_584,
    "avr_conv1_7": 9_367_584,
    "avr_conv1_9": 9_367_584,
}
# Table 1 prints 1.4M, 1.4M, 2.8M, 0.7M and 5.6M: twice and four times 1.4M, where ours round to 2.7M and 5.5M.
CIFAR_PARAMETERS = {
    "convpool_cnn_c": 1_368_480,
    "convpool_cnn_c_avr": 1_368_480,
    "convpool_cnn_c_crelu": 2_734_368,
    "convpool_cnn_c_crelu_half": 685_200,
    "convpool_cnn_c_double": 5_464_896,
}
# Of the blog post's network; a CReLU layer has half the filters, and the next layer as many inputs as before.
VGG = 9 * (3 * 64 + 64 * 64 + 64 * 128 + 128 * 128 + 128 * 256 + 2 * 256 * 256 + 256 * 512 + 5 * 512 * 512)
VGG += 512 * 512 + 512 * 10
VGG_PARAMETERS = {
    "cifar_vgg": VGG,
    "cifar_vgg_crelu_conv1": VGG - 9 * 3 * 32,
    "cifar_vgg_crelu_conv1_3": VGG - 9 * (3 * 32 + 64 * 64),
    "cifar_vgg_crelu_conv1_3_5": VGG - 9 * (3 * 32 + 64 * 64 + 128 * 128),
}
# As torchvision publishes them, with biases; and the sides of the layers' grids.
PUBLISHED = {
    "alexnet": (61_100_840, [55, 27, 27, 13, 13, 13, 13, 6, 1, 1, 1]),
    "vgg16": (138_357_544, [224, 224, 112, 112, 112, 56, 56, 56, 56, 28, 28, 28, 28, 14, 14, 14, 14, 7, 1, 1, 1]),
}


def test_the_zoo_is_the_papers() -> None:
    assert set(model_names()) == {*PARAMETERS, *CIFAR_PARAMETERS, *VGG_PARAMETERS, *PUBLISHED, "cifar_split"}
    assert model_names()[:5] == ["alexnet", "all_cnn_b", "cifar_split", "cifar_vgg", "convpool_cnn_c"]


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_and_shapes(name: str) -> None:
    architecture = read_architecture(name)
    assert architecture.parameters() == PARAMETERS[name]
    net = load_model(name, random_weights=0)
    counted = sum(value.numel() for key, value in net.state_dict().items() if key.endswith("weight"))
    assert counted == PARAMETERS[name]
    grids = [size[0] for size in architecture.response_sizes((227, 227)).values()]
    assert grids == [55, 55, 28, 28, 28, 14, 14, 14, 7, 7, 7, 7]
    assert tuple(net(torch.rand(1, 3, 227, 227)).shape) == (1, 1000)
    assert architecture.layers[8].dropout == 0.5
    for layer in architecture.layers:
        expected = 2 if layer.activation == "crelu" else 1
        assert net.features(torch.rand(1, 3, 227, 227), layer.name).shape[1] == expected * layer.filters


@pytest.mark.parametrize("name", CIFAR_PARAMETERS)
def test_parameters_and_shapes_of_the_cifar_models(name: str) -> None:
    architecture = read_architecture(name)
    assert architecture.parameters() == CIFAR_PARAMETERS[name]
    assert (architecture.input_size, architecture.input_dropout) == (32, 0.2)
    net = load_model(name, random_weights=0)
    counted = sum(value.numel() for key, value in net.state_dict().items() if key.endswith("weight"))
    assert counted == CIFAR_PARAMETERS[name]
    sizes = architecture.response_sizes((32, 32))
    assert [size[0] for size in sizes.values()] == [32, 32, 32, 16, 16, 16, 16, 8, 6, 6, 6]
    assert list(sizes)[3:8] == ["pool1", "conv4", "conv5", "conv6", "pool2"]
    assert [layer.dropout for layer in architecture.layers] == [0, 0, 0, 0.5, 0, 0, 0, 0.5, 0, 0, 0]
    assert tuple(net(torch.rand(2, 3, 32, 32)).shape) == (2, 10)
    for layer in net.layers:
        assert net.features(torch.rand(1, 3, 32, 32), layer.name).shape == (1, layer.channels, *sizes[layer.name])
    first = {"convpool_cnn_c_double": 192, "convpool_cnn_c_crelu_half": 48}.get(name, 96)
    assert [layer.filters for layer in net.layers_with_weights] == [*3 * [first], *5 * [2 * first], 10]
    activation = {"convpool_cnn_c_avr": "avr", "convpool_cnn_c_crelu": "crelu", "convpool_cnn_c_crelu_half": "crelu"}
    activations = [layer.activation for layer in net.layers_with_weights]
    assert activations == [*8 * [activation.get(name, "relu")], "relu"]


@pytest.mark.parametrize("name", VGG_PARAMETERS)
def test_parameters_and_shapes_of_the_cifar_vggs(name: str) -> None:
    architecture = read_architecture(name)
    assert architecture.parameters() == VGG_PARAMETERS[name]
    sides = [size[0] for size in architecture.response_sizes((32, 32)).values()]
    assert sides == [32, 32, 16, 16, 16, 8, 8, 8, 8, 4, 4, 4, 4, 2, 2, 2, 2, 1, 1, 1]
    net = load_model(name, random_weights=0)
    assert sum(value.numel() for key, value in net.state_dict().items() if "weight" in key) == VGG_PARAMETERS[name]
    assert tuple(net(torch.rand(2, 3, 32, 32)).shape) == (2, 10)
    with_norm = [layer.name for layer in architecture.layers if layer.batch_norm]
    assert with_norm == [*(f"conv{i}" for i in range(1, 14)), "fc14"]
    dropped = {layer.name: layer.dropout for layer in architecture.layers if layer.dropout}
    after = {f"conv{i}": 0.4 for i in (3, 5, 6, 8, 9, 11, 12)}
    assert dropped == {"conv1": 0.3, **after, "pool5": 0.5, "fc14": 0.5}
    crelu = [layer.name for layer in architecture.layers if layer.activation == "crelu"]
    assert crelu == [f"conv{i}" for i in name.removeprefix("cifar_vgg").removeprefix("_crelu_conv").split("_") if i]
    assert [layer.channels for layer in architecture.layers] == [
        layer.channels for layer in read_architecture("cifar_vgg").layers
    ]


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_shapes_of_the_published_models(name: str) -> None:
    """Without allocating them."""
    architecture = read_architecture(name)
    total, sides = PUBLISHED[name]
    with torch.device("meta"):
        net = Network(architecture).eval()
        assert tuple(net(torch.rand(1, 3, 224, 224)).shape) == (1, 1000)
        last = net.features(torch.rand(1, 3, 224, 224), "fc6")
        assert tuple(last.shape) == (1, 4096, 1, 1)
    assert sum(parameter.numel() for parameter in net.parameters()) == total
    biases = sum(layer.filters for layer in net.layers_with_weights)
    assert architecture.parameters() == total - biases
    assert [size[0] for size in architecture.response_sizes((224, 224)).values()] == sides
    assert sorted(architecture.torchvision) == sorted(layer.name for layer in net.layers_with_weights)


def with_statistics(net: Network) -> Network:
    """Batch normalisations as training might leave them."""
    generator = torch.Generator().manual_seed(1)
    for key, value in net.state_dict().items():
        if "_bn." in key and value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5 * ("bias" not in key))
    return net.eval().requires_grad_(False)


def test_batch_normalisation_of_the_zoo_is_folded() -> None:
    """From a seed: the same weights as without, each filter by 1 / sqrt(1 + eps), that of fresh statistics."""
    loaded = load_model("cifar_vgg_crelu_conv1_3_5", random_weights=2)
    plain = randomise(Network(read_architecture("cifar_vgg_crelu_conv1_3_5")), 2)
    assert not any("_bn" in key for key in loaded.state_dict())
    assert not any(layer.batch_norm for layer in loaded.layers)
    torch.testing.assert_close(loaded.convolution("conv3").weight * (1 + 1e-5) ** 0.5, plain.conv3.weight.detach())
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    scores = plain.eval()(images).detach()
    torch.testing.assert_close(loaded(images), scores, rtol=0, atol=1e-4 * float(scores.abs().max()))


def test_a_weights_file_with_batch_normalisation(tmp_path: Path) -> None:
    path = write(tmp_path, "mine", NORMED)
    architecture = read_architecture(path)
    net = with_statistics(randomise(Network(architecture), 0))
    images = torch.rand(3, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    expected = net(images)
    # Statistics that fold_batch_norm had to take into account.
    assert (expected - randomise(Network(architecture), 0).eval()(images)).abs().max() > 0.1 * expected.abs().max()
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    loaded = load_model(path)
    assert not any("_bn" in key for key in loaded.state_dict())
    torch.testing.assert_close(loaded(images), expected, rtol=1e-4, atol=1e-5)
    assert describe(path)["layers"][0]["condition_number"] > 1
    # What stops at a layer, and what training exports of it.
    part = {key: value for key, value in net.state_dict().items() if key[0] == "a"}
    save_file(part, tmp_path / "w.safetensors")
    short = load_model(path)
    assert short.layer_names == ["a", "p"]
    torch.testing.assert_close(short.features(images, "p"), net.features(images, "p"), rtol=1e-4, atol=1e-5)
    mine = replace(architecture, name="out")
    trained = Network(mine)
    trained.load_state_dict(net.state_dict())
    exported = export(trained.eval(), tmp_path / "run", classes=["x", "y"], card="")
    again = load_model(str(exported))
    torch.testing.assert_close(again(images), expected, rtol=1e-4, atol=1e-5)
    assert read_architecture(str(exported)).layers == tuple(replace(each, batch_norm=False) for each in mine.layers)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("a_bn.running_var", torch.tensor([1.0, -1, 1, 1]), r"a_bn\.running_var holds a negative number"),
        ("a_bn.running_mean", torch.full((4,), torch.inf), r"a_bn\.running_mean holds a number that is not finite"),
        ("a_bn.weight", torch.ones(5), r"a_bn\.weight is \(5,\), mine needs \(4,\)"),
        ("b_bn.bias", None, r"lacks b_bn\.bias"),
        ("c_bn.bias", torch.ones(2), r"holds c_bn\.bias, which mine has no place for"),
    ],
)
def test_faulty_batch_normalisation_is_refused(
    key: str, value: torch.Tensor | None, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path, "mine", NORMED)
    state = randomise(Network(read_architecture(path)), 0).state_dict() | {key: value}
    save_file({name: each for name, each in state.items() if each is not None}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=message):
        load_model(path)


def test_shipped_weights_load_whole_and_have_a_card() -> None:
    """Those of 227 pixels have their thousand classes; the small ones stop before the classes, which are CIFAR's."""
    shipped = {
        "all_cnn_b": "conv12",
        "crelu_conv1_4": "conv12",
        "convpool_cnn_c": "conv8",
        "convpool_cnn_c_crelu": "conv8",
        "cifar_split": "pool3",
    }
    assert {path.stem for path in (MODELS / "weights").glob("*.safetensors")} == set(shipped)
    for name, last in shipped.items():
        net = load_model(name)
        assert net.layer_names[-1] == last
        assert not net.training
        assert not any(parameter.requires_grad for parameter in net.parameters())
        card = (MODELS / "weights" / f"{name}.md").read_text()
        for word in ("Trained on", "How", "Held out", "Is not", "Licence"):
            assert f"**{word}**" in card


def test_random_filters_are_far_better_conditioned() -> None:
    """As the design measured: about 20 at conv1, against thousands for trained filters."""
    net = load_model("all_cnn_b", random_weights=0)
    assert frame(Convolution(net.conv1.weight, 4, 0, (227, 227))).condition_number < 50


def test_a_specification_of_ones_own(tmp_path: Path) -> None:
    write(tmp_path, "small", SMALL)
    path = write(
        tmp_path,
        "mine",
        'base = "small.toml"\nleaky_crelu = ["a"]\nslope = 0.1\nhalve_filters = true\nweights = "w.safetensors"',
    )
    with pytest.raises(ModelError, match=r"w\.safetensors cannot be read"):
        load_model(path)
    net = load_model(path, random_weights=3)
    assert (net.layer("a").filters, net.layer("a").channels, net.layer("a").slope) == (2, 4, 0.1)
    save_file({key: value.half() for key, value in net.state_dict().items()}, tmp_path / "w.safetensors")
    loaded = load_model(path)
    images = torch.rand(1, 3, 20, 20)
    torch.testing.assert_close(loaded.features(images, "b"), net.features(images, "b"), atol=1e-2, rtol=1e-2)
    assert loaded.architecture.base == "small"
    variant = write(tmp_path, "zoo", 'base = "all_cnn_b"\ncrelu = ["conv1"]')
    assert read_architecture(variant).layers[0].activation == "crelu"


@pytest.mark.parametrize(
    ("held", "reached"), [("ab", ["a", "p", "b", "q"]), ("a", ["a", "p"]), ("abc", ["a", "p", "b", "q", "c"])]
)
def test_a_weights_file_reaches_the_max_pooling_after_its_last_layer(
    held: str, reached: list[str], tmp_path: Path
) -> None:
    text = POOLED.strip().removesuffix("]")
    more = ', { name = "q", kind = "max_pool", kernel = 3, stride = 2, padding = 1 }'
    text = f'weights = "w.safetensors"\n{text}{more}, {{ name = "c", filters = 2, kernel = 1 }}]'
    path = write(tmp_path, "mine", text)
    full = load_model(path, random_weights=0)
    save_file({key: value for key, value in full.state_dict().items() if key[0] in held}, tmp_path / "w.safetensors")
    net = load_model(path)
    assert net.layer_names == reached
    images = torch.rand(1, 3, 20, 20)
    for layer in reached:
        assert torch.equal(net.features(images, layer), full.features(images, layer))
    save_file({key: value for key, value in full.state_dict().items() if key[0] == "b"}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="no weights for a"):
        load_model(path)


def hostile(path: Path, kind: str) -> None:
    state = load_file(MODELS / "weights" / "crelu_conv1_4.safetensors")
    match kind:
        case "pickle":
            torch.save(state, path)
        case "empty":
            path.write_bytes(b"")
        case "cut":
            save_file(state, path)
            path.write_bytes(path.read_bytes()[:5000])
        case "long header":
            path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
        case "shape":
            save_file(state | {"conv2.weight": torch.zeros(96, 192, 3, 3)}, path)
        case "missing":
            del state["conv3.bias"]
            save_file(state, path)
        case "gap":
            save_file({key: value for key, value in state.items() if not key.startswith("conv2")}, path)
        case "nan":
            save_file(state | {"conv1.bias": torch.full((96,), float("nan"))}, path)
        case "beyond float32":
            save_file(state | {"conv1.bias": torch.full((96,), 1e300, dtype=torch.float64)}, path)
        case "foreign":
            save_file({"features.0.weight": torch.zeros(1)}, path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("pickle", "cannot be read as safetensors"),
        ("empty", "cannot be read as safetensors"),
        ("cut", "cannot be read as safetensors"),
        ("long header", "cannot be read as safetensors"),
        ("shape", r"conv2\.weight is \(96, 192, 3, 3\), .* needs \(96, 192, 1, 1\)"),
        ("missing", r"lacks conv3\.bias"),
        ("gap", "no place for"),
        ("nan", r"conv1\.bias holds a number that is not finite"),
        ("beyond float32", r"conv1\.bias holds a number that is not finite in float32"),
        ("foreign", "no weights for conv1"),
    ],
)
def test_hostile_weights_are_refused(kind: str, message: str, tmp_path: Path) -> None:
    hostile(tmp_path / "w.safetensors", kind)
    path = write(tmp_path, "mine", (MODELS / "crelu_conv1_4.toml").read_text().replace("crelu_conv1_4.saf", "w.saf"))
    with pytest.raises(ModelError, match=message):
        load_model(path)


def test_weights_that_are_not_finite_once_they_are_folded(tmp_path: Path) -> None:
    """Each number is one of float32's, and gamma / sqrt(variance) times the weight is not."""
    path = write(tmp_path, "x", NORMED)
    net = Network(read_architecture(path))
    state = {key: value.clone() for key, value in net.state_dict().items() if key not in ("mean", "std")}
    state["a_bn.weight"][:] = 1e38
    state["a_bn.running_var"][:] = 0
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"a\.weight, with its batch normalisation, is not finite in float32"):
        load_model(path)


@pytest.mark.parametrize("name", ["a" * 5000, "a" * 300 + "/b", "nothing\0"])
def test_names_that_no_file_can_have(name: str) -> None:
    with pytest.raises(ModelError, match="there is no model"):
        load_model(name)
