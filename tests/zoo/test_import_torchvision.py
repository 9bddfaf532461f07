import argparse
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import avg_pool2d, conv2d, linear, max_pool2d

from reconstruct import ModelError, load_model
from reconstruct.network.network import Network
from reconstruct.zoo.import_torchvision import import_checkpoint
from reconstruct.zoo.registry import MODELS, class_names
from reconstruct.zoo.specification import read_architecture
from tests.conftest import Call

# As torchvision publishes it.
ALEXNET = {
    "features.0": (64, 3, 11, 11),
    "features.3": (192, 64, 5, 5),
    "features.6": (384, 192, 3, 3),
    "features.8": (256, 384, 3, 3),
    "features.10": (256, 256, 3, 3),
    "classifier.1": (4096, 9216),
    "classifier.4": (4096, 4096),
    "classifier.6": (1000, 4096),
}

# Two convolutions, a pooling and two fully connected layers, on 8 pixels.
SMALL = """
input_size = 8
mean = [0.5, 0.5, 0.5]
std = [0.2, 0.2, 0.2]
layers = [
    { name = "conv1", filters = 4, kernel = 3, padding = 1 },
    { name = "pool1", kind = "avg_pool", kernel = 2, stride = 2 },
    { name = "fc2", filters = 6, kernel = 4 },
    { name = "fc3", filters = 2, kernel = 1, activation = "none" },
]
[torchvision]
conv1 = "features.0"
fc2 = "classifier.0"
fc3 = "classifier.2"
"""


def random_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Weights that keep the size of what passes through, and small biases."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in shapes.items():
        weight = torch.randn(shape, generator=generator)
        state[f"{key}.weight"] = weight * (2 / weight[0].numel()) ** 0.5
        state[f"{key}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)
    return state


def small(folder: Path) -> tuple[str, dict[str, torch.Tensor]]:
    """A specification with a table of its own, and a checkpoint for it."""
    path = folder / "small.toml"
    path.write_text(SMALL)
    shapes = {"features.0": (4, 3, 3, 3), "classifier.0": (6, 64), "classifier.2": (2, 6)}
    return str(path), random_state(shapes)


def test_alexnet_gives_the_scores_of_torchvisions_forward_pass(tmp_path: Path) -> None:
    """Written out: rectified convolutions and maxima of 3 x 3, and fully connected layers on the 6 x 6 grid."""
    state = random_state(ALEXNET)
    torch.save(state, tmp_path / "alexnet-owt-7be5be79.pth")
    written = import_checkpoint(tmp_path / "alexnet-owt-7be5be79.pth", "alexnet", tmp_path / "out")
    assert written == tmp_path / "out" / "alexnet.toml"
    assert {path.name for path in written.parent.iterdir()} == {"alexnet.toml", "alexnet.safetensors"}
    net = load_model(str(written))
    assert (net.architecture.base, net.architecture.source) == ("alexnet", read_architecture("alexnet").source)
    assert class_names(str(written)) is None

    images = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    x = (images - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    for layer, stride, padding, pooled in ((0, 4, 2, True), (3, 1, 2, True), (6, 1, 1, False), (8, 1, 1, False)):
        x = conv2d(x, state[f"features.{layer}.weight"], state[f"features.{layer}.bias"], stride, padding).relu()
        x = max_pool2d(x, 3, 2) if pooled else x
    x = conv2d(x, state["features.10.weight"], state["features.10.bias"], padding=1).relu()
    x = max_pool2d(x, 3, 2).flatten(1)
    for layer in (1, 4):
        x = linear(x, state[f"classifier.{layer}.weight"], state[f"classifier.{layer}.bias"]).relu()
    x = linear(x, state["classifier.6.weight"], state["classifier.6.bias"])
    # Sums of up to 9,216 products in another order, eight layers of them.
    torch.testing.assert_close(net(images), x, rtol=0, atol=1e-4 * float(x.abs().max()))


def test_vgg16s_table_is_torchvisions() -> None:
    """Without its 138 million numbers: the keys of the published checkpoint in order, each with its shape."""
    architecture = read_architecture("vgg16")
    with torch.device("meta"):
        net = Network(architecture)
    plan = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"]
    expected, place, channels = {}, 0, 3
    for entry in plan:
        if isinstance(entry, int):
            expected[f"features.{place}"] = (entry, channels, 3, 3)
            channels = entry
            place += 1  # its ReLU
        place += 1
    # A fully connected layer's weights, whose inputs are the 512 channels of 7 x 7.
    expected |= {"classifier.0": (4096, 512, 7, 7), "classifier.3": (4096, 4096, 1, 1)}
    expected["classifier.6"] = (1000, 4096, 1, 1)
    found = {key: tuple(net.convolution(layer).weight.shape) for layer, key in architecture.torchvision.items()}
    assert found == expected
    assert list(found) == list(expected)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "parameters", "half"])
