"""``reconstruct bounds``."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from reconstruct import CallError, load_image, load_model
from reconstruct.analysis.pooling_bounds import layer_bounds
from reconstruct.commands.bounds import _pooled
from reconstruct.commands.common import load_chain
from reconstruct.network.module import from_torch
from reconstruct.network.read_points import named_chain
from reconstruct.network.surgery import with_pool
from tests.builders.command_line import SAMPLE, refused
from tests.builders.modules import IMAGENET, chain
from tests.builders.specifications import write
from tests.conftest import Call

NUMBERS = ("reconstruction_ratio", "relative_error", "bound_measured", "bound_model", "lambda_min", "lambda_max")
TWO_BELOW = """
input_size = 32
mean = [0.5, 0.5, 0.5]
std = [0.2, 0.2, 0.2]
layers = [
    { name = "conv1", filters = 8, kernel = 3, padding = 1 },
    { name = "conv2", filters = 8, kernel = 3, padding = 1 },
    { name = "pool1", kind = "max_pool", kernel = 3, stride = 2, padding = 1 },
]
"""
"""ReLU, and a pooling of the model's own above two convolutions."""
POOLED = ("--model", "crelu_conv1_4", "--layer", "conv1", "--pool", "3/2")


def test_bounds_of_an_image(call: Call, tmp_path: Path) -> None:
    """What the library says, as JSON; the images rebuilt; and the figure."""
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(Path(SAMPLE).read_bytes()[:3000])
    out = tmp_path / "out"
    options = ("--size", "67", "--budget", "40", "--seed", "3", "--json", "--output", out)
    status, said, err = call("bounds", SAMPLE, broken, *POOLED, *options)
    assert status == 1
    assert "broken.jpg" in err
    (record,) = json.loads(said)
    assert (record["image"], record["layer"]) == (SAMPLE, "conv1_pool")
    net = with_pool(load_model("crelu_conv1_4"), "conv1", 3, 2)
    image = load_image(SAMPLE, 67)[None]
    for random, given in ((None, record), (3, record["random_filters"])):
        expected = layer_bounds(net, image, "conv1_pool", random=random)
        assert (given["violations"], given["regions"], given["empty"]) == (0, 49, 0)
        for name in NUMBERS:
            values: torch.Tensor = getattr(expected, name)
            worst = values.min() if name in ("reconstruction_ratio", "lambda_min") else values.max()
            assert given[name] == pytest.approx({"mean": float(values.mean()), "worst": float(worst)}, rel=1e-6)
    assert list(record["rebuilt"]) == ["switches", "intervals", "both", "centres", "map"]
    for each in record["rebuilt"].values():
        with Image.open(each["output"]) as written:
            assert written.size == (67, 67)
        assert each["psnr"] > 5
    with Image.open(record["figure"]) as figure:
        assert min(figure.size) > 400
    assert {path.name for path in out.iterdir()} == {
        Path(path).name for path in (record["figure"], *(each["output"] for each in record["rebuilt"].values()))
    }


def test_the_table(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = write(tmp_path, "own", TWO_BELOW)
    model = ("--model", own, "--layer", "pool1", "--random-weights", "0")
    status, out, err = call("bounds", SAMPLE, *model, "--size", "16", "--budget", "10")
    assert status == 0, err
    for word in ("chelsea.jpg", "violations", "switches", "figure: chelsea.own.pool1.bounds.png"):
        assert word in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--model", "crelu_conv1_4", "--layer", "conv1"),
            "not a max-pooling of a convolution's features; it has none",
        ),
        (("--model", "convpool_cnn_c", "--layer", "conv2"), "conv2 of convpool_cnn_c is not a max-pooling"),
        (("--model", "convpool_cnn_c", "--layer", "conv2"), "it has pool1, pool2"),
        (("--model", "convpool_cnn_c", "--layer", "pool1", "--pool", "2/2"), "name the convolution"),
        ((*POOLED[:-1], "3"), "a kernel and a stride, as 3/2, not '3'"),
        ((*POOLED[:-1], "0/2"), "at least 1, not 0 and 2"),
        (
            (*POOLED[:-1], "20/2", "--size", "67"),
            "67 x 67 pixels is smaller than the receptive field of conv1_pool, 87",
        ),
        ((*POOLED[:-1], "100/2"), "windows of 100 do not fit the 55 x 55 positions of conv1"),
        ((*POOLED, "--size", "50", "--native"), "give one of them"),
        ((*POOLED, "--budget", "0"), "budget"),
        (("--model", "avr_conv1_4", "--layer", "conv1", "--pool", "3/2", "--random-weights", "0"), "CReLU and ReLU"),
    ],
)
def test_wrong_calls_get_one_clear_line(
    arguments: tuple[str, ...], message: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(call, "bounds", SAMPLE, *arguments)
    assert not list(tmp_path.iterdir())


def test_what_is_pooled_is_what_the_name_says() -> None:
    """conv12 of cifar_split is what goes into a ReLU, whose output is pooled."""
    net = load_chain("cifar_split", None, "cpu", "conv12,ReLU12")
    with pytest.raises(CallError, match=r"conv12 of cifar_split is a split point, the responses of its layer, .* relu"):
        _pooled(net, "conv12", "2/2")
    for layer, pool, wanted in (("ReLU12", "2/2", "conv12_pool"), ("pool1", None, "pool1")):
        ((own, name),) = _pooled(net, layer, pool)
        assert name == wanted
        images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        pooled = torch.nn.functional.max_pool2d(net.features(images, "ReLU12"), 2, 2)
        assert torch.equal(own.features(images, name), pooled)


def test_layers_of_a_module_go_by_its_own_names(call: Call) -> None:
    """The chain has one layer where the module has a convolution, a norm and an activation; 'all' is its poolings."""
    net = from_torch(chain(), IMAGENET, input_size=32)
    for layer, pool, wanted in (("3", None, ["3"]), ("all", None, ["3"]), ("1,6", "2/2", ["0_pool", "5_pool"])):
        assert [name for _, name in _pooled(named_chain(net, layer), layer, pool)] == wanted
    module = ("--model", "tests.builders.modules:resnet", "--layer", "layer1.0")
    assert "outside the chain" in refused(call, "bounds", SAMPLE, *module)
    module = ("--model", "tests.builders.modules:published", "--layer", "6")
    assert "5 of published is not a max-pooling of a convolution's features; it has 3" in refused(
        call, "bounds", SAMPLE, *module
    )
