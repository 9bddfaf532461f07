"""Chains of convolutions from ONNX files, beside the files' own forward pass."""

import re
import shlex
import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from reconstruct import CallError, ModelError, load_model
from reconstruct.extras import install_hint
from reconstruct.network.network import Network
from reconstruct.zoo.import_onnx import import_onnx
from reconstruct.zoo.onnx_file import Graph, numbers
from tests.builders.networks import randn
from tests.conftest import ROOT, Call

extras = pytest.mark.extras

EPS = torch.finfo(torch.float32).eps
SIDE = 13


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(9))


def rounding(net: Network, pictures: torch.Tensor, layer: str) -> torch.Tensor:
    """What rounding in float32 can change of a layer's features: in each layer at most (fan-in + 8) units of the sum of
    magnitudes, which the network of |W| and |b| carries on, with nothing cut off and nothing cancelled.

    The 8: a normalisation's operations, a folded batch normalisation's, the bias and the activation's.
    """
    size = (pictures.double() + net.mean.abs().double()) / net.std.double()
    units = 8
    for each in net.up_to(layer):
        if each.has_weights:
            convolution = net.convolution(each.name)
            weight, bias = convolution.weight.double().abs(), convolution.bias
            assert bias is not None
            size = functional.conv2d(
                size, weight, bias.double().abs(), each.stride, each.padding, each.dilation, each.groups
            )
            size = torch.cat((size, size), dim=1) if each.activation.endswith("crelu") else size
            units += weight[0].numel() + 8
        else:
            pool = functional.max_pool2d if each.kind == "max_pool" else functional.avg_pool2d
            size = pool(size, each.kernel, each.stride, each.padding, ceil_mode=each.ceil_mode)
            units += each.kernel**2
    return units * EPS * size


