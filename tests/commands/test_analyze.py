"""``reconstruct analyze``."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from reconstruct import load_image, load_model, save_image
from reconstruct.analysis.crelu.complexity import layer_complexity
from reconstruct.analysis.crelu.correlation import outgoing_correlation
from reconstruct.analysis.crelu.invariance.measure import invariance
from reconstruct.analysis.crelu.pairing import layer_pairs
from reconstruct.analysis.crelu.rectify import rectify
from reconstruct.zoo.paper_cells import ROWS
from tests.builders.command_line import refused
from tests.conftest import ROOT, Call

SAMPLE = ROOT / "samples" / "chelsea.jpg"
BOTH = "convpool_cnn_c_crelu,convpool_cnn_c"


def records(call: Call, output: Path, *arguments: str | Path | int) -> list[dict[str, Any]]:
    """What --json prints and nothing else, which is also what is written; every figure named can be opened."""
    status, out, err = call("analyze", *arguments, "--output", output, "--json")
    assert status == 0, err
    assert all(line.startswith("skipped: ") for line in err.splitlines()), err
    found: list[dict[str, Any]] = json.loads(out)
    assert json.loads((output / f"{arguments[0]}.json").read_text()) == found
    for each in found:
        if "figure" in each:
            with Image.open(each["figure"]) as figure:
                assert min(figure.size) > 60
    return found


def test_pairs(call: Call, tmp_path: Path) -> None:
    found = records(call, tmp_path, "pairs", "--model", BOTH, "--layer", "conv1,conv3", "--seed", 5)
    assert [(each["model"], each["layer"]) for each in found] == [
        (model, layer) for model in BOTH.split(",") for layer in ("conv1", "conv3")
    ]
    for each in found:
        expected = layer_pairs(load_model(each["model"]), each["layer"], 5).record()
        assert {key: each[key] for key in expected} == expected
    assert {path.name for path in tmp_path.iterdir()} == {
        "pairs.json", "pairs.png", *(Path(each["figure"]).name for each in found)
    }  # fmt: skip


def test_correlation(call: Call, tmp_path: Path) -> None:
    """The last layer with weights has none above it, and is left out of all layers."""
    found = records(call, tmp_path, "correlation", "--model", "convpool_cnn_c_crelu")
    net = load_model("convpool_cnn_c_crelu")
    names = [layer.name for layer in net.layers_with_weights][:-1]
    assert [each["layer"] for each in found] == names
    for each in found:
        expected = outgoing_correlation(net, each["layer"]).record()
        assert {key: each[key] for key in expected} == expected
    assert all(each["paper"] is None for each in found)
    assert (tmp_path / "correlation.png").is_file()


def test_table_6_beside_ours(call: Call, tmp_path: Path) -> None:
    """Of the paper's model all seven rows, of one with CReLU up to conv4 four; printed, and in JSON."""
    layers = ("--random-weights", 0, "--layer", "conv3,conv4,conv5")
    found = records(call, tmp_path, "correlation", "--model", "crelu_conv1_4", *layers)
    rows = [row.record() for row in ROWS if row.table == 6]
    assert [each["paper"] for each in found] == [rows[2], rows[3], None]
    arguments = ("analyze", "correlation", "--model", "crelu_conv1_7", "--random-weights", 0, "--layer", "conv1")
    status, out, err = call(*arguments, "--output", tmp_path)
    assert (status, err) == (0, "")
    assert "paper's pair" in out
    assert "0.372 ± 0.372" in out
    assert "0.165 ± 0.154" in out


