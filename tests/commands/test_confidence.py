"""``--confidence`` on the command line."""

import json
from pathlib import Path

import numpy
import pytest
from PIL import Image

from tests.conftest import ROOT, Call

SAMPLE = ROOT / "samples" / "chelsea.jpg"
JOB = ("--model", "crelu_conv1_4", "--size", "63", "--budget", "30")


def test_it_is_written_and_drawn(call: Call, tmp_path: Path) -> None:
    status, out, err = call(SAMPLE, *JOB, "--layer", "conv1,conv2", "--confidence", "--json", "--output", tmp_path)
    assert (status, err) == (0, "")
    for record in json.loads(out):
        values = numpy.load(record["confidence"])
        assert Path(record["confidence"]).name == f"chelsea.crelu_conv1_4.{record['layer']}.map.confidence.npy"
        assert values.shape == (1, 63, 63)
        assert values.dtype == numpy.float32
        assert values.min() > 0
        assert record["expected_error"] == pytest.approx(values.mean(), rel=1e-5)
    with Image.open(record["comparison"]) as drawn, _without(call, tmp_path / "without") as bare:
        # A row more, of the same width.
        assert drawn.width == bare.width
        assert drawn.height * 4 == pytest.approx(bare.height * 5, abs=40)


def _without(call: Call, folder: Path) -> Image.Image:
    status, out, _ = call(SAMPLE, *JOB, "--layer", "conv1,conv2", "--json", "--output", folder)
    assert status == 0
    (record, _) = json.loads(out)
    assert "confidence" not in record
    return Image.open(record["comparison"])


def test_another_method_has_none(call: Call, tmp_path: Path) -> None:
    options = ("--layer", "conv1", "--method", "map,linear", "--confidence", "--output", tmp_path)
    status, _, err = call(SAMPLE, *JOB, *options)
    assert status == 2
    assert "is known of method map, not of linear" in " ".join(err.split())
    assert not list(tmp_path.iterdir())