class Small(nn.Module):
    """CReLU after batch normalisation, a padded mean, a leak, a maximum, an absolute value; then classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(8, 6, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(6, 5, 1)
        self.classes = nn.Linear(5 * 2 * 2, 3)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        for number, value in enumerate(self.state_dict().values()):
            if value.is_floating_point() and value.ndim in (1, 4):
                value.copy_(randn(*value.shape, seed=number) * 0.5)
        assert isinstance(self.bn1.running_var, torch.Tensor)
        self.bn1.running_var.abs_().add_(0.1)

    def layers(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.bn1(self.conv1((x - self.mean) / 0.225))
        found = {"conv1": torch.cat((x.relu(), (-x).relu()), dim=1)}
        found["pool1"] = functional.avg_pool2d(found["conv1"], 2, 1, 1)
        found["conv2"] = functional.leaky_relu(self.conv2(found["pool1"]), 0.1)
        found["pool2"] = functional.max_pool2d(found["conv2"], 3, 2)
        found["conv3"] = functional.dropout(self.conv3(found["pool2"]).abs(), 0.5, self.training)
        return found

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classes(functional.max_pool2d(self.layers(x)["conv3"], 2, 1).flatten(1))


@extras
@pytest.mark.parametrize("folded", [True, False])
def test_a_network_of_torch(folded: bool, tmp_path: Path) -> None:
    """Every layer is the module's, in double precision, up to rounding; its classifier is left out and said to be.

    The exporter folds the batch normalisation, or leaves its node in the graph.
    """
    module = Small().eval().requires_grad_(False)
    kept: dict[str, Any] = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, of its successor and of what it traces
        torch.onnx.export(
            module, (images(),), str(tmp_path / "small-net.onnx"), dynamo=False, **({} if folded else kept)
        )
    done = import_onnx(tmp_path / "small-net.onnx", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"small-net.toml", "small-net.safetensors"}
    assert list(done.layers) == ["conv1", "pool1", "conv2", "pool2", "conv3", "pool3"]
    assert done.left_out is not None
    assert "Flatten" in done.left_out
    assert "left out: Flatten, Gemm" in done.left_out
    net = load_model(done.path)
    assert [(layer.activation, layer.slope) for layer in net.layers] == [
        ("crelu", 0), ("none", 0), ("leaky_relu", 0.1), ("none", 0), ("avr", 0), ("none", 0)
    ]  # fmt: skip
    assert (net.input_size, net.architecture.mean) == (SIDE, (0.485, 0.456, 0.406))
    assert all(value.dtype == torch.float32 for value in load_file(done.path.with_suffix(".safetensors")).values())
    for layer, expected in module.double().layers(images().double()).items():
        found = net.features(images(), layer)
        assert found.shape == expected.shape
        bound = rounding(net, images(), layer)
        assert ((found - expected).abs() <= bound).all()
        assert float(bound.max()) < 1e-2 * float(expected.abs().max())


Weights = dict[str, torch.Tensor]
Nodes = list[tuple[Any, ...]]

ONE: Weights = {"a.weight": randn(4, 3, 3, 3, seed=1), "a.bias": randn(4, seed=2)}
CONV = ("Conv", "x a.weight a.bias", "z")


def build(path: Path, nodes: Nodes, weights: Weights, out: str = "y", *, opset: int = 17, shape: Any = None) -> Path:
    """A graph of nodes (operation, inputs, outputs, attributes), from ``x`` to ``out``."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    made = [
        helper.make_node(kind, into.split(), given.split(), **(rest[0] if rest else {}))
        for kind, into, given, *rest in nodes
    ]
    shape = ["N", 3, SIDE, SIDE] if shape is None else shape
    graph = helper.make_graph(
        made,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, ["n", "c", "h", "w"])],
        [numpy_helper.from_array(value.numpy(), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


def evaluated(file: Path, pictures: torch.Tensor) -> torch.Tensor:
    """The outputs of the package's own reference, which runs the graph node by node in NumPy."""
    from onnx.reference import ReferenceEvaluator

    return torch.from_numpy(ReferenceEvaluator(str(file)).run(None, {"x": pictures.numpy()})[0])


NORMED: Weights = {"mean": torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1), "scale": torch.tensor([4.0]), **ONE}
BN: Weights = ONE | {
    "g": randn(4, seed=3),
    "b": randn(4, seed=4),
    "m": randn(4, seed=5),
    "v": randn(4, seed=6).square(),
}
GRAPHS: dict[str, tuple[Nodes, Weights, str]] = {
    "crelu": (
        [CONV, ("Relu", "z", "p"), ("Neg", "z", "n"), ("Relu", "n", "q"), ("Concat", "p q", "y", {"axis": 1})],
        ONE,
        "crelu",
    ),
    "crelu of both": (
        [CONV, ("Neg", "z", "n"), ("Concat", "z n", "c", {"axis": -3}), ("Relu", "c", "y")],
        ONE,
        "crelu",
    ),
    "crelu by -1": (
        [CONV, ("Mul", "minus z", "n"), ("Concat", "z n", "c", {"axis": 1}), ("Relu", "c", "y")],
        ONE | {"minus": torch.tensor(-1.0)},
        "crelu",
    ),
    "leaky crelu": (
        [
            CONV,
            ("LeakyRelu", "z", "p", {"alpha": 0.2}),
            ("Neg", "z", "n"),
            ("LeakyRelu", "n", "q", {"alpha": 0.2}),
            ("Concat", "p q", "y", {"axis": 1}),
        ],
        ONE,
        "leaky_crelu",
    ),
    "batch normalisation": (
        [CONV, ("BatchNormalization", "z g b m v", "n", {"epsilon": 0.01}), ("Relu", "n", "y")],
        BN,
        "relu",
    ),
    "normalised by factors": (
        [("Mul", "scale x", "s"), ("Add", "s mean", "t"), ("Conv", "t a.weight a.bias", "y")],
        NORMED,
        "none",
    ),
    "normalised in part": (
        [("Sub", "x mean", "s"), ("Div", "s mean", "t"), ("Conv", "t a.weight", "z"), ("Abs", "z", "y")],
        NORMED,
        "avr",
    ),
    "rectified after the maximum": (
        [CONV, ("MaxPool", "z", "m", {"kernel_shape": [3, 3], "pads": [1] * 4}), ("Relu", "m", "y")],
        ONE,
        "relu",
    ),
    "same padding": (
        [("Conv", "x a.weight a.bias", "z", {"auto_pad": "SAME_UPPER", "kernel_shape": [3, 3]}), ("Relu", "z", "y")],
        ONE,
        "relu",
    ),
    "what does nothing": (
        [
            ("Identity", "a.weight", "w"),
            ("Identity", "x", "i"),
            ("Conv", "i w a.bias", "z"),
            ("Relu", "z", "r"),
            ("Dropout", "r", "y"),
        ],
        ONE,
        "relu",
    ),
    "a clip to 6, padded by a node, then a pooling that rounds up": (
        [
            CONV,
            ("Clip", "z lo hi", "c"),
            ("Pad", "c pads", "p"),
            ("Conv", "p w", "e", {"group": 2}),
            ("Clip", "e lo", "f"),
            ("MaxPool", "f", "y", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
        ],
        ONE
        | {"w": randn(6, 2, 4, 4, seed=7), "lo": torch.tensor(0.0), "hi": torch.tensor(6.0)}
        | {"pads": torch.tensor([0, 0, 2, 2, 0, 0, 2, 2])},
        "relu",
    ),
    "groups and gaps": (
        [CONV, ("Conv", "z w", "g", {"group": 2, "dilations": [2, 2], "pads": [2] * 4}), ("Relu", "g", "y")],
        ONE | {"w": randn(6, 2, 3, 3, seed=7)},
        "relu",
    ),
    "padded means": (
        [
            CONV,
            (
                "AveragePool",
                "z",
                "m",
                {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "count_include_pad": 1},
            ),
            ("Conv", "m w", "y"),
        ],
        ONE | {"w": randn(2, 4, 1, 1, seed=7)},
        "none",
    ),
}


@extras
@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_give_what_their_reference_gives(name: str, tmp_path: Path) -> None:
    nodes, weights, activation = GRAPHS[name]
    file = build(tmp_path / "g.onnx", nodes, weights)
    done = import_onnx(file, tmp_path)
    assert done.left_out is None
    net = load_model(done.path)
    assert net.layers_with_weights[-1].activation == activation
    last = net.layers[-1].name
    found, expected = net.features(images(), last), evaluated(file, images())
    assert found.shape == expected.shape
    # Either side rounds, and neither is exact.
    bound = 2 * rounding(net, images(), last)
    assert ((found - expected).abs() <= bound).all()
    assert float(bound.max()) < 1e-3 * float(expected.abs().max())
    assert any("rectifies after MaxPool" in note for note in done.notes) == ("maximum" in name)
    assert any("does not normalise" in note for note in done.notes) != ("normalised" in name)


@extras
def test_the_callers_normalisation_comes_first(tmp_path: Path) -> None:
    """A graph that takes bytes from 0 to 255, and subtracts a mean of its own: ((x - m) / s - M) / S."""
    nodes: Nodes = [("Sub", "x mean", "s"), ("Div", "s scale", "t"), ("Conv", "t a.weight a.bias", "y")]
    weights = NORMED | {"mean": 255 * NORMED["mean"], "scale": torch.tensor(60.0)}
    file = build(tmp_path / "g.onnx", nodes, weights)
    done = import_onnx(file, tmp_path, mean=[0.0, 0.1, 0.2], std=[1 / 255])
    net = load_model(done.path)
    given = (images() - torch.tensor([0.0, 0.1, 0.2]).view(3, 1, 1)) * 255
    assert ((net.features(images(), "a") - evaluated(file, given)).abs() <= 2 * rounding(net, images(), "a")).all()
    for wrong in ({"mean": [0.1, 0.2]}, {"std": [0.0]}, {"std": [-1.0]}, {"mean": [numpy.nan]}):
        with pytest.raises(CallError, match=r"--mean is one number|--std is above 0"):
            import_onnx(file, tmp_path / "out", **wrong)


@extras
def test_float16_and_float64_become_float32(tmp_path: Path) -> None:
    for dtype in (torch.float16, torch.float64):
        weights = {key: value.to(dtype) for key, value in ONE.items()}
        file = build(tmp_path / "g.onnx", [CONV, ("Relu", "z", "y")], weights)
        stored = load_file(import_onnx(file, tmp_path).path.with_suffix(".safetensors"))
        assert torch.equal(stored["a.weight"], weights["a.weight"].float())


TWO: Weights = ONE | {"b.weight": randn(4, 4, 3, 3, seed=3), "fc": randn(3, 4 * 11 * 11, seed=4)}
RELU = [CONV, ("Relu", "z", "r")]


@extras
@pytest.mark.parametrize(
    ("nodes", "layers", "said"),
    [
        ([*RELU, ("Flatten", "r", "f"), ("Gemm", "f fc", "y", {"transB": 1})], ["a"], "Flatten 'f' is no part"),
        ([*RELU, ("GlobalAveragePool", "r", "y")], ["a"], "left out: GlobalAveragePool"),
        ([CONV, ("Sigmoid", "z", "y")], ["a"], "Sigmoid 'y' is no part"),
        (
            [*RELU, ("Conv", "r b.weight", "s", {"pads": [1] * 4}), ("Add", "s r", "y")],
            ["a"],
            "r goes to 2 nodes, Conv 's' and Add 'y'; left out: Conv, Add",
        ),
        (
            [*RELU, ("Conv", "r b.weight", "s"), ("Relu", "s", "t"), ("Relu", "t", "y")],
            ["a", "b"],
            "is no convolution's",
        ),
        ([*RELU, ("MaxPool", "r", "m", {"kernel_shape": [2, 2]}), ("Softmax", "m", "y")], ["a", "pool1"], "Softmax"),
    ],
)
def test_the_chain_ends_where_the_graph_is_none(nodes: Nodes, layers: list[str], said: str, tmp_path: Path) -> None:
    done = import_onnx(build(tmp_path / "g.onnx", nodes, TWO), tmp_path)
    assert load_model(done.path).layer_names == list(done.layers) == layers
    assert said in (done.left_out or "")


def conv(**attributes: object) -> Nodes:
    return [("Conv", "x a.weight a.bias", "y", attributes)]


def pool(kind: str, **attributes: object) -> Nodes:
    return [*RELU, (kind, "r", "y", {"kernel_shape": [2, 2], **attributes})]


LONG: Weights = {"a.weight": randn(4, 3, 3, 1), "a.bias": randn(4)}


@extras
@pytest.mark.parametrize(
    ("nodes", "weights", "message"),
    [
        (
            conv(group=3),
            ONE | {"a.weight": randn(4, 1, 3, 3), "a.bias": randn(4)},
            "Conv 'y' has 4 filters in 3 groups",
        ),
        (conv(dilations=[2, 1]), ONE, "Conv 'y' has the dilation 2 x 1"),
        (conv(pads=[0, 0, 1, 1]), ONE, "has the paddings [0, 0, 1, 1]"),
        (conv(strides=[1, 2]), ONE, "strides of [1, 2]; both are square"),
        (conv(), LONG, "a kernel of 3 x 1"),
        (conv(auto_pad="SAME_LOWER", strides=[2, 2]), ONE, "the padding SAME_LOWER"),
        (conv(kernel_shape=[5, 5]), ONE, "says that its kernel is [5, 5]"),
        (conv(), ONE | {"a.weight": randn(4, 2, 3, 3)}, "takes 2 channels, and 3 come in"),
        (conv(), ONE | {"a.bias": randn(5)}, "biases of shape (5,)"),
        (conv(), ONE | {"a.weight": torch.full((4, 3, 3, 3), torch.nan)}, "a.weight holds a number that is not finite"),
        (conv(), ONE | {"a.weight": torch.full((4, 3, 3, 3), 1e300, dtype=torch.float64)}, "not finite in float32"),
        ([("Relu", "a.weight", "w"), ("Conv", "x w", "y")], ONE, "has weights that are no constants"),
        (pool("AveragePool", ceil_mode=1), ONE, "AveragePool 'y' rounds its grid up"),
        (pool("MaxPool", pads=[0, 0, 1, 1]), ONE, "has the paddings"),
        (pool("MaxPool", dilations=[2, 2]), ONE, "has the dilation"),
        (pool("AveragePool", pads=[1] * 4), ONE, "count_include_pad"),
        (
            [CONV, ("BatchNormalization", "z g b m v", "y p q", {"training_mode": 1})],
            BN,
            "BatchNormalization 'y' is of training",
        ),
        (
            [CONV, ("BatchNormalization", "z g b m v", "y")],
            BN | {"v": -torch.ones(4)},
            "variances that are not above 0",
        ),
        (
            [CONV, ("Relu", "z", "p"), ("Neg", "z", "n"), ("Relu", "n", "q"), ("Concat", "q p", "y", {"axis": 1})],
            ONE,
            "Concat 'y' has the negative phases first",
        ),
        ([CONV, ("LeakyRelu", "z", "y", {"alpha": 1.5})], ONE, "has the slope 1.5"),
        (
            [("Sub", "x picture", "s"), ("Conv", "s a.weight", "y")],
            ONE | {"picture": randn(3, 13, 13)},
            "not one number a",
        ),
        ([("Sub", "one x", "s"), ("Conv", "s a.weight", "y")], ONE | {"one": torch.ones(1)}, "turns the image around"),
        ([("Div", "x none", "s"), ("Conv", "s a.weight", "y")], ONE | {"none": torch.zeros(1)}, "is not above 0"),
        ([("MaxPool", "x", "y", {"kernel_shape": [2, 2]})], ONE, "does not begin with a convolution: MaxPool 'y'"),
        ([("Relu", "x", "y")], ONE, "does not begin with a convolution: Relu 'y'"),
        ([CONV, ("Rectify", "z", "y")], ONE, "is no valid ONNX model"),
    ],
)
def test_layers_that_are_none_of_ours_are_refused(nodes: Nodes, weights: Weights, message: str, tmp_path: Path) -> None:
    """By name, in one line, and nothing is written."""
    file = build(tmp_path / "g.onnx", nodes, weights)
    with pytest.raises(ModelError) as caught:
        import_onnx(file, tmp_path / "out")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def external(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = tensor.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def huge(model: Any) -> None:
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend([10**6, 3, 10**4, 10**4])


def second_input(model: Any) -> None:
    model.graph.input.append(model.graph.input[0])
    model.graph.input[1].name = "other"


@extras
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (external, "a.weight is in '/etc/passwd', which is no file of the folder"),
        (huge, "a.weight|is no valid ONNX model"),
        (second_input, "has 2 inputs, and a chain has one"),
        (lambda model: setattr(model.opset_import[0], "version", 6), "is of opset 6"),
        (lambda model: model.graph.node[0].input.__setitem__(0, "nothing"), "is no valid ONNX model"),
        (lambda model: model.graph.input[0].type.tensor_type.shape.dim.pop(), "has 3 axes"),
    ],
)
def test_files_that_could_do_harm_are_refused(change: Callable[[Any], object], message: str, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(build(tmp_path / "g.onnx", conv(), ONE))
    change(model)
    (tmp_path / "g.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=message):
        import_onnx(tmp_path / "g.onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def beside(path: Path, **given: str) -> Path:
    """A graph whose weights are in files beside it, and what it says of the first tensor changed."""
    import onnx

    build(path, conv(), ONE)
    onnx.save(
        onnx.load(path),
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location="g.onnx.data",
        size_threshold=0,
    )
    model = onnx.load(path, load_external_data=False)
    for each in model.graph.initializer[0].external_data:
        each.value = given.get(each.key, each.value)
    path.write_bytes(model.SerializeToString())
    return path


@extras
def test_weights_in_a_file_beside_the_graph(tmp_path: Path) -> None:
    """As torch.onnx.export writes them."""
    file = beside(tmp_path / "g.onnx")
    assert (tmp_path / "g.onnx.data").stat().st_size >= 4 * (4 * 27 + 4)
    found = import_onnx(file, tmp_path / "out", mean=[0.0], std=[1.0])
    state = load_file(found.path.with_suffix(".safetensors"))
    names = sorted(state)
    assert torch.equal(state[names[1]], ONE["a.weight"])
    assert torch.equal(state[names[0]], ONE["a.bias"])


@extras
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"location": "../g.onnx.data"}, "no file of the folder"),
        ({"location": "link.data"}, "no file of the folder"),
        ({"location": "."}, "no file of the folder"),
        ({"location": "a\0b"}, "no file of the folder"),
        ({"location": "x" * 5000}, "no file of the folder|no such file beside it"),
        ({"location": "gone.data"}, "no such file beside it"),
        ({"offset": "-4"}, "another number of entries"),
        ({"offset": "9" * 30}, "another number of entries"),
        ({"length": "8"}, "another number of entries"),
        ({"offset": "1" * 5000}, "no number"),
        ({"length": "many"}, "no number"),
    ],
)
def test_other_files_are_not_read(given: dict[str, str], message: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link.data").symlink_to(tmp_path / "outside.data")
    (tmp_path / "outside.data").write_bytes(bytes(10**4))
    file = beside(folder / "g.onnx", **given)
    with pytest.raises(ModelError, match=message) as caught:
        import_onnx(file, tmp_path / "out")
    assert len(str(caught.value)) < 600
    assert not (tmp_path / "out").exists()


@extras
def test_sizes_are_compared_without_the_checker(tmp_path: Path) -> None:
    import onnx

    tensor = onnx.load(build(tmp_path / "g.onnx", conv(), ONE)).graph.initializer[0]
    graph = Graph(tmp_path, "x", 3, (None, None), [], {}, {"w": tensor})
    found = numbers(graph, "w")
    assert found is not None
    assert found.dtype == numpy.float64
    assert numpy.array_equal(found, ONE["a.weight"].numpy())
    for dims in ([10**6, 10**6, 10**6], [4, 3, 3], [-4, 3, -3, 3]):
        del tensor.dims[:]
        tensor.dims.extend(dims)
        with pytest.raises(ModelError, match="w claims to be"):
            numbers(graph, "w")
    # Empty, and yet beyond NumPy.
    tensor.raw_data = b""
    del tensor.dims[:]
    tensor.dims.extend([0, 2**62, 3])
    with pytest.raises(ModelError, match="w claims to be"):
        numbers(graph, "w")


@extras
def test_damaged_files_are_refused(tmp_path: Path) -> None:
    whole = build(tmp_path / "g.onnx", conv(), ONE).read_bytes()
    for content in (b"", b"<html>404</html>", whole[:300], b"\x80\x02}.", whole[:-1]):
        (tmp_path / "g.onnx").write_bytes(content)
        with pytest.raises(ModelError, match=r"is damaged, or no ONNX file|is no valid ONNX model"):
            import_onnx(tmp_path / "g.onnx", tmp_path / "out")
    with pytest.raises(ModelError, match="there is no ONNX file"):
        import_onnx(tmp_path / "none.onnx", tmp_path / "out")
    with (tmp_path / "g.onnx").open("wb") as file:
        file.truncate(2**31 + 1)  # as a hole, which takes no room
    with pytest.raises(ModelError, match="is larger than"):
        import_onnx(tmp_path / "g.onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@extras
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("first.weight", "second.weight"), ["first", "second"]),
        (("layer1.0.weight", "second.weight"), ["conv1", "conv2"]),
        (("same.weight", "same_weight"), ["conv1", "conv2"]),
        (("forward.weight", "second.weight"), ["conv1", "conv2"]),
    ],
)
def test_names_of_layers(names: tuple[str, str], expected: list[str], tmp_path: Path) -> None:
    first, second = names
    nodes: Nodes = [("Conv", f"x {first}", "a"), ("Relu", "a", "b"), ("Conv", f"b {second}", "y")]
    file = build(tmp_path / "g.onnx", nodes, {first: randn(4, 3, 3, 3), second: randn(2, 4, 1, 1)})
    assert list(import_onnx(file, tmp_path).layers) == expected