def test_invariance(call: Call, tmp_path: Path) -> None:
    """A folder of pictures, one of them broken: what the library says of the others, models beside each other."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("coffee", "rocket"):
        (folder / f"{name}.jpg").write_bytes((ROOT / "samples" / f"{name}.jpg").read_bytes())
    (folder / "broken.jpg").write_bytes(SAMPLE.read_bytes()[:2000])
    out = tmp_path / "out"
    arguments = ("--model", BOTH, "--layer", "conv1,pool1", "--output", out, "--rate", 0.05)
    status, printed, err = call("analyze", "invariance", folder, *arguments, "--json")
    assert status == 0
    assert "1 images left out" in err
    assert "broken.jpg" in err
    found = json.loads(printed)
    assert [(each["model"], each["layer"], each["images"]) for each in found] == [
        (model, layer, 2) for model in BOTH.split(",") for layer in ("conv1", "pool1")
    ]
    net = load_model("convpool_cnn_c")
    pictures = torch.stack([load_image(folder / f"{name}.jpg", 32) for name in ("coffee", "rocket")])
    expected = [each.record() for each in invariance(net, [pictures], ["conv1", "pool1"], rate=0.05)]
    assert [{key: each[key] for key in expected[0]} for each in found[2:]] == expected
    with Image.open(out / "invariance.png") as figure:
        assert figure.width > 1000


def test_complexity_needs_no_weights(call: Call, tmp_path: Path) -> None:
    found = records(call, tmp_path, "complexity", "--model", "cifar_vgg,convpool_cnn_c", "--draws", 50)
    layers = [each for each in found if each["what"] == "layer"]
    nets = {"cifar_vgg": None, "convpool_cnn_c": load_model("convpool_cnn_c")}
    for each in layers:
        net = nets[each["model"]]
        assert (each["factor"] is None) == (net is None or each["layer"] in ("conv8", "conv9"))
    net = nets["convpool_cnn_c"]
    assert net is not None
    own = [{key: each[key] for key in each if key not in ("what", "model")} for each in layers[-9:]]
    assert own == [each.record() for each in layer_complexity(net.architecture, net)]
    assert [each["paper"] for each in found if each["what"] == "model"] == [None, None]
    estimates = [each for each in found if each["what"] == "rademacher"]
    assert {each["activation"] for each in estimates} == {"relu", "crelu", "avr"}
    assert {each["sample"] for each in estimates} == {"normal", "1 and -1"}


def test_rectify(call: Call, tmp_path: Path) -> None:
    """Images of one name are told apart; what cannot be read is said, and the rest is there."""
    (tmp_path / "in").mkdir()
    second = tmp_path / "in" / "chelsea.jpg"
    second.write_bytes((ROOT / "samples" / "rocket.jpg").read_bytes())
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(SAMPLE.read_bytes()[:2000])
    arguments = ("--model", BOTH, "--layer", "conv1", "--filter", "5,0", "--output", tmp_path / "out", "--json")
    status, out, err = call("analyze", "rectify", SAMPLE, broken, second, *arguments)
    assert status == 1
    assert err.count("broken.jpg") == 1
    found = json.loads(out)
    assert [each["filter"] for each in found] == [5, 0] * 4
    assert len({each["figure"] for each in found}) == 4
    net = load_model("convpool_cnn_c")
    expected = rectify(net, load_image(second, 32)[None], "conv1", [5])[0].record()
    status, out, _ = call("analyze", "rectify", second, *arguments[:-1], "--shades")
    assert status == 0
    assert f"0%, {expected['shades']['relu'][1]:.0%}, {expected['shades']['relu'][2]:.0%}" in out
    (one,) = (e for e in found if (e["image"], e["model"], e["filter"]) == (str(second), net.name, 5))
    assert {key: one[key] for key in expected} == expected


def test_spectra_of_tones(call: Call, tmp_path: Path) -> None:
    """Every part's numbers and figures; the example's DC by 50 and 100 terms is within 1.2 and 0.6 %."""
    small = ("--seeds", 1, "--epochs", 2, "--count", 4, "--steps", 2)
    status, out, err = call("analyze", "spectrum", "--output", tmp_path, "--json", *small)
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert json.loads((tmp_path / "spectrum.json").read_text()) == found
    by_terms = {each["terms"]: each for each in found if each["what"] == "series"}
    assert by_terms[50]["dc_error"] < 0.012
    assert by_terms[100]["dc_error"] < 0.006
    (coefficients,) = (each["values"] for each in found if each["what"] == "coefficients")
    assert coefficients[:5] == [1, 1 / 2, -1 / 8, 1 / 16, -5 / 128]
    lines = {each["frequency"]: each for each in found if each["what"] == "line"}
    for frequency in (0, 5, 10, 15, 20):
        line = lines[frequency]
        # No line of a difference is larger than the difference anywhere.
        assert abs(line["measured"] - line["predicted"]) <= 2 * by_terms[50]["largest_error_bound"]
    assert {each["network"] for each in found if each["what"] == "network"} == {
        "input", "differentiating", "averaging"
    }  # fmt: skip
    trained = {each["network"]: each for each in found if each["what"] == "training"}
    assert trained.keys() == {"relu", "linear", "linear_dc"}
    assert len(trained["relu"]["loss"]) == 2
    layers = [each for each in found if each["what"] == "pulse_layer"]
    assert [each["rate"] for each in layers] == [32] * 3 + [8] * 3 + [4] * 3
    # The waves have no mean, and neither has the first layer's response to them, but for the border.
    assert layers[0]["dc_share_before"] < 0.05 < layers[0]["dc_share_after"]
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    names = [
        "dc",
        "example",
        "networks",
        "pulse.block1_relu3",
        "pulse.block2_relu3",
        "pulse.layers",
        "series",
        "training",
    ]
    assert pictures == [f"spectrum.{name}.png" for name in names]


def test_spectra_of_a_picture(call: Call, tmp_path: Path) -> None:
    arguments = ("--model", BOTH, "--layer", "conv1,conv2", "--output", tmp_path, "--json")
    status, out, err = call("analyze", "spectrum", SAMPLE, "nothing.png", *arguments)
    assert status == 1
    assert err.count("nothing.png does not exist") == 1
    found = json.loads(out)
    assert [(each["model"], each["layer"]) for each in found] == [
        (model, layer) for model in BOTH.split(",") for layer in ("conv1", "conv2")
    ]
    for each in found:
        share, energy = each["dc_share"], each["energy"]
        assert share["difference"] == pytest.approx(share["responses"])
        assert share["relu"] > share["responses"]
        assert energy["relu"] + energy["negative"] == pytest.approx(1)
        assert Path(each["figure"]).is_file()


def test_the_table(call: Call, tmp_path: Path) -> None:
    """Whole lines, models and layers by name, where the figures are; nothing at all with --quiet."""
    arguments = ("analyze", "pairs", "--model", BOTH, "--layer", "conv1", "--output", tmp_path)
    status, out, err = call(*arguments)
    assert (status, err) == (0, "")
    assert len(out.splitlines()) == 4
    for word in ("convpool_cnn_c_crelu  conv1", "96 of 3 x 3 x 3", "same covariance", str(tmp_path / "pairs.json")):
        assert word in out
    assert call(*arguments, "--quiet") == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pairs", "--model", "convpool_cnn_c", "--layer", "pool1"), "max-pooling pool1 has no weights"),
        (("pairs", "--model", "convpool_cnn_c", "--layer", "conv9"), "has no weights for conv9"),
        (("pairs", "--model", "cifar_vgg"), "--random-weights"),
        (("pairs", "--model", "convpool_cn"), "convpool_cnn_c"),
        (("pairs", "--model", ","), "names no model"),
        (("correlation", "--model", BOTH, "--layer", "conv8"), "no convolution with weights above conv8"),
        (("complexity", "--model", "cifar_vgg", "--layer", "pool1"), "poolings cost nothing"),
        (("invariance", "nowhere", "--model", "convpool_cnn_c"), "nowhere does not exist"),
        (
            ("invariance", ROOT / "samples", "--model", "convpool_cnn_c", "--rate", "2", "--quiet"),
            "rate lies in (0, 1)",
        ),
        (("spectrum", "--part", "series,bass"), "not 'bass'"),
        (("spectrum", SAMPLE), "add --model"),
        (("spectrum", "--model", "convpool_cnn_c"), "name at least one picture"),
        (("spectrum", "--tones", "5,x"), "--tones is numbers with commas"),
        (("spectrum", "--tones", "5,600"), "between 0 and half of the rate"),
        (("spectrum", "--amplitudes", "1,2"), "one amplitude"),
        (("spectrum", SAMPLE, "--model", "convpool_cnn_c", "--layer", "pool1"), "pool1 has no activation"),
        (("rectify", SAMPLE, "--model", "convpool_cnn_c", "--layer", "conv1", "--filter", "a"), "numbers with commas"),
        (("rectify", SAMPLE, "--model", "convpool_cnn_c", "--layer", "conv1", "--filter", "96"), "filters 0 to 95"),
    ],
)
def test_wrong_calls(call: Call, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    status, out, err = call("analyze", *arguments, "--output", tmp_path)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_layers_of_a_module_go_by_its_own_names(call: Call, tmp_path: Path) -> None:
    """The chain has one layer where the module has a convolution, a norm and an activation."""
    model = ("--model", "tests.builders.modules:published", "--output", tmp_path, "--json")
    status, out, err = call("analyze", "correlation", *model, "--layer", "1")
    assert status == 0, err
    assert [record["layer"] for record in json.loads(out)] == ["0"]


def test_each_model_counts_its_own_images(call: Call, tmp_path: Path) -> None:
    """A picture may be too small for one model, and not for another."""
    (tmp_path / "set").mkdir()
    for name, size in (("small", 5), ("large", 24)):
        save_image(load_image(SAMPLE, size), tmp_path / "set" / f"{name}.png")
    specification = "input_size = 20\nmean = [0.5, 0.5, 0.5]\nstd = [0.2, 0.2, 0.2]\n"
    for name, kernel in (("fine", 3), ("coarse", 9)):
        layer = f'layers = [{{ name = "a", filters = 4, kernel = {kernel} }}]\n'
        (tmp_path / f"{name}.toml").write_text(specification + layer)
    models = ",".join(str(tmp_path / f"{name}.toml") for name in ("fine", "coarse"))
    arguments = ("--model", models, "--random-weights", 0, "--rate", 0.1, "--json", "--output", tmp_path / "out")
    status, out, err = call("analyze", "invariance", tmp_path / "set", *arguments)
    assert status == 0, err
    assert {each["model"]: each["images"] for each in json.loads(out)} == {"fine": 2, "coarse": 1}
    assert "1 images left out: " in err


def test_complexity_of_two_models_of_one_name(call: Call, tmp_path: Path) -> None:
    text = 'base = "convpool_cnn_c"\n'
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.toml").write_text(text)
    models = f"{tmp_path / 'one' / 'mine.toml'},{tmp_path / 'two' / 'mine.toml'}"
    assert "two of the models have one name" in refused(call, "analyze", "complexity", "--model", models)
