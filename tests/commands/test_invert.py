"""``reconstruct IMAGE...``, the main job."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from tests.builders.command_line import SAMPLE, refused, run
from tests.conftest import Call

RECORD = {
    "image",
    "model",
    "layer",
    "method",
    "psnr",
    "ssim",
    "relative_error",
    "feature_residual",
    "status",
    "seconds",
    "forward_passes",
    "prepare_seconds",
    "prepare_passes",
    "device",
    "output",
    "beside",
}
QUICK = ("--method", "linear", "--size", "63", "--budget", "10")
"""Of calls that are about something else than the image."""


def pixels(path: str | Path) -> numpy.ndarray:
    with Image.open(path) as image:
        return numpy.asarray(image.convert("RGB"))


def test_the_main_job(tmp_path: Path) -> None:
    """In a process of its own, at the model's own size."""
    second = tmp_path / "second.png"
    Image.fromarray(numpy.rot90(pixels(SAMPLE)).copy()).save(second)
    out = tmp_path / "out"
    done = run(
        SAMPLE,
        str(second),
        "--model",
        "crelu_conv1_4",
        "--layer",
        "conv1,conv2",
        "--json",
        "--output",
        str(out),
        "--budget",
        "150",
    )
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout)
    assert done.stderr == ""
    assert [(r["image"], r["layer"]) for r in records] == [
        (image, layer) for image in (SAMPLE, str(second)) for layer in ("conv1", "conv2")
    ]
    for record in records:
        assert record.keys() >= RECORD
        assert (record["model"], record["method"], record["device"]) == ("crelu_conv1_4", "map", "cpu")
        assert record["forward_passes"] <= 150
        assert pixels(record["output"]).shape == (227, 227, 3)
    assert records[0]["psnr"] > 40
    assert records[1]["psnr"] > 30
    assert records[0]["feature_residual"] < 5e-4
    assert records[0]["ssim"] > 0.99
    assert records[0]["relative_error"] < 0.02
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f"{stem}.crelu_conv1_4.{rest}.png"
        for stem in ("chelsea", "second")
        for rest in ("conv1.map", "conv2.map", "comparison")
    )
    # map and the reference linear, and below each its difference: original, conv1, conv2; each pixel for pixel.
    figure = pixels(out / "chelsea.crelu_conv1_4.comparison.png")
    assert figure.shape[1] == 3 * (227 + 10) + 10
    assert numpy.array_equal(figure[10:237, 247:474], pixels(out / "chelsea.crelu_conv1_4.conv1.map.png"))
    assert figure.shape[0] > 4 * 227
    difference = abs(pixels(out / "chelsea.crelu_conv1_4.conv2.map.png").astype(int) - figure[10:237, 10:237])
    below = figure[287:514, 484:711].astype(int)
    assert abs(below - (5 * difference).clip(0, 255)).max() <= 5


def inverted(call: Call, output: Path, *arguments: str | Path | int) -> list[dict[str, Any]]:
    """The records of a call that succeeds; nothing else is printed."""
    status, out, err = call(*arguments, "--json", "--output", output)
    assert (status, err) == (0, "")
    found: list[dict[str, Any]] = json.loads(out)
    return found


def test_linear_beside_is_counted_once_and_can_be_left_out(call: Call, tmp_path: Path) -> None:
    """It has as much work as was asked for, 60 passes at most, and says what it took."""
    second = tmp_path / "second.png"
    Image.fromarray(pixels(SAMPLE)[:64, :64]).save(second)
    small = (SAMPLE, second, "--model", "convpool_cnn_c_crelu", "--layer", "conv1", "--size", 32, "--budget", 20)
    found = inverted(call, tmp_path / "both", *small, "--method", "map,gradient")
    assert [(record["method"], record["beside"] is not None) for record in found] == 2 * [
        ("map", True), ("gradient", False),
    ]  # fmt: skip
    alone = inverted(call, tmp_path / "alone", *small, "--method", "linear")
    for record, same in zip(found[::2], alone, strict=True):
        costs = ("method", "psnr", "ssim", "status", "forward_passes")
        assert [record["beside"][key] for key in costs] == [same[key] for key in costs]
        assert record["beside"]["seconds"] > 0
        assert same["beside"] is None
    without = inverted(call, tmp_path / "without", *small, "--method", "map,gradient", "--no-linear")
    assert all(record["beside"] is None for record in without)
    assert [record["psnr"] for record in without] == [record["psnr"] for record in found]
    # A row of pictures and one of differences fewer, of three.
    tall, low = (pixels(records[0]["comparison"]).shape[0] for records in (found, without))
    assert low - 10 == (tall - 10) * 4 / 6