@extras
@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("stem", "stem"),
        ("/stem/Conv", "stem"),
        ("/stem/0/Conv", "conv1"),
        ("Conv_3", "conv1"),
        ("node_conv2d", "conv1"),
    ],
)
def test_names_by_nodes(node: str, expected: str, tmp_path: Path) -> None:
    """Where the weights' names serve for nothing; those that exporters make up do not either."""
    import onnx

    model = onnx.load(
        build(tmp_path / "g.onnx", [("Conv", "x onnx::Conv_7", "y")], {"onnx::Conv_7": randn(4, 3, 3, 3)})
    )
    model.graph.node[0].name = node
    onnx.save(model, tmp_path / "g.onnx")
    assert list(import_onnx(tmp_path / "g.onnx", tmp_path).layers) == [expected]


@extras
def test_the_command(call: Call, tmp_path: Path) -> None:
    nodes: Nodes = [*RELU, ("GlobalAveragePool", "r", "y")]
    file = build(tmp_path / "my net.onnx", nodes, ONE, shape=["N", 3, "H", "W"])
    status, out, err = call("models", "import", file, "--output", tmp_path / "out")
    assert (status, out) == (2, "")
    assert "is for images of any x any pixels: say the side" in err
    arguments = ("models", "import", file, "--size", 20, "--mean", "0.5", "--std", "0.2,0.3,0.4", "--output", tmp_path)
    status, out, err = call(*arguments)
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "a: Conv 'z'",
        "the chain ends there: GlobalAveragePool 'y' is no part of a chain of convolutions and poolings; "
        "left out: GlobalAveragePool",
        f"model: {tmp_path}/my_net.toml",
    ]
    net = load_model(tmp_path / "my_net.toml")
    assert (net.input_size, net.architecture.mean, net.architecture.std) == (20, (0.5,) * 3, (0.2, 0.3, 0.4))
    assert call(*arguments, "--as", "mine")[1].endswith(f"model: {tmp_path}/mine.toml\n")
    for wrong, message in (("--as", "../x"), "the model's name is"), (("--mean", "a"), "--mean is numbers with commas"):
        status, out, err = call(*arguments, *wrong)
        assert (status, out, message in err) == (2, "", True)
    status, _, err = call("models", "import", file, "--size", 20, "--output", tmp_path)
    assert (status, err.startswith("note: the graph does not normalise")) == (0, True)


