"""Networks of torchvision and timm by name, with stand-ins for the two packages."""

import hashlib
import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from reconstruct import CallError, ModelError, load_model
from reconstruct.network.preprocessing import Preprocessing
from tests.builders.published import CONFIG, MEAN, STD, URLS, Tiny, drawn, fake_timm, fake_torchvision

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def own_features(module: Tiny, images: torch.Tensor) -> torch.Tensor:
    """conv1 as the publisher's code has it: normalised outside, and once more inside where that is asked for."""
    normalised = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return module.conv1(normalised * 0.5 + 0.1 if module.transform_input else normalised).detach()


@pytest.fixture
def checkpoints(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return fake_torchvision(monkeypatch, tmp_path)


def test_torchvisions_weights_bring_their_preprocessing(checkpoints: Path) -> None:
    """``transform_input``, which only torchvision's builder knows of, mean, std, size, crop and interpolation."""
    trained = drawn(1, transform_input=True)
    torch.save(trained.state_dict(), checkpoints / "tiny-2.pth")
    net = load_model("torchvision:tiny")
    torch.testing.assert_close(net.features(IMAGES, "conv1"), own_features(trained, IMAGES))
    assert net.normalisation == (MEAN, STD)
    assert (net.input_size, net.name, net.source) == (32, "tiny", "torchvision's tiny, V2")
    assert net.preprocessing == Preprocessing(
        "torchvision's tiny (weights V2)", MEAN, STD, size=32, resize=36, interpolation="bilinear"
    )


def test_other_weights_of_torchvision(checkpoints: Path, tmp_path: Path) -> None:
    trained = drawn(2, transform_input=True)
    torch.save(trained.state_dict(), checkpoints / "tiny-1.pth")
    with pytest.raises(ModelError, match=r"tiny-2\.pth is not there, .* its weights V1 are there: torchvision:tiny:V1"):
        load_model("torchvision:tiny")
    net = load_model("torchvision:tiny:V1")
    assert net.input_size == 20
    torch.testing.assert_close(net.features(IMAGES, "conv1"), own_features(trained, IMAGES))
    file = tmp_path / "mine.pth"
    wrapped = {f"module.{key}": value for key, value in trained.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": wrapped}, file)
    own = load_model(f"torchvision:tiny:{file}")
    assert own.input_size == 32
    torch.testing.assert_close(own.features(IMAGES, "conv1"), own_features(trained, IMAGES))


def test_a_copy_of_published_weights_is_known_by_its_content(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is called here: V1 is of 20 pixels, and V2, the default, of 32."""
    torch.save(drawn(2, transform_input=True).state_dict(), tmp_path / "copy.pth")
    assert load_model(f"torchvision:tiny:{tmp_path / 'copy.pth'}").input_size == 32
    digest = hashlib.sha256((tmp_path / "copy.pth").read_bytes()).hexdigest()
    monkeypatch.setitem(URLS, "V1", f"https://download.example/tiny-{digest[:8]}.pth")
    net = load_model(f"torchvision:tiny:{tmp_path / 'copy.pth'}")
    assert net.preprocessing is not None
    assert (net.input_size, net.preprocessing.stated_by) == (20, "torchvision's tiny (weights V1)")
    with pytest.raises(ModelError, match=r"no checkpoint nowhere\.pth"):
        load_model("torchvision:tiny:nowhere.pth")


def test_random_weights_are_a_seeds(checkpoints: Path) -> None:
    first, again = load_model("torchvision:tiny:random"), load_model("torchvision:tiny", random_weights=0)
    other = load_model("torchvision:tiny", random_weights=1)
    features = [net.features(IMAGES, "conv1") for net in (first, again, other)]
    assert torch.equal(features[0], features[1])
    assert not torch.equal(features[0], features[2])


def test_of_a_detector_the_backbone_is_taken(checkpoints: Path) -> None:
    net = load_model("torchvision:detector:random")
    assert net.layer_names == ["0", "1"]
    assert (net.input_size, net.normalisation, net.preprocessing) == (40, (MEAN, STD), None)


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_a_file_of_other_classes(package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Weights that somebody has trained further are of as many classes as their own data, and bring them along."""
    if package == "torchvision":
        fake_torchvision(monkeypatch, tmp_path)
    else:
        fake_timm(monkeypatch, tmp_path, cached=None)
    trained = drawn(4, classes=11, transform_input=package == "torchvision")
    torch.save(trained.state_dict(), tmp_path / "eleven.pth")
    net = load_model(f"{package}:tiny:{tmp_path / 'eleven.pth'}")
    assert net.features(IMAGES, "conv2").shape[1] == 11
    torch.testing.assert_close(net.features(IMAGES, "conv1"), own_features(trained, IMAGES))
    torch.save(drawn(5, transform_input=package == "torchvision").state_dict(), tmp_path / "five.pth")
    assert load_model(f"{package}:tiny:{tmp_path / 'five.pth'}").features(IMAGES, "conv2").shape[1] == 5


class Bomb:
    def __reduce__(self) -> object:
        return os._exit, (3,)


def test_wrong_names_of_torchvision(checkpoints: Path) -> None:
    (checkpoints / "tiny-1.pth").write_bytes(pickle.dumps(Bomb()))
    torch.save({"conv1.weight": torch.zeros(2, 2)}, checkpoints / "tiny-2.pth")
    for name, message in (
        ("tiny:V1", "is damaged or holds more than tensors; nothing of it was run"),
        ("tiny", "the weights are not of torchvision's tiny: "),
        ("tiny:V3", "has no weights 'V3'; it has V1, V2, and takes a file"),
        ("tiny:nowhere.pth", r"no checkpoint nowhere\.pth"),
        ("tinny", "has no model 'tinny'; did you mean tiny"),
        ("quantized_tiny", "int8, which has no gradients: take torchvision:tiny"),
        ("film", "takes films or pairs of pictures"),
    ):
        with pytest.raises(ModelError, match=message):
            load_model(f"torchvision:{name}")
    with pytest.raises(ModelError, match="leave out one of them"):
        load_model("torchvision:tiny:V1", random_weights=0)


@pytest.mark.parametrize("place", ["hub", "torch", "named"])
def test_timms_weights_where_they_lie(place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the hub's cache, in torch's, or in a file that is named; and the ``pretrained_cfg`` is what normalises."""
    trained = drawn(3)
    (tmp_path / "checkpoints").mkdir()
    file = {
        "hub": tmp_path / "model.safetensors",
        "torch": tmp_path / "checkpoints" / "tiny_new.pth",
        "named": tmp_path / "mine.safetensors",
    }[place]
    if file.suffix == ".pth":
        torch.save(trained.state_dict(), file)
    else:
        save_file(trained.state_dict(), file)
    fake_timm(monkeypatch, tmp_path, cached=file if place == "hub" else None)
    net = load_model(f"timm:tiny.new:{file}" if place == "named" else "timm:tiny.new")
    torch.testing.assert_close(net.features(IMAGES, "conv1"), own_features(trained, IMAGES))
    assert (net.input_size, net.name, net.source) == (30, "tiny.new", f"timm's tiny.new, {file.name}")
    assert net.preprocessing == Preprocessing("timm's tiny.new", MEAN, STD, 30, 33, "bicubic")


def test_wrong_names_of_timm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_timm(monkeypatch, tmp_path, cached=None)
    assert load_model("timm:tiny:random").input_size == 30
    for name, message in (
        (
            "tiny.new",
            r"neither timm/tiny\.new in the Hugging Face Hub's cache, nor .*tiny_new\.pth as .* nothing is",
        ),
        ("tiny.old", "has no weights 'old' of tiny; it has new"),
        ("tini", "has no model 'tini'; did you mean tinier, tiny?"),
        ("tiny:new", r"a tag, timm:tiny\.TAG"),
        ("hf-hub:timm/tiny.new", r"nothing is downloaded: name a folder here, or timm:tiny\.new"),
        ("tiny:nowhere.pth", r"no checkpoint nowhere\.pth"),
    ):
        with pytest.raises(ModelError, match=message):
            load_model(f"timm:{name}")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"other\.pth does not hold weights of timm's tiny"):
        load_model(f"timm:tiny:{tmp_path / 'other.pth'}")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(CallError, match=r"reconstruct-features\[timm\]"):
        load_model("timm:tiny:random")


def test_a_folder_that_timm_wrote(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its config.json names the architecture, and no layers."""
    folder = tmp_path / "mine"
    folder.mkdir()
    trained = drawn(4)
    torch.save(trained.state_dict(), folder / "weights.pth")
    config = {"architecture": "tiny", "num_classes": 5, "pretrained_cfg": CONFIG}
    (folder / "config.json").write_text(json.dumps(config))
    fake_timm(monkeypatch, tmp_path, cached=None)
    net = load_model(folder)
    torch.testing.assert_close(net.features(IMAGES, "conv1"), own_features(trained, IMAGES))
    assert (net.name, net.input_size, net.normalisation) == ("mine", 30, (MEAN, STD))
    (folder / "weights.pth").write_bytes(b"")
    with pytest.raises(ModelError, match="timm cannot make the network in"):
        load_model(folder)


def prefixed(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in state.items()}


WRITTEN: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "deeper": lambda state: {"checkpoint": 3, "state": 1, "model_state_dict": prefixed(state, "_orig_mod.module.")},
    "lightning": lambda state: {"state_dict": prefixed(state, "model."), "hyper_parameters": {"lr": 0.1}},
    # torchvision's own script with --model-ema, and timm's: the mean of the last weights.
    "averaged": lambda state: {
        "model": {key: torch.zeros_like(value) for key, value in state.items()},
        "model_ema": prefixed(state, "module.") | {"n_averaged": torch.tensor(7)},
    },
}


@pytest.mark.parametrize("source", ["torchvision", "timm"])
@pytest.mark.parametrize("name", WRITTEN)
def test_what_training_scripts_write(name: str, source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As 'models import' reads it."""
    trained = drawn(5)
    file = tmp_path / "last.pth"
    torch.save(WRITTEN[name](trained.state_dict()), file)
    fake_torchvision(monkeypatch, tmp_path)
    fake_timm(monkeypatch, tmp_path, cached=None)
    net = load_model(f"{source}:tiny:{file}")
    convolution = dict(net.module.named_parameters())["conv1.weight"]
    assert torch.equal(convolution, trained.conv1.weight)
