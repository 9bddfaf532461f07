import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from reconstruct import Convolution, ModelError, describe, frame, load_model, model_names
from reconstruct.zoo import MODELS, read_architecture

# Weights without biases. The paper's Table 5 prints them to two figures: 9.4M, 10.1M, 11.8M, 16.5M (its rounding of
# 16.6M), 4.7M and 8.6M.
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


def test_the_zoo_is_the_papers() -> None:
    assert set(model_names()) == set(PARAMETERS)
    assert model_names()[0] == "all_cnn_b"


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


def test_variants_say_where_their_activations_are() -> None:
    def with_activation(name: str, activation: str) -> list[str]:
        return [layer.name for layer in read_architecture(name).layers if layer.activation == activation]

    assert with_activation("crelu_conv1_4", "crelu") == ["conv1", "conv2", "conv3", "conv4"]
    assert with_activation("crelu_conv1_conv4_conv7", "crelu") == ["conv1", "conv4", "conv7"]
    assert with_activation("avr_conv1_7", "avr") == [f"conv{i}" for i in range(1, 8)]
    assert len(with_activation("crelu_all", "crelu")) == 12


def test_shipped_weights_stop_at_conv9_and_have_a_card() -> None:
    net = load_model("crelu_conv1_4")
    assert net.layer_names == [f"conv{i}" for i in range(1, 10)]
    assert not net.training
    assert not any(parameter.requires_grad for parameter in net.parameters())
    for path in (MODELS / "weights").glob("*.safetensors"):
        card = path.with_suffix(".md").read_text()
        for word in ("Trained on", "How", "Licence"):
            assert word in card


def test_describe_counts_what_the_design_counts() -> None:
    model = json.loads(json.dumps(describe("crelu_conv1_4"), allow_nan=False))
    layers = {layer["name"]: layer for layer in model["layers"]}
    assert model["parameters"] == PARAMETERS["crelu_conv1_4"]
    assert model["base"] == "all_cnn_b"
    assert layers["conv1"]["output_shape"] == [192, 55, 55]
    assert layers["conv1"]["unknowns"] == 3 * 227 * 227
    assert layers["conv4"]["unknowns"] == 96 * 28 * 28
    assert layers["conv4"]["equations"] == 256 * 28 * 28
    assert layers["conv4"]["receptive_field"] == 51
    assert 1000 < layers["conv1"]["condition_number"] < 10000
    assert layers["conv1"]["dimensions_lost"] == 0
    assert layers["conv3"]["dimensions_lost"] == pytest.approx(1 - 96 / 768)
    assert layers["conv10"]["frame_bounds"] is None
    assert describe("all_cnn_b")["layers"][0]["frame_bounds"] is None


def test_random_filters_are_far_better_conditioned() -> None:
    """As the design measured: about 20 at conv1, against thousands for trained filters."""
    net = load_model("all_cnn_b", random_weights=0)
    assert frame(Convolution(net.conv1.weight, 4, 0, (227, 227))).condition_number < 50


def write(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return str(path)


SMALL = """
input_size = 20
mean = [0.5, 0.5, 0.5]
std = [0.2, 0.2, 0.2]
layers = [{ name = "a", filters = 4, kernel = 3, stride = 2 }, { name = "b", filters = 5, kernel = 3 }]
"""


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
    ("text", "message"),
    [
        ("this is not TOML", "cannot be read as TOML"),
        ('base = "nothing"', "there is no model 'nothing'"),
        ('base = "wrong.toml"', "there is no specification wrong.toml|leads back"),
        ('base = "all_cnn_b"\ncrelu = ["conv13"]', "no layer 'conv13'; did you mean"),
        ('base = "all_cnn_b"\ncrelu = "conv1"', "crelu is a list of layer names"),
        ('base = "all_cnn_b"\ncrleu = ["conv1"]', "unknown key 'crleu', did you mean 'crelu'"),
        ('base = "all_cnn_b"\nslope = 2', "slope"),
        ('base = "all_cnn_b"\nweights = 3', "weights is a file name"),
        ('base = "all_cnn_b"\n[damping]\nconv2 = { conv1 = 1 }', "damping of conv2 must name conv1, conv2"),
        ('base = "all_cnn_b"\n[damping]\nconv1 = { conv1 = -1 }', "0 or above"),
        ("input_size = 20", "needs mean"),
        (SMALL.replace("kernel = 3 }", "kernel = 0 }"), "sizes are at least 1"),
        (SMALL.replace("kernel = 3 }", 'kernel = "3" }'), "kernel is '3', not a int"),
        (SMALL.replace("kernel = 3 }", "kernel = 30 }"), "vanish"),
        (SMALL.replace('name = "b"', 'name = "a"'), "same name"),
        (SMALL.replace('name = "b"', 'name = "b.c"'), "not a plain word"),
        (SMALL.replace("std = [0.2, 0.2, 0.2]", "std = [0.2, 0.2, 0]"), "std"),
        (SMALL.replace("stride = 2", "strides = 2"), "unknown key 'strides', did you mean 'stride'"),
        (SMALL.replace("stride = 2", 'activation = "swish"'), "activation is one of"),
    ],
)
def test_faulty_specifications_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=message) as caught:
        load_model(write(tmp_path, "wrong", text), random_weights=0)
    assert type(caught.value).__module__ == "reconstruct.errors"


def test_a_base_that_leads_back_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "one", 'base = "two.toml"')
    path = write(tmp_path, "two", 'base = "one.toml"')
    with pytest.raises(ModelError, match="leads back"):
        load_model(path)


def test_unknown_models_are_answered_with_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"did you mean crelu_conv1_4.*Models: all_cnn_b"):
        load_model("crelu_conv14")
    with pytest.raises(ModelError, match=r"no weights.*--random-weights SEED"):
        load_model("all_cnn_b")


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
        ("foreign", "no weights for conv1"),
    ],
)
def test_hostile_weights_are_refused(kind: str, message: str, tmp_path: Path) -> None:
    hostile(tmp_path / "w.safetensors", kind)
    path = write(tmp_path, "mine", (MODELS / "crelu_conv1_4.toml").read_text().replace("crelu_conv1_4.saf", "w.saf"))
    with pytest.raises(ModelError, match=message):
        load_model(path)
