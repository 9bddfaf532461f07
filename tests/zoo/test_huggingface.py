"""Folders in the Hugging Face layout: written, and loaded again."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from reconstruct import CallError, ModelError, from_torch, load_model, save_pretrained
from reconstruct.evaluation.provenance import trained_on
from reconstruct.network.architecture import Architecture, Layer
from reconstruct.network.network import Network, is_layer_name
from reconstruct.network.surgery import fold_batch_norm, randomise
from reconstruct.training.runs import trained_models
from reconstruct.zoo.huggingface import export_model
from reconstruct.zoo.registry import class_names
from reconstruct.zoo.specification import read_architecture
from tests.builders.command_line import refused
from tests.conftest import Call

SPEC = """
source = "Three layers: \\"small\\", été"
input_size = 12
mean = [0.1, 0.485, 0.3]
std = [0.2, 0.3, 1]
input_dropout = 0.1
layers = [
    { name = "first", filters = 3, kernel = 3, stride = 2, padding = 1, activation = "leaky_crelu", slope = 0.1 },
    { name = "pool", kind = "avg_pool", kernel = 2, stride = 2, dropout = 0.5 },
    { name = "last", filters = 2, kernel = 1, activation = "none" },
]
[damping]
last = { first = 0.1, pool = 0, last = 0.25 }
[torchvision]
first = "features.0"
last = "classifier.1"
"""


@pytest.fixture
def small(tmp_path: Path) -> Network:
    path = tmp_path / "small.toml"
    path.write_text(SPEC)
    return load_model(str(path), random_weights=3)


def same(one: Network, other: Network) -> bool:
    """All bits of the weights, and everything that the specification says but where the weights are."""
    first, second = one.state_dict(), other.state_dict()
    return (
        first.keys() == second.keys()
        and all(torch.equal(first[key].view(torch.int32), second[key].view(torch.int32)) for key in first)
        and torch.equal(one.mean, other.mean)
        and torch.equal(one.std, other.std)
        and one.layers == other.layers
        and replace(one.architecture, weights=None) == replace(other.architecture, weights=None)
    )


def test_a_round_trip_is_exact(small: Network, tmp_path: Path) -> None:
    folder = save_pretrained(small, tmp_path / "folder", classes=["a", "b"])
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    loaded = load_model(folder)
    assert same(small, loaded)
    assert not loaded.training
    images = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded(images), small(images))
    assert class_names(str(folder)) == ["a", "b"]
    assert trained_models(str(folder)) == [str(folder)]
    # Over itself, and to the same bytes.
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    save_pretrained(loaded, folder, classes=["a", "b"])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert same(load_model(folder, random_weights=3), small)


def test_float16_is_rounded_once(small: Network, tmp_path: Path) -> None:
    folder = save_pretrained(small, tmp_path / "half", dtype="float16")
    loaded = load_model(folder)
    stored = load_file(folder / "model.safetensors")
    for key, value in small.state_dict().items():
        assert stored[key].dtype == torch.float16
        assert torch.equal(loaded.state_dict()[key], value.half().float())
    save_pretrained(loaded, tmp_path / "again", dtype="float16")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert same(load_model(save_pretrained(loaded, tmp_path / "full")), loaded)


def test_batch_normalisation_is_kept_and_folded_when_loaded(tmp_path: Path) -> None:
    path = tmp_path / "normed.toml"
    path.write_text(SPEC.replace("slope = 0.1", "slope = 0.1, batch_norm = true"))
    net = randomise(Network(read_architecture(str(path))), 0).eval()
    generator = torch.Generator().manual_seed(0)
    for key, value in net.state_dict().items():
        if "_bn." in key and value.is_floating_point():
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    folder = save_pretrained(net, tmp_path / "folder")
    assert "first_bn.running_var" in load_file(folder / "model.safetensors")
    assert same(load_model(folder), fold_batch_norm(net))


def test_a_model_whose_weights_stop_at_a_layer(tmp_path: Path) -> None:
    """The packaged CIFAR network: weights to conv8 of nine, in float16, with its card."""
    folder = export_model("convpool_cnn_c_crelu", tmp_path / "folder")
    net = load_model("convpool_cnn_c_crelu")
    assert same(load_model(folder), net)
    assert load_file(folder / "model.safetensors")["conv1.weight"].dtype == torch.float16
    card = (folder / "README.md").read_text()
    head = card.split("---\n")[1].splitlines()
    assert {'license: "bsd-3-clause"', "library_name: reconstruct", "- crelu"} <= set(head)
    assert "1,305 pictures" in card
    assert "](../" not in card
    # A card that has been exported is exported again as it is.
    again = export_model(str(folder), tmp_path / "again", licence="bsd-3-clause")
    assert (again / "README.md").read_text() == card


def test_what_a_card_does_not_know_it_does_not_say(small: Network, tmp_path: Path) -> None:
    card = (save_pretrained(small, tmp_path / "folder") / "README.md").read_text()
    assert "license:" not in card
    assert "datasets" not in card
    assert "is not stated" in card
    assert "| first | convolution | 3 | 3 x 3 / 2, 1 | leaky_crelu, slope 0.1 | 6 x 6 x 6 |" in card
    assert "| pool | average pooling |  | 2 x 2 / 2, 0 |  | 6 x 3 x 3 |" in card


def test_other_peoples_files_are_left_alone(small: Network, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "README.md").write_text("mine")
    with pytest.raises(CallError, match=r"README\.md is there already"):
        save_pretrained(small, folder)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CallError, match=r"config\.json is there already"):
        save_pretrained(small, folder)
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.json"}


def test_what_cannot_be_saved(small: Network, tmp_path: Path) -> None:
    with pytest.raises(CallError, match="takes a Network, as load_model gives it, not Linear"):
        save_pretrained(torch.nn.Linear(1, 1), tmp_path)  # type: ignore[arg-type]
    module = from_torch(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16, 2)), input_size=4)
    with pytest.raises(CallError, match="is a torch module, whose code no file holds"):
        save_pretrained(module, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(CallError, match="float32 or float16, not 'int8'"):
        save_pretrained(small, tmp_path, dtype="int8")  # type: ignore[arg-type]
    with pytest.raises(CallError, match="has 2 outputs, and these are the names of 3"):
        save_pretrained(small, tmp_path, classes=["a", "b", "c"])
    small.convolution("last").weight.data[0, 0] = 1e5
    with pytest.raises(CallError, match=r"last\.weight holds a number that is too large for float16"):
        save_pretrained(small, tmp_path / "out", dtype="float16")
    small.convolution("last").weight.data[0, 0] = torch.inf
    with pytest.raises(CallError, match=r"last\.weight holds a number that is not finite"):
        save_pretrained(small, tmp_path / "out")
    assert not (tmp_path / "out").exists()


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(library_name="transformers"), "no model of reconstruct's"),
        (lambda c: c.update(format=2), "format is 2, and this version reads 1"),
        (lambda c: c.update(crelu_order="negative phases first"), "crelu_order is 'positive phases first'"),
        (lambda c: c.update(name="../../x"), "name is a plain word"),
        (lambda c: c.update(weights="/etc/passwd"), "a config names no file"),
        (lambda c: c.update(colour=1), "unknown key 'colour'"),
        (lambda c: c.update(mean=[0.0, float("nan"), 0.0]), "mean is a list of numbers"),
        (lambda c: c.update(std=[1.0, 1.0]), "one number a channel"),
        (lambda c: c.update(input_size=1), "vanish"),
        (lambda c: c.update(id2label={"1": "a"}), "id2label has a name for every class"),
        (lambda c: c.update(id2label=["a", "b"]), "id2label has a name for every class"),
        (lambda c: c["layers"][0].update(name="forward"), "no layer can be called 'forward'"),
        (lambda c: c["layers"][0].update(kernel=3.5), "kernel is 3.5, not a int"),
        (lambda c: c["layers"][0].update(filters=4), r"first\.bias is \(3,\), small needs \(4,\)"),
        (lambda c: c["layers"][0].update(filters=10**12), "layer first: filters are at most 1,048,576"),
        (lambda c: c["layers"][2].update(name="other"), "not so last, other"),
        (lambda c: c["damping"]["last"].pop("pool"), "damping of last must name"),
    ],
)
def test_faulty_configs_are_refused(change: Change, message: str, small: Network, tmp_path: Path) -> None:
    folder = save_pretrained(small, tmp_path / "folder")
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CallError, match=message):
        load_model(folder)


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, " " * 1_000_001, '{"library_name": "reconstruct"}'])
def test_damaged_configs_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        load_model(tmp_path)


def test_faulty_weights_are_refused(small: Network, tmp_path: Path) -> None:
    folder = save_pretrained(small, tmp_path / "folder")
    file = folder / "model.safetensors"
    state = load_file(file)
    faults: dict[str, dict[str, torch.Tensor]] = {
        r"lacks last\.bias": {key: value for key, value in state.items() if key != "last.bias"},
        r"holds extra, which small has no place for": state | {"extra": torch.zeros(1)},
        r"last\.bias is \(3,\), small needs \(2,\)": state | {"last.bias": torch.zeros(3)},
        r"last\.bias is I64, and weights are F16": state | {"last.bias": torch.zeros(2, dtype=torch.int64)},
        r"last\.bias holds a number that is not finite": state | {"last.bias": torch.full((2,), torch.nan)},
    }
    for message, changed in faults.items():
        save_file(changed, file)
        with pytest.raises(ModelError, match=message):
            load_model(folder)
    file.write_bytes(b"\x80\x02}.")
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        load_model(folder)
    file.unlink()
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        load_model(folder)


def test_names_that_layers_cannot_have() -> None:
    """Those that would hide a part of the network, and what is no word."""
    for name in ("forward", "features", "layers", "mean", "training", "_modules", "all", "a b", "conv.1", "1", ""):
        assert not is_layer_name(name), name
    assert all(is_layer_name(name) for name in ("conv1", "fc14", "Größe"))


def test_the_commands(call: Call, tmp_path: Path, small: Network) -> None:
    folder = tmp_path / "folder"
    specification = tmp_path / "small.toml"
    status, _, err = call("models", "export", specification, "--output", folder)
    assert (status, "has no weights" in err) == (2, True)
    save_file(small.state_dict(), tmp_path / "small.safetensors")
    specification.write_text(f'weights = "small.safetensors"\n{SPEC}')
    status, out, err = call("models", "export", specification, "--output", folder, "--dtype", "float16")
    assert (status, out, err) == (0, f"model: {folder}\n", "")
    assert load_file(folder / "model.safetensors")["last.bias"].dtype == torch.float16
    shown = json.loads(call("models", folder, "--json")[1])
    assert [layer["name"] for layer in shown["layers"]] == ["first", "pool", "last"]
    assert shown["weights"] == str(folder / "model.safetensors")
    assert call("models", "export", specification, "--output", folder, "--dtype", "int8")[0] == 2
    status, _, err = call("models", "export", "crelu_al", "--output", tmp_path / "out")
    assert (status, "did you mean crelu_all" in err) == (2, True)
    status, _, err = call("models", tmp_path)
    assert (status, "holds no config.json" in err) == (2, True)


@pytest.mark.parametrize(
    ("channels", "words", "image"),
    [
        (1, "12 x 12 pixels, grey in [0, 1]", 'image = reconstruct.load_image("photo.jpg", 12, channels=1)'),
        (3, "12 x 12 pixels, RGB in [0, 1]", 'image = reconstruct.load_image("photo.jpg", 12)'),
        (6, "12 x 12 pixels, 6 channels in [0, 1]", "image = torch.rand(6, 12, 12)"),
    ],
)
def test_a_card_says_which_images_its_network_takes(channels: int, words: str, image: str, tmp_path: Path) -> None:
    net = Network(Architecture("any", (Layer("a", 2, 3),), 12, (0.5,) * channels, (0.2,) * channels))
    card = (save_pretrained(net, tmp_path / "folder") / "README.md").read_text()
    assert words in card
    assert image in card


def test_a_card_that_is_no_text(small: Network, tmp_path: Path, call: Call) -> None:
    """Exported it is refused; an evaluation only quotes of it."""
    save_file(small.state_dict(), tmp_path / "small.safetensors")
    (tmp_path / "small.toml").write_text(f'weights = "small.safetensors"\n{SPEC}')
    (tmp_path / "small.md").write_bytes(b"# small\n- **Trained on**: caf\xe9s")
    err = refused(call, "models", "export", tmp_path / "small.toml", "--output", tmp_path / "out")
    assert "small.md cannot be read as text" in err
    assert trained_on(load_model(str(tmp_path / "small.toml"))) == "caf\N{REPLACEMENT CHARACTER}s"
