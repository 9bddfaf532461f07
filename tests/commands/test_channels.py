"""Networks of grey images, of other channels than pictures have, and of images that are no squares."""

import json
import math
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from reconstruct import CallError, from_torch, invert, load_image, save_image
from reconstruct.network.protocol import AnyNetwork
from tests.builders import modules
from tests.builders.command_line import SAMPLE, refused
from tests.builders.user_modules import Steps
from tests.conftest import Call

GREY = ("--model", "tests.builders.modules:grey", "--layer", "relu")
SIX = ("--model", "tests.builders.modules:six", "--layer", "relu")
TALL = ("--model", "tests.builders.modules:tall", "--layer", "conv")


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder with one in colour and the same in grey, of another shape than the networks'."""
    folder = tmp_path / "set"
    save_image(load_image(SAMPLE, (40, 48)), folder / "colour.png")
    opened(folder / "colour.png").convert("L").save(folder / "grey.png")
    return folder


def test_grey_networks_get_grey_images_from_any_picture(photographs: Path, tmp_path: Path, call: Call) -> None:
    status, _, _ = call("features", *sorted(photographs.iterdir()), *GREY, "--format", "npy", "--output", tmp_path)
    assert status == 0
    colour, grey = (numpy.load(tmp_path / f"{name}.padded1.relu.npy") for name in ("colour", "grey"))
    image = load_image(photographs / "grey.png", 32, channels=1)
    assert image.shape == (1, 32, 32)
    expected = modules.grey().features(image[None], "relu").numpy()
    assert numpy.array_equal(grey, expected)
    # Its luma is rounded before or after resizing.
    assert abs(colour - expected).max() <= 0.05


def test_grey_networks_on_every_command(photographs: Path, tmp_path: Path, call: Call) -> None:
    out = ("--budget", 4, "--output", tmp_path / "out")
    picture = photographs / "colour.png"
    for command in (
        ("invert", picture, *GREY, *out),
        ("bounds", picture, *GREY, "--pool", "16/16", *out),
        ("evaluate", photographs, *GREY, "--budget", 4, "--output", tmp_path / "run", "--quiet"),
    ):
        status, _, err = call(*command)
        assert (status, err) == (0, ""), command
    assert opened(tmp_path / "out" / "colour.padded1.relu.map.png").mode == "L"
    assert len(list((tmp_path / "run" / "thumbnails").iterdir())) == 4


@pytest.mark.parametrize("command", [("invert",), ("features",), ("evaluate",), ("bounds",)])
def test_six_channels_do_not_come_from_pictures(
    command: tuple[str], photographs: Path, tmp_path: Path, call: Call
) -> None:
    source = photographs if command == ("evaluate",) else photographs / "colour.png"
    more = ("--pool", "2/2") if command == ("bounds",) else ()
    err = refused(call, *command, source, *SIX, *more, "--output", tmp_path / "out")
    assert "padded6 takes images of 6 channels, and a picture file gives 1 or 3" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("channels", [2, 4, 6])
def test_features_of_any_channels_come_back_side_by_side(channels: int, tmp_path: Path, call: Call) -> None:
    net, image = modules.padded(channels), torch.rand(1, channels, 32, 32)
    (tmp_path / "mine.py").write_text(
        f"from tests.builders.modules import padded\ndef net(): return padded({channels})\n"
    )
    numpy.save(tmp_path / "f.npy", net.features(image, "relu").numpy())
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        patch.delitem(__import__("sys").modules, "mine", raising=False)
        status, _, _ = call(
            "--features", tmp_path / "f.npy", "--model", "mine:net", "--layer", "relu", "--budget", 40,
            "--output", tmp_path,
        )  # fmt: skip
    assert status == 0
    shown = numpy.asarray(opened(tmp_path / f"f.padded{channels}.relu.map.png")).astype(float)
    assert shown.shape == (32, 32 * channels)
    expected = invert(net, net.features(image, "relu"), "relu", budget=40).image[0]
    assert abs(shown / 255 - numpy.hstack(list(expected.clamp(0, 1).numpy()))).max() <= 0.51 / 255
    assert opened(tmp_path / f"f.padded{channels}.comparison.png").width >= 32 * channels


@pytest.mark.parametrize("method", ["map", "gradient"])
@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_methods_invert_images_of_any_channels(channels: int, method: str) -> None:
    net: AnyNetwork = modules.padded(channels, (16, 24))
    image = torch.rand(2, channels, 16, 24, generator=torch.Generator().manual_seed(0))
    result = invert(net, net.features(image, "0"), "0", method, budget=90)
    assert result.image.shape == image.shape
    assert max(result.feature_residual) < 0.2


