"""``reconstruct models``."""

import json

from tests.builders.command_line import refused
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
    table = printed(call)
    assert all(name in table for name in ("alexnet", "cifar_vgg_crelu_conv1_3_5", "vgg16"))
    alexnet = printed(call, "alexnet")
    assert "max-pooling" in alexnet
    assert printed(call, "show", "alexnet") == alexnet
    assert "import" in printed(call, "--help")