def test_what_a_checkpoint_may_be(kind: str, tmp_path: Path) -> None:
    model, state = small(tmp_path)
    file = tmp_path / ("state.safetensors" if kind == "safetensors" else "state.pth")
    match kind:
        case "legacy":  # as until torch 1.6
            torch.save(state, file, _use_new_zipfile_serialization=False)
        case "safetensors":
            save_file(state, file)
        case "parameters":
            torch.save({key: torch.nn.Parameter(value) for key, value in state.items()}, file)
        case "half":
            torch.save({key: value.half() for key, value in state.items()}, file)
        case _:
            torch.save(state, file)
    net = load_model(str(import_checkpoint(file, model, tmp_path / "out")))
    assert all(value.dtype == torch.float32 for value in net.state_dict().values())
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    x = avg_pool2d(
        conv2d((images - 0.5) / 0.2, state["features.0.weight"], state["features.0.bias"], padding=1).relu(), 2
    )
    x = linear(x.flatten(1), state["classifier.0.weight"], state["classifier.0.bias"]).relu()
    x = linear(x, state["classifier.2.weight"], state["classifier.2.bias"])
    tolerance = 1e-2 if kind == "half" else 1e-5
    torch.testing.assert_close(net(images), x, rtol=tolerance, atol=tolerance)


def test_tensors_that_share_memory(tmp_path: Path) -> None:
    model, state = small(tmp_path)
    shared = torch.arange(10.0)
    state |= {"classifier.0.bias": shared[:6], "classifier.2.bias": shared[4:6]}
    torch.save(state, tmp_path / "state.pth")
    net = load_model(str(import_checkpoint(tmp_path / "state.pth", model, tmp_path / "out")))
    assert net.convolution("fc3").bias.tolist() == [4, 5]


