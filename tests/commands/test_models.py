"""``reconstruct models``."""

import json
from pathlib import Path

from tests.builders.command_line import SAMPLE, refused
from tests.conftest import Call


def printed(call: Call, *arguments: str) -> str:
    status, out, err = call("models", *arguments)
    assert (status, err) == (0, "")
    return out


def test_models(call: Call) -> None:
    listed = json.loads(printed(call, "--json"))
    assert {"name", "base", "parameters", "weights", "source"} == listed[0].keys()
    assert "conv12" in printed(call, "all_cnn_b")
    described = json.loads(printed(call, "all_cnn_b", "--json"))
    assert described["layers"][0]["kernel"] == 11
    assert "no model 'alex'" in refused(call, "models", "alex")
    with_weights = [each["weights"] is not None for each in listed]
    assert with_weights == sorted(with_weights, reverse=True)
    assert {True, False} == set(with_weights)
    table = printed(call)
    assert all(name in table for name in ("alexnet", "cifar_vgg_crelu_conv1_3_5", "vgg16"))
    alexnet = printed(call, "alexnet")
    assert "max-pooling" in alexnet
    assert printed(call, "show", "alexnet") == alexnet
    assert "import" in printed(call, "--help")


def test_modules_are_shown_like_models(call: Call) -> None:
    """With how their pictures are made, where the publisher states it."""
    said = printed(call, "tests.builders.modules:published")
    assert "pictures: the shorter side resized to 40 by bilinear interpolation, the middle 32 x 32 cut out" in said
    assert "normalised by mean 0.485, 0.456, 0.406 and standard deviation 0.229, 0.224, 0.225" in said
    described = json.loads(printed(call, "tests.builders.modules:published", "--json"))
    assert (described["mean"], described["prepared"]["resize"]) == ([0.485, 0.456, 0.406], 40)
    assert [layer["name"] for layer in described["layers"]] == [str(number) for number in range(10)]
    plain = json.loads(printed(call, "tests.builders.modules:resnet", "--json"))
    assert (plain["prepared"], plain["std"]) == (None, [0.229, 0.224, 0.225])


def test_a_layer_whose_field_cannot_be_measured_is_shown(call: Call) -> None:
    """Its module refuses tensors with a gradient."""
    model = "tests.builders.user_modules:numpy_inside"
    described = json.loads(printed(call, model, "--json"))
    fields = {layer["name"]: layer["receptive_field"] for layer in described["layers"]}
    assert fields == {"conv": 3, "(output)": None}
    assert "(output) " in printed(call, model)


def test_another_size_than_the_publishers_is_told(call: Call, tmp_path: Path) -> None:
    for options, told in (
        ((), None),
        (("--size", "24"), "--size 24 does without that"),
        (("--native",), "--native does without that"),
    ):
        model = ("--model", "tests.builders.modules:published", "--layer", "1", "--output", tmp_path)
        status, _, err = call("features", SAMPLE, *model, *options)
        assert status == 0, err
        assert (told is None) == ("the publisher's weights: the shorter side resized to 40" not in err)
        assert told is None or told in err