def test_linear_beside_is_told_below_the_table(call: Call, tmp_path: Path) -> None:
    small = (SAMPLE, "--model", "convpool_cnn_c_crelu", "--layer", "conv1", "--size", 32, "--output", tmp_path)
    status, out, _ = call(*small)
    assert status == 0
    (told,) = [line for line in out.splitlines() if line.startswith("beside")]
    assert float(told.split()[4]) <= 60
    assert "--no-linear" in told
    assert "for comparison" not in call(*small, "--method", "map,linear")[1]


def test_the_table_and_the_word_invert(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("--model", "crelu_conv1_4", "--layer", "conv2", "--method", "linear", "--linear-form", "patch")
    status, out, err = call("invert", SAMPLE, *arguments)
    assert status == 0, err
    assert "conv2" in out
    assert "chelsea.crelu_conv1_4.comparison.png" in out
    assert call(*arguments, SAMPLE, "--quiet") == (0, "", "")


def test_native_size_is_trimmed_to_what_the_strides_cover(call: Call, tmp_path: Path) -> None:
    part = tmp_path / "part.png"
    Image.fromarray(pixels(SAMPLE)[100:180, 150:261]).save(part)
    options = ("--model", "crelu_conv1_4", "--layer", "conv1", "--native", "--tolerance", "1e-3")
    (record,) = inverted(call, tmp_path / "out", part, *options)
    assert pixels(record["output"]).shape == (79, 111, 3)  # 111 x 80: (80 - 11) % 4 = 1
    assert record["psnr"] > 35


def test_size_and_random_weights(call: Call, tmp_path: Path) -> None:
    """The same in two processes."""
    arguments = (SAMPLE, "--model", "crelu_all", "--random-weights", "1", "--layer", "conv1", "--size", "63")
    options = ("--json", "--budget", "60", "--output")
    (first,) = json.loads(run(*arguments, *options, str(tmp_path / "a")).stdout)
    (second,) = inverted(call, tmp_path / "b", *arguments, "--budget", 60)
    assert pixels(first["output"]).shape == (63, 63, 3)
    assert first["psnr"] == second["psnr"]


def test_a_name_that_looks_like_markup_is_told_whole(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "cat[bold].png"
    Image.fromarray(pixels(SAMPLE)).save(copy)
    status, out, err = call(copy, "--model", "crelu_conv1_4", "--layer", "conv2", *QUICK)
    assert status == 0, err
    assert "cat[bold].png" in out.split()


def test_a_bad_image_does_not_stop_the_others(call: Call, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not a picture")
    Image.new("RGB", (10, 10)).save(tmp_path / "tiny.png")
    options = ("--model", "crelu_conv1_4", "--layer", "conv2", *QUICK, "--json", "--output", tmp_path)
    status, out, err = call(tmp_path / "text.jpg", tmp_path / "tiny.png", SAMPLE, *options)
    assert status == 1
    assert [Path(record["image"]).name for record in json.loads(out)] == ["chelsea.jpg"]
    first, second = err.strip().splitlines()
    assert "text.jpg is not a picture" in first
    assert "tiny.png: an image of 10 x 10 pixels is smaller than the receptive field of conv2, 11 x 11" in second


def test_images_of_one_name_do_not_overwrite_each_other(call: Call, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    copy = tmp_path / "a" / "chelsea.png"
    Image.fromarray(pixels(SAMPLE)).save(copy)
    records = inverted(call, tmp_path, SAMPLE, copy, "--model", "crelu_conv1_4", "--layer", "conv2", *QUICK)
    assert [Path(r["output"]).name.split(".")[0] for r in records] == ["chelsea", "chelsea-2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "crelu_conv14", "--layer", "conv1"), "did you mean crelu_conv1_4"),
        (("--model", "crelu_conv1_4", "--layer", "conv33"), "did you mean conv3?"),
        (("--model", "crelu_conv1_4", "--layer", "CONV3"), "did you mean conv3?"),
        (("--model", "crelu_conv1_4", "--layer", "conv3+"), "'conv3+' joins layers by '+' and lacks one"),
        (("--model", "convpool_cnn_c", "--layer", "conv9"), "has no weights for conv9; it has them for conv1,"),
        (("--model", "avr_conv1_4", "--layer", "conv1"), "--random-weights SEED"),
        (("--model", "crelu_conv1_4", "--layer", "conv5", "--method", "linear"), "needs CReLU at and below conv5"),
        (("--model", "crelu_conv1_4", "--layer", "conv1", "--method", "lin"), "did you mean linear"),
        (("--model", "crelu_conv1_4", "--layer", "conv1", "--damping", "some"), "--damping is 'auto' or a number"),
        (("--model", "crelu_conv1_4", "--layer", "conv1", "--damping", "-1"), "0 or above"),
        (("--model", "crelu_conv1_4", "--layer", "conv1", "--device", "tpu"), "auto, cpu or cuda"),
        (("--model", "crelu_conv1_4", "--layer", "conv1", "--size", "50", "--native"), "give one of them"),
        (("--model", "crelu_conv1_4", "--layer", "conv4", "--size", "40"), "receptive field of conv4, 51 x 51"),
        (("--model", "crelu_conv1_4", "--layer", "conv1", "--size", "0"), "--size"),
        (("--model", "crelu_conv1_4", "--layer", "conv1", "--noise", "2"), "--noise is a share"),
        (("--model", "crelu_conv1_4", "--layer", "conv1", "--quantise", "int4"), "--quantise is float16 or int8"),
        (("--layer", "conv1"), "--model"),
        (("--model", "crelu_conv1_4", "--layer", "conv1", "--colour"), "--colour"),
    ],
)
def test_wrong_calls_get_one_clear_line(
    arguments: tuple[str, ...], message: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(call, SAMPLE, *arguments)
    assert not list(tmp_path.iterdir())


def test_no_cuda_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, whose torch has not looked for a GPU yet."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # which hides a GPU that may be there
    done = run(SAMPLE, "--model", "crelu_conv1_4", "--layer", "conv1", "--device", "cuda")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "finds no CUDA device" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_to_read_or_write(call: Call, tmp_path: Path) -> None:
    options = ("--model", "crelu_conv1_4", "--layer", "conv2", *QUICK)
    assert "nowhere.jpg does not exist" in refused(call, tmp_path / "nowhere.jpg", *options, status=1)
    assert "did you mean 'reconstruct models'" in refused(call, "modles", *options)
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "file" in refused(call, SAMPLE, *options, "--output", blocked, status=1)


def test_all_layers_skip_what_does_not_apply(call: Call, tmp_path: Path) -> None:
    several = (
        SAMPLE,
        "--model",
        "crelu_conv1_4",
        "--layer",
        "conv2,conv5",
        "--method",
        "linear,wiener",
        "--size",
        "99",
    )
    status, out, err = call(*several, "--budget", "10", "--json", "--output", tmp_path)
    assert status == 0, err
    assert [record["layer"] for record in json.loads(out)] == ["conv2", "conv2"]
    assert "skipped linear at conv5" in err
    every = (SAMPLE, "--model", "crelu_conv1_conv4_conv7", "--random-weights", "0", "--layer", "all")
    status, out, err = call(*every, "--method", "linear", "--linear-form", "patch", "--json", "--output", tmp_path)
    assert [record["layer"] for record in json.loads(out)] == ["conv1"]
    assert "skipped linear at conv12" in err


def test_what_a_sender_of_noisy_or_rounded_features_gives_away(call: Call, tmp_path: Path) -> None:
    arguments = (SAMPLE, "--model", "crelu_conv1_4", "--layer", "conv1", "--budget", "60", "--size", "63")
    found = {}
    for name, extra in (("as is", ()), ("float16", ("--quantise", "float16")), ("noise", ("--noise", "0.1"))):
        (found[name],) = inverted(call, tmp_path, *arguments, *extra)
    assert found["as is"]["noise"] == 0
    assert 0 < found["float16"]["noise"] < 2**-11
    assert abs(found["noise"]["noise"] - 0.1) < 0.01
    assert found["noise"]["psnr"] < found["float16"]["psnr"]


def test_writing_fails_cleanly_on_a_full_disk(tmp_path: Path) -> None:
    options = ("--model", "crelu_conv1_4", "--layer", "conv2", *QUICK)
    done = subprocess.run(
        [sys.executable, "-m", "reconstruct", SAMPLE, *options, "--output", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
        env=os.environ | {"MPLCONFIGDIR": str(tmp_path / "mpl")},
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("reconstruct: [Errno 27] File too large")
    assert not list(tmp_path.glob("*.png"))
    assert not list(tmp_path.glob(".*"))