@pytest.mark.parametrize("method", ["map", "gradient"])
def test_methods_invert_what_takes_images_of_one_shape_alone(method: str) -> None:
    """Behind what is no chain, where gradients are tried out first: at the network's own height and width."""
    parts = {"conv": torch.nn.Conv2d(3, 4, 3, padding=1), "act": torch.nn.GELU(), "flat": torch.nn.Flatten()}
    module = Steps(
        lambda own, x: own.last(own.flat(own.act(own.conv(x)))), **parts, last=torch.nn.Linear(4 * 24 * 16, 5)
    )
    net = from_torch(module, input_size=(24, 16))
    image = torch.rand(1, 3, 24, 16, generator=torch.Generator().manual_seed(0))
    result = invert(net, net.features(image, "last"), "last", method, budget=90)
    assert result.image.shape == image.shape
    assert result.feature_residual[0] < 0.5


def test_networks_that_take_images_of_one_shape_alone(photographs: Path, tmp_path: Path, call: Call) -> None:
    status, out, _ = call("invert", photographs / "colour.png", *TALL, "--json", "--output", tmp_path / "out")
    assert status == 0
    assert json.loads(out)[0]["psnr"] > 30
    assert opened(tmp_path / "out" / "colour.tall.conv.map.png").size == (16, 32)
    status, _, err = call("evaluate", photographs, *TALL, "--output", tmp_path / "run", "--quiet")
    assert (status, err) == (0, "")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["size"] == [32, 16]
    status, out, _ = call("models", TALL[1])
    assert "input 32 x 16," in out
    features = modules.tall().features(torch.rand(1, 3, 32, 16), "conv").numpy()
    numpy.save(tmp_path / "f.npy", features)
    assert call("--features", tmp_path / "f.npy", *TALL, "--output", tmp_path / "out")[0] == 0
    with pytest.raises(CallError, match=r"input_size is a side in pixels, or height and width"):
        from_torch(torch.nn.Conv2d(3, 4, 3), input_size=(32, 16, 3))  # type: ignore[arg-type]


def test_pictures_too_small_for_ssim_are_inverted(photographs: Path, tmp_path: Path, call: Call) -> None:
    size = ("--size", 8, "--model", "tests.builders.modules:slash", "--layer", "relu", "--budget", 20)
    status, out, _ = call("invert", photographs / "colour.png", *size, "--json", "--output", tmp_path / "out")
    (record,) = json.loads(out)
    assert (status, record["ssim"]) == (0, None)
    assert math.isfinite(record["psnr"])
    status, _, err = call("evaluate", photographs, *size, "--output", tmp_path / "run", "--quiet")
    assert (status, err) == (0, "")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["failed"], summary["results"][0]["ssim"]["mean"]) == (0, None)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "dB and an SSIM of" not in page
    status, out, _ = call("report", tmp_path / "run", tmp_path / "run", "--json", "--output", tmp_path / "two.html")
    assert status == 0
    assert json.loads(out)["differences"][0]["ssim"]["mean"] is None


@pytest.mark.parametrize("words", ["evaluate", "analyze rectify", "analyze spectrum", "analyze invariance"])
def test_heights_and_widths_everywhere(words: str, photographs: Path, tmp_path: Path, call: Call) -> None:
    """As ``invert`` takes them: ``--size HxW``."""
    whole_set = words in ("evaluate", "analyze invariance")
    few = {"evaluate": ("--budget", 8, "--gallery", 0), "analyze rectify": ("--count", 1)}.get(words, ())
    pictures = photographs if whole_set else photographs / "colour.png"
    called = (*words.split(), pictures, "--model", "crelu_conv1_4", "--layer", "conv1", *few)
    status, _, err = call(*called, "--size", "24x40", "--output", tmp_path / "out", "--quiet")
    assert (status, err) == (0, "")
    assert "--size is a side or HxW" in refused(call, *called, "--size", "24x", "--output", tmp_path / "other")
    if words == "evaluate":
        assert json.loads((tmp_path / "out" / "run.json").read_text())["settings"]["size"] == [24, 40]


def test_sizes_beyond_the_limit_are_refused_at_once(tmp_path: Path, call: Call) -> None:
    for size in ("999999", "100000x100000"):
        assert "--size is too large" in refused(call, SAMPLE, *GREY, "--size", size)
    assert "--size is too large" in refused(call, "evaluate", tmp_path, *GREY, "--size", 999_999, "--output", tmp_path)


def test_load_and_save_of_one_channel(tmp_path: Path) -> None:
    image = torch.arange(48).reshape(1, 6, 8) / 255
    save_image(image, tmp_path / "a.png")
    assert torch.equal(load_image(tmp_path / "a.png", channels=1), image)
    assert torch.equal(load_image(tmp_path / "a.png"), image.expand(3, 6, 8))
    with pytest.raises(CallError, match="load_image takes images of 6 channels"):
        load_image(tmp_path / "a.png", channels=6)
    for wrong in (image[0], image[None], image[:0]):
        with pytest.raises(CallError, match="an image is C x H x W, not"):
            save_image(wrong, tmp_path / "b.png")
