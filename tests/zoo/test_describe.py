import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from reconstruct import Network, describe
from reconstruct.zoo.specification import read_architecture
from tests.builders.specifications import NORMED, SMALL, write
from tests.conftest import Call


@pytest.mark.slow
def test_describe_counts_what_the_design_counts() -> None:
    model = json.loads(json.dumps(describe("crelu_conv1_4"), allow_nan=False))
    layers = {layer["name"]: layer for layer in model["layers"]}
    assert model["parameters"] == 10_139_680
    assert model["base"] == "all_cnn_b"
    assert layers["conv1"]["output_shape"] == [192, 55, 55]
    assert layers["conv1"]["unknowns"] == 3 * 227 * 227
    assert layers["conv4"]["unknowns"] == 96 * 28 * 28
    assert layers["conv4"]["equations"] == 256 * 28 * 28
    assert layers["conv4"]["receptive_field"] == 51
    assert 1000 < layers["conv1"]["condition_number"] < 10000
    assert layers["conv1"]["dimensions_lost"] == 0
    assert layers["conv3"]["dimensions_lost"] == pytest.approx(1 - 96 / 768)
    assert describe("convpool_cnn_c")["layers"][-1]["frame_bounds"] is None
    assert describe("avr_conv1_4")["layers"][0]["frame_bounds"] is None


def test_describe_has_max_poolings_too() -> None:
    model = json.loads(json.dumps(describe("convpool_cnn_c_crelu", random_weights=0), allow_nan=False))
    layers = {layer["name"]: layer for layer in model["layers"]}
    pool = layers["pool1"]
    assert (pool["kind"], pool["filters"], pool["activation"], pool["frame_bounds"]) == ("max_pool", None, None, None)
    assert (pool["kernel"], pool["stride"], pool["padding"], pool["parameters"]) == (3, 2, 1, 0)
    assert (pool["output_shape"], pool["receptive_field"]) == ([192, 16, 16], 9)
    # Both phases of a pair may survive pooling: all that it gives are unknowns of the layer above.
    assert pool["equations"] == layers["conv4"]["unknowns"] == 192 * 16 * 16
    assert pool["unknowns"] == 96 * 32 * 32
    assert layers["conv4"]["kind"] == "conv"
    assert layers["conv4"]["condition_number"] > 1


def test_describe_tells_poolings_apart(tmp_path: Path) -> None:
    layers = describe(write(tmp_path, "mine", NORMED), random_weights=0)["layers"]
    assert [layer["kind"] for layer in layers] == ["conv", "avg_pool", "conv", "conv"]
    pool = layers[1]
    assert (pool["filters"], pool["activation"], pool["frame_bounds"], pool["parameters"]) == (None, None, None, 0)
    assert (pool["output_shape"], pool["receptive_field"]) == ([8, 5, 5], 7)
    assert pool["equations"] == layers[2]["unknowns"] == 8 * 5 * 5
    assert all(layer["condition_number"] > 1 for layer in layers if layer["kind"] == "conv")


def test_a_layer_of_zeros_has_no_condition_number(tmp_path: Path, call: Call) -> None:
    weights = tmp_path / "w.safetensors"
    model = write(tmp_path, "zeros", f"weights = {json.dumps(weights.name)}\n{SMALL}")
    save_file(
        {key: torch.zeros_like(value) for key, value in Network(read_architecture(model)).state_dict().items()}, weights
    )
    layer, _ = json.loads(json.dumps(describe(model), allow_nan=False))["layers"]
    assert (layer["frame_bounds"], layer["condition_number"], layer["dimensions_lost"]) == ([0.0, 0.0], None, 1.0)
    status, out, _ = call("models", model)
    assert status == 0
    assert "0.0e+00 0.0" in out
