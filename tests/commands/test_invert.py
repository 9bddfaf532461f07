"""``reconstruct IMAGE...``, the main job."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from PIL import Image

from tests.builders.command_line import SAMPLE, refused, run

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
}


def pixels(path: str | Path) -> numpy.ndarray:
    with Image.open(path) as image:
        return numpy.asarray(image.convert("RGB"))


def test_the_main_job(tmp_path: Path) -> None:
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
    # Two rows, map and the reference linear: original, conv1, conv2; each pixel for pixel.
    figure = pixels(out / "chelsea.crelu_conv1_4.comparison.png")
    assert figure.shape[1] == 3 * (227 + 10) + 10
    assert numpy.array_equal(figure[10:237, 247:474], pixels(out / "chelsea.crelu_conv1_4.conv1.map.png"))
    assert figure.shape[0] > 2 * 227


def test_the_table_and_the_word_invert(tmp_path: Path) -> None:
    call = ("--model", "crelu_conv1_4", "--layer", "conv2", "--method", "linear", "--linear-form", "patch")
    done = run("invert", SAMPLE, *call, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "conv2" in done.stdout
    assert "chelsea.crelu_conv1_4.comparison.png" in done.stdout
    silent = run(*call, SAMPLE, "--quiet", cwd=tmp_path)
    assert (silent.returncode, silent.stdout, silent.stderr) == (0, "", "")


def test_native_size_is_trimmed_to_what_the_strides_cover(tmp_path: Path) -> None:
    call = ("--model", "crelu_conv1_4", "--layer", "conv1", "--native", "--json", "--output", str(tmp_path))
    done = run(SAMPLE, *call, "--tolerance", "1e-3")
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert pixels(record["output"]).shape == (299, 451, 3)  # 451 x 300: (300 - 11) % 4 = 1
    assert record["psnr"] > 35


def test_size_and_random_weights(tmp_path: Path) -> None:
    call = (SAMPLE, "--model", "crelu_all", "--random-weights", "1", "--layer", "conv1", "--size", "100", "--json")
    first, second = (json.loads(run(*call, "--output", str(tmp_path / name)).stdout) for name in "ab")
    assert pixels(first[0]["output"]).shape == (100, 100, 3)
    assert first[0]["psnr"] == second[0]["psnr"]


def test_a_name_that_looks_like_markup_is_told_whole(tmp_path: Path) -> None:
    copy = tmp_path / "cat[bold].png"
    Image.fromarray(pixels(SAMPLE)).save(copy)
    done = run(str(copy), "--model", "crelu_conv1_4", "--layer", "conv2", "--method", "linear", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "cat[bold].png" in done.stdout.split()


def test_a_bad_image_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not a picture")
    Image.new("RGB", (10, 10)).save(tmp_path / "tiny.png")
    call = ("--model", "crelu_conv1_4", "--layer", "conv2", "--json", "--output", str(tmp_path))
    done = run(str(tmp_path / "text.jpg"), str(tmp_path / "tiny.png"), SAMPLE, *call)
    assert done.returncode == 1
    assert [Path(record["image"]).name for record in json.loads(done.stdout)] == ["chelsea.jpg"]
    first, second = done.stderr.strip().splitlines()
    assert "text.jpg is not a picture" in first
    assert "tiny.png: an image of 10 x 10 pixels is smaller than the receptive field of conv2, 11 x 11" in second


def test_images_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    copy = tmp_path / "a" / "chelsea.png"
    Image.fromarray(pixels(SAMPLE)).save(copy)
    call = ("--model", "crelu_conv1_4", "--layer", "conv2", "--json", "--output", str(tmp_path))
    records = json.loads(run(SAMPLE, str(copy), *call).stdout)
    assert [Path(r["output"]).name.split(".")[0] for r in records] == ["chelsea", "chelsea-2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "crelu_conv14", "--layer", "conv1"), "did you mean crelu_conv1_4"),
        (("--model", "crelu_conv1_4", "--layer", "conv33"), "did you mean conv3?"),
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
def test_wrong_calls_get_one_clear_line(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    assert message in refused(SAMPLE, *arguments, cwd=tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_cuda_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # which hides a GPU that may be there
    assert "finds no CUDA device" in refused(SAMPLE, "--model", "crelu_conv1_4", "--layer", "conv1", "--device", "cuda")


def test_nothing_to_read_or_write(tmp_path: Path) -> None:
    call = ("--model", "crelu_conv1_4", "--layer", "conv2")
    assert "nowhere.jpg does not exist" in refused(str(tmp_path / "nowhere.jpg"), *call, status=1)
    assert "there is a command 'models'" in refused("modles", *call, status=1)
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "file" in refused(SAMPLE, *call, "--output", str(blocked), status=1)


def test_all_layers_skip_what_does_not_apply(tmp_path: Path) -> None:
    call = (SAMPLE, "--model", "crelu_conv1_4", "--layer", "conv2,conv5", "--method", "linear,wiener", "--json")
    done = run(*call, "--budget", "10", "--output", str(tmp_path))
    assert done.returncode == 0
    assert [record["layer"] for record in json.loads(done.stdout)] == ["conv2", "conv2"]
    assert "skipped linear at conv5" in done.stderr
    small = (SAMPLE, "--model", "crelu_conv1_conv4_conv7", "--random-weights", "0", "--layer", "all", "--json")
    done = run(*small, "--method", "linear", "--linear-form", "patch", "--output", str(tmp_path))
    assert [record["layer"] for record in json.loads(done.stdout)] == ["conv1"]
    assert "skipped linear at conv12" in done.stderr


def test_what_a_sender_of_noisy_or_rounded_features_gives_away(tmp_path: Path) -> None:
    call = (SAMPLE, "--model", "crelu_conv1_4", "--layer", "conv1", "--json", "--budget", "60", "--size", "100")
    found = {}
    for name, extra in (("as is", ()), ("float16", ("--quantise", "float16")), ("noise", ("--noise", "0.1"))):
        done = run(*call, *extra, "--output", str(tmp_path))
        assert done.returncode == 0, done.stderr
        (found[name],) = json.loads(done.stdout)
    assert found["as is"]["noise"] == 0
    assert 0 < found["float16"]["noise"] < 2**-11
    assert abs(found["noise"]["noise"] - 0.1) < 0.01
    assert found["noise"]["psnr"] < found["float16"]["psnr"]


def test_writing_fails_cleanly_on_a_full_disk(tmp_path: Path) -> None:
    call = ("--model", "crelu_conv1_4", "--layer", "conv2")
    done = subprocess.run(
        [sys.executable, "-m", "reconstruct", SAMPLE, *call, "--output", str(tmp_path)],
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
