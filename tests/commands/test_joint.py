"""Layers that ``--layer`` joins by ``+``, on the command lines."""

import json
from pathlib import Path

import pytest

from reconstruct.images.files import load_image
from tests.conftest import ROOT, Call

SAMPLE = ROOT / "samples" / "chelsea.jpg"
JOB = ("--model", "crelu_conv1_4", "--layer", "conv2+conv3")


def test_two_layers_as_one(call: Call, tmp_path: Path) -> None:
    options = ("--size", "63", "--budget", "30", "--noise", "0.1", "--json", "--output", tmp_path)
    status, out, err = call(SAMPLE, *JOB, *options)
    assert (status, err) == (0, "")
    (record,) = json.loads(out)
    assert record["layer"] == "conv2+conv3"
    assert record["psnr"] > 20
    assert 0.08 < record["noise"] < 0.12
    assert Path(record["output"]).name == "chelsea.crelu_conv1_4.conv2+conv3.map.png"
    assert load_image(record["output"]).shape == (3, 63, 63)


def test_what_says_nothing_more_is_told(call: Call, tmp_path: Path) -> None:
    options = ("--size", "63", "--budget", "30", "--output", tmp_path)
    status, _, err = call(SAMPLE, *JOB, *options)
    assert status == 0
    assert "conv2+conv3: conv3 says nothing that exact features of conv2 do not" in " ".join(err.split())
    assert call(SAMPLE, *JOB, *options, "--quiet") == (0, "", "")


@pytest.mark.parametrize("noise", ["0", "0.05"])
def test_files_of_both_give_the_main_jobs_picture(call: Call, tmp_path: Path, noise: str) -> None:
    small = ("--size", "63")
    sent, main, received = tmp_path / "sent", tmp_path / "main", tmp_path / "received"
    assert call("features", SAMPLE, *JOB, *small, "--quiet", "--output", sent) == (0, "", "")
    files = [sent / f"chelsea.crelu_conv1_4.{layer}.safetensors" for layer in ("conv2", "conv3")]
    both = "+".join(map(str, files))
    assert call("--features", both, *JOB, "--budget", "30", "--quiet", "--output", received) == (0, "", "")
    assert call(SAMPLE, *JOB, *small, "--budget", "30", "--quiet", "--output", main) == (0, "", "")
    name = "chelsea.crelu_conv1_4.conv2+conv3.map.png"
    assert (received / name).read_bytes() == (main / name).read_bytes()
    status, _, err = call("--features", files[0], *JOB, "--noise", noise, "--output", received)
    assert status == 2
    assert "needs features of each, as --features A.npy+B.npy" in " ".join(err.split())


def test_noise_that_a_file_states_is_not_taken_for_exact(call: Call, tmp_path: Path) -> None:
    small = ("--size", "63", "--noise", "0.05", "--quiet")
    assert call("features", SAMPLE, *JOB, *small, "--output", tmp_path) == (0, "", "")
    files = "+".join(str(tmp_path / f"chelsea.crelu_conv1_4.{layer}.safetensors") for layer in ("conv2", "conv3"))
    status, _, err = call("--features", files, *JOB, "--budget", "10", "--output", tmp_path)
    assert (status, "says nothing" in err) == (0, False)


def test_other_methods_say_that_they_take_one(call: Call, tmp_path: Path) -> None:
    status, out, err = call(SAMPLE, *JOB, "--method", "linear", "--output", tmp_path)
    assert (status, out) == (2, "")
    assert "method linear inverts one layer at a time; map inverts conv2 and conv3 together" in " ".join(err.split())
    assert not any(tmp_path.iterdir())


def test_an_evaluation(call: Call, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "chelsea.jpg").write_bytes(SAMPLE.read_bytes())
    status, out, err = call(
        "evaluate", tmp_path / "set", "--model", "crelu_conv1_4", "--layer", "conv2,conv2+conv3", "--size", "63",
        "--budget", "20", "--noise", "0.1", "--json", "--output", tmp_path / "results",
    )  # fmt: skip
    assert (status, err) == (0, "")
    layers = {row["layer"] for row in json.loads(out)["results"]}
    assert layers == {"conv2", "conv2+conv3"}


def test_files_of_images_of_different_sizes_are_refused(call: Call, tmp_path: Path) -> None:
    for layer, size in (("conv2", 63), ("conv3", 71)):
        arguments = ("--model", "crelu_conv1_4", "--layer", layer, "--size", size, "--quiet", "--output", tmp_path)
        assert call("features", SAMPLE, *arguments) == (0, "", "")
    files = "+".join(str(tmp_path / f"chelsea.crelu_conv1_4.{layer}.safetensors") for layer in ("conv2", "conv3"))
    status, _, err = call("--features", files, *JOB, "--output", tmp_path)
    assert status == 2
    assert "of images of different sizes, 63x63, 71x71: say which is right" in " ".join(err.split())