class Hostile:
    """What a pickle may do to whoever loads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


CHANGED = {
    "extra": {"features.1.weight": torch.zeros(4)},
    "shape": {"classifier.0.weight": torch.zeros(6, 100)},
    "bias": {"classifier.0.bias": torch.zeros(6, 1)},
    "integers": {"classifier.0.bias": torch.zeros(6, dtype=torch.int64)},
    "sparse": {"classifier.0.bias": torch.zeros(6).to_sparse()},
    "number": {"classifier.0.bias": 1.0},
    "nan": {"classifier.0.bias": torch.full((6,), torch.nan)},
}


def spoil(kind: str, file: Path, state: dict[str, torch.Tensor]) -> None:
    match kind:
        case "hostile":
            torch.save(state | {"features.0.bias": Hostile(file.parent / "harmed")}, file)
        case "hostile pickle":
            file.write_bytes(pickle.dumps(Hostile(file.parent / "harmed")))
        case "empty":
            file.write_bytes(b"")
        case "text":
            file.write_text("<html>404</html>")
        case "cut":
            torch.save(state, file)
            file.write_bytes(file.read_bytes()[:700])
        case "list":
            torch.save(list(state.values()), file)
        case "missing":
            torch.save({key: value for key, value in state.items() if key != "classifier.0.bias"}, file)
        case "nowhere":
            pass
        case _:
            torch.save(state | CHANGED[kind], file)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("hostile", "is damaged or holds more than tensors; nothing of it was run"),
        ("hostile pickle", "is damaged or holds more than tensors; nothing of it was run"),
        ("empty", "is damaged or holds more than tensors; nothing of it was run"),
        ("text", "is damaged or holds more than tensors; nothing of it was run"),
        ("cut", "is damaged or holds more than tensors; nothing of it was run"),
        ("list", "is not a state dict"),
        ("missing", r"lacks classifier\.0\.bias, fc2\.bias of small"),
        ("extra", r"holds features\.1\.weight, which small has no place for"),
        ("shape", r"classifier\.0\.weight is \(6, 100\), and \(6, 4, 4, 4\) is needed"),
        ("bias", r"classifier\.0\.bias is \(6, 1\), and \(6,\) is needed"),
        ("integers", r"classifier\.0\.bias is no plain tensor of floating-point numbers"),
        ("sparse", r"classifier\.0\.bias is no plain tensor"),
        ("number", r"classifier\.0\.bias is no plain tensor"),
        ("nan", r"classifier\.0\.bias holds a number that is not finite"),
        ("nowhere", "there is no checkpoint"),
    ],
)
def test_faulty_checkpoints_are_refused(kind: str, message: str, tmp_path: Path) -> None:
    """With one line, before anything is run or written."""
    model, state = small(tmp_path)
    file = tmp_path / "state.pth"
    spoil(kind, file, state)
    with pytest.raises(ModelError, match=message) as caught:
        import_checkpoint(file, model, tmp_path / "out")
    assert str(file) in str(caught.value)
    assert len(str(caught.value)) < 100 + 2 * len(str(file))
    assert not (tmp_path / "harmed").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"not a header at all"])
def test_a_faulty_safetensors_file_is_refused(content: bytes, tmp_path: Path) -> None:
    model, _ = small(tmp_path)
    (tmp_path / "state.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"is damaged, cut off, or no \.safetensors file"):
        import_checkpoint(tmp_path / "state.safetensors", model, tmp_path / "out")


def prefixed(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in state.items()}


WRITTEN: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    # PyTorch's ImageNet example, of a part of a network in DataParallel; with the arguments of torchvision's script.
    "example": lambda state: {
        "epoch": 90,
        "args": argparse.Namespace(lr=0.1),
        "state_dict": {key.replace("features.", "features.module."): value for key, value in state.items()},
        "best_acc1": torch.tensor(56.5),
    },
    "parallel": lambda state: prefixed(state, "module."),
    "compiled": lambda state: {"model": prefixed(state, "_orig_mod.")},
    "both": lambda state: {"model_state_dict": prefixed(state, "_orig_mod.module.")},
    "lightning": lambda state: {"state_dict": prefixed(state, "model."), "hyper_parameters": {"lr": 0.1}},
    "nested": lambda state: {"model": {"state_dict": prefixed(state, "net.")}},
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_training_scripts_write(name: str, tmp_path: Path) -> None:
    model, state = small(tmp_path)
    torch.save(WRITTEN[name](state), tmp_path / "last.pth.tar")
    net = load_model(import_checkpoint(tmp_path / "last.pth.tar", model, tmp_path / "out"))
    assert torch.equal(net.state_dict()["conv1.weight"], state["features.0.weight"])


def test_prefixes_of_safetensors_and_keys_that_are_there_twice(tmp_path: Path) -> None:
    model, state = small(tmp_path)
    save_file(prefixed(state, "module."), tmp_path / "s.safetensors")
    import_checkpoint(tmp_path / "s.safetensors", model, tmp_path / "out")
    twice = {key: value for key, value in state.items() if key != "classifier.2.bias"} | prefixed(state, "module.")
    torch.save(twice, tmp_path / "twice.pth")
    with pytest.raises(ModelError, match=r"holds features\.0\.weight twice, once as module\.features\.0\.weight"):
        import_checkpoint(tmp_path / "twice.pth", model, tmp_path / "out")


@pytest.mark.filterwarnings("ignore:.*nested tensors.*")
def test_tensors_that_are_not_plain(tmp_path: Path) -> None:
    model, state = small(tmp_path)
    key = "features.0.weight"
    for other in (
        torch.nested.nested_tensor([torch.rand(2, 3), torch.rand(4, 3)]),
        state[key].to_sparse(),
        torch.zeros(1).expand(4, 3, 3, 3),  # a single number that is said to be 108
        state[key].to(torch.complex64),
    ):
        torch.save(state | {key: other}, tmp_path / "s.pth")
        with pytest.raises(ModelError, match=r"features\.0\.weight is no plain tensor of floating-point numbers"):
            import_checkpoint(tmp_path / "s.pth", model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_models_that_cannot_be_imported(tmp_path: Path) -> None:
    model, state = small(tmp_path)
    file = tmp_path / "state.pth"
    torch.save(state, file)
    with pytest.raises(ModelError, match=r"all_cnn_b\.toml has no table \[torchvision\] .*; alexnet, vgg16 have one"):
        import_checkpoint(file, "all_cnn_b", tmp_path / "out")
    with pytest.raises(ModelError, match="is the specification that the import is based on"):
        import_checkpoint(file, model, tmp_path)
    assert (tmp_path / "small.toml").read_text() == SMALL
    assert not (MODELS / "alexnet.safetensors").exists()
    # A variant inherits the table; with CReLU its next layer has twice the inputs.
    (tmp_path / "variant.toml").write_text('base = "small.toml"\ncrelu = ["conv1"]\n')
    with pytest.raises(ModelError, match=r"classifier\.0\.weight is \(6, 64\), and \(6, 8, 4, 4\) is needed"):
        import_checkpoint(file, str(tmp_path / "variant.toml"), tmp_path / "out")
    (tmp_path / "variant.toml").write_text('base = "small.toml"\nleaky_relu = ["conv1"]\nslope = 0.1\n')
    written = import_checkpoint(file, str(tmp_path / "variant.toml"), tmp_path / "out")
    assert load_model(str(written)).layer("conv1").slope == 0.1
    (tmp_path / "normed.toml").write_text(SMALL.replace("padding = 1 }", "padding = 1, batch_norm = true }"))
    with pytest.raises(ModelError, match="conv1 of normed has batch normalisation: no import fills it"):
        import_checkpoint(file, str(tmp_path / "normed.toml"), tmp_path / "out")


def test_the_command(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    _, state = small(tmp_path)
    torch.save(state, tmp_path / "state.pth")
    monkeypatch.chdir(tmp_path)

    # By a relative path, and the model is usable from any folder.
    (tmp_path / "here").mkdir()
    assert call("models", "import", "state.pth", "--as", "small.toml", "--output", "out") == (
        0,
        "model: out/small.toml\n",
        "",
    )
    monkeypatch.chdir(tmp_path / "here")
    status, printed, _ = call("models", "../out/small.toml")
    assert status == 0
    assert "average pooling" in printed
    assert set(load_file(tmp_path / "out" / "small.safetensors")) == set(load_model("../out/small.toml").state_dict())
    status, printed, said = call("models", "import", str(tmp_path / "state.pth"), "--as", "vgg61")
    assert (status, printed) == (2, "")
    assert "there is no model 'vgg61'; did you mean vgg16" in said
    assert not list((tmp_path / "here").iterdir())
