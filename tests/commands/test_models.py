"""``reconstruct models``."""

import json

from tests.builders.command_line import refused, run


def test_models() -> None:
    listed = json.loads(run("models", "--json").stdout)
    assert {"name", "base", "parameters", "weights", "source"} == listed[0].keys()
    shown = run("models", "all_cnn_b")
    assert "conv12" in shown.stdout
    described = json.loads(run("models", "all_cnn_b", "--json").stdout)
    assert described["layers"][0]["kernel"] == 11
    assert "no model 'alex'" in refused("models", "alex")
    table = run("models").stdout
    assert all(name in table for name in ("alexnet", "cifar_vgg_crelu_conv1_3_5", "vgg16"))
    alexnet = run("models", "alexnet").stdout
    assert "max-pooling" in alexnet
    assert run("models", "show", "alexnet").stdout == alexnet
    assert "import" in run("models", "--help").stdout
