"""What people name as a model that is none by itself."""

import json
from pathlib import Path

import pytest

from reconstruct import CallError, ModelError, load_model
from tests.builders.command_line import SAMPLE, refused
from tests.conftest import Call

MINE = """
import nothing_that_is_there

def with_an_argument(classes): ...
def _private(): ...
def network(): ...
def another(classes=10, *, wide=True): ...
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("net.onnx", "'reconstruct models import net.onnx' makes a model"),
        ("net.pth", "'reconstruct models import net.pth --as alexnet'"),
        ("sub/net.safetensors", "timm:NAME:FILE"),
        ("net.ckpt", "holds weights and not the network"),
        ("net.pt2", "export the module to ONNX"),
        ("net.h5", "export the network to ONNX"),
        ("net.caffemodel", "Caffe's"),
        ("net.json", "name the folder of a config.json, or a .toml file"),
        ("net.jpg", "is a file, and no specification"),
    ],
)
def test_files_of_other_kinds(name: str, message: str, here: Path) -> None:
    with pytest.raises(ModelError) as missing:
        load_model(name)
    assert message not in str(missing.value)
    (here / name).parent.mkdir(exist_ok=True)
    (here / name).write_bytes(b"")
    with pytest.raises(ModelError) as found:
        load_model(name)
    assert message in str(found.value)
    assert str(found.value).startswith(name)


def test_python_files_and_their_functions(here: Path) -> None:
    """Their text is read and not run: it would fail."""
    (here / "nets").mkdir()
    for name, module in (("mine.py", "mine"), ("nets/mine.py", "nets.mine")):
        (here / name).write_text(MINE)
        with pytest.raises(ModelError, match=rf"a function in it: --model {module}:network or {module}:another$"):
            load_model(name)
    with pytest.raises(ModelError, match=r"so nets\.mine:network$"):
        load_model("nets/mine.py:network")
    (here / "empty.py").write_text("x = 1")
    with pytest.raises(ModelError, match=r"has no function .* named as empty:function"):
        load_model("empty.py")
    (here / "broken.py").write_text("def (")
    with pytest.raises(ModelError, match="cannot be read as one"):
        load_model("broken.py")
    with pytest.raises(ModelError, match=r"^there is no file nowhere\.py$"):
        load_model("nowhere.py")


def test_a_file_that_an_installed_module_hides_is_named(here: Path) -> None:
    (here / "colorsys.py").write_text("def network(): ...")
    with pytest.raises(CallError, match=r"comes before colorsys\.py here: rename colorsys\.py"):
        load_model("colorsys:network")
    (here / "colorsys.py").unlink()
    with pytest.raises(CallError, match="colorsys has no function network"):
        load_model("colorsys:network")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architectures": ["ResNetForImageClassification"]}, "transformers' ResNetForImageClassification: a function"),
        ({"model_type": "vit"}, "it is of transformers: a function"),
        ({"_class_name": "UNet2DModel"}, "it is of diffusers: a function"),
        ({"library_name": "other"}, "library_name is 'other'"),
    ],
)
def test_folders_of_other_libraries(config: dict[str, object], message: str, here: Path) -> None:
    (here / "hf").mkdir()
    (here / "hf" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=message):
        load_model("hf")


def test_names_on_a_hub_and_the_command_line(here: Path, call: Call) -> None:
    with pytest.raises(ModelError, match=r"nothing is downloaded: name a folder here, or timm:resnet18"):
        load_model("hf-hub:timm/resnet18")
    with pytest.raises(ModelError, match=r"here it is timm:resnet18\.a1_in1k, and nothing is downloaded"):
        load_model("timm/resnet18.a1_in1k")
    (here / "net.onnx").write_bytes(b"")
    said = refused(call, SAMPLE, "--model", "net.onnx", "--layer", "conv1")
    assert said.count("\n") == 1
    assert "models import net.onnx" in said
    assert "torchvision:NAME" in refused(call, "models", "resnet18")


def test_modules_are_not_exported(here: Path, call: Call) -> None:
    said = refused(call, "models", "export", "torchvision:resnet18:random", "--output", "out")
    assert "torchvision:resnet18:random is a torch module, whose code no file holds" in said