def test_without_the_package(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    status, out, err = call("models", "import", tmp_path / "g.onnx")
    assert (status, out) == (2, "")
    assert err == f"reconstruct: reading ONNX files needs the package onnx: {install_hint('onnx')}\n"


def test_what_belongs_to_one_kind_of_file_only(call: Call, tmp_path: Path) -> None:
    status, _, err = call("models", "import", tmp_path / "g.pth")
    assert (status, "--as alexnet" in err) == (2, True)
    status, _, err = call("models", "import", tmp_path / "g.pth", "--as", "alexnet", "--size", 3)
    assert (status, "are for .onnx files" in err) == (2, True)


@extras
def test_the_page_of_formats_runs_as_printed(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its Python and its commands, in their order; what it says that an import prints is what it prints."""
    text = (ROOT / "docs" / "formats.md").read_text()
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    monkeypatch.chdir(tmp_path)
    printed = ""
    for code, command in re.findall(
        r"```python\n(.*?)```|^    \.venv/bin/reconstruct ([^\n]*)", text, flags=re.DOTALL | re.M
    ):
        if code:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the exporter's
                exec(code, {})
        else:
            status, out, err = call(*shlex.split(command))
            assert (status, err) == (0, "")
            printed += out
    (shown,) = re.findall(r"(    conv1: Conv.*?)\n\n", text, flags=re.DOTALL)
    assert textwrap.dedent(shown) in printed
    assert {path.name for path in Path("received").glob("*comparison.png")} == {
        "chelsea.crelu_conv1_4.comparison.png", "chelsea.mine.comparison.png"
    }  # fmt: skip
