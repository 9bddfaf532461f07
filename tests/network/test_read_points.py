"""Taps and split points: what is read of a layer, and names for it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image

from reconstruct import (
    CallError,
    Convolution,
    ModelError,
    disturb,
    invert,
    linear_operator,
    load_image,
    load_model,
    quality,
)
from reconstruct.evaluation.batch import Item, Job, evaluate_batch
from reconstruct.evaluation.provenance import fingerprint
from reconstruct.evaluation.results import read_rows, read_run
from reconstruct.images.features import read_features
from reconstruct.inversion.methods import applicable
from reconstruct.network.activations import TAPS, activate
from reconstruct.network.architecture import Architecture, Layer, Split
from reconstruct.network.module import from_torch
from reconstruct.network.network import Network
from reconstruct.network.read_points import layer_list, named_chain, point, points
from reconstruct.network.surgery import randomise, with_tap
from reconstruct.zoo.describe import describe
from reconstruct.zoo.specification import read_architecture
from reconstruct.zoo.specification_text import specification_text
from tests.builders.modules import IMAGENET, ResNet, chain, drawn
from tests.conftest import SAMPLES, Call

RELU = Architecture(
    "small",
    (
        Layer("a", 32, 3, padding=1),
        Layer("p", kernel=2, stride=2, kind="max_pool"),
        Layer("b", 8, 3, padding=1, activation="leaky_relu", slope=0.1),
    ),
    8,
    (0.5, 0.4, 0.3),
    (0.2, 0.3, 0.25),
)
NAMES = [f"{kind}{number}" for number in (11, 12, 21, 22, 31, 32) for kind in ("conv", "ReLU")]


@pytest.fixture
def relu() -> Network:
    return randomise(Network(RELU), 0).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def split() -> Network:
    return load_model("cifar_split")


@pytest.mark.parametrize(("tap", "activation"), TAPS.items())
@pytest.mark.parametrize("layer", ["a", "b"])
def test_a_tap_is_the_activation_of_the_responses(
    relu: Network, layer: str, tap: str, activation: str, generator: torch.Generator
) -> None:
    images = torch.rand(2, 3, 8, 8, generator=generator)
    before = torch.get_rng_state()
    tapped = with_tap(relu, layer, tap)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(tapped.features(images, layer), activate(relu.responses(images, layer), activation))
    assert torch.equal(tapped.features(images, "a"), relu.features(images, "a")) or layer == "a"
    assert tapped.layer_names == relu.layer_names[: relu.layer_names.index(layer) + 1]
    assert tapped.convolution(layer) is relu.convolution(layer)
    assert not any(value.is_meta for value in (*tapped.parameters(), *tapped.buffers()))
    assert not tapped.training
    assert relu.layer(layer) == next(each for each in RELU.layers if each.name == layer)


def test_what_cannot_be_tapped_is_refused(relu: Network) -> None:
    with pytest.raises(CallError, match="the max-pooling p has no activation to replace"):
        with_tap(relu, "p", "crelu")
    with pytest.raises(CallError, match="unknown tap 'leaky_relu'; there are responses, relu, crelu, avr"):
        with_tap(relu, "b", "leaky_relu")
    with pytest.raises(CallError, match="no layer 'c'"):
        with_tap(relu, "c", "relu")


@pytest.mark.parametrize("tap", ["crelu", "responses"])
def test_linear_undoes_a_relu_networks_first_layer_where_both_phases_are_read(
    relu: Network, tap: str, generator: torch.Generator
) -> None:
    """|x' - x| <= |A (x' - x)| / s_min and |A x| <= s_max |x|: the image's error is at most the condition number times
    the residual, whatever computed x'."""
    images = torch.rand(2, 3, 8, 8, generator=generator)
    assert "needs CReLU" in str(applicable(relu, "a", "linear"))
    tapped = with_tap(relu, "a", tap)
    result = invert(tapped, tapped.features(images, "a"), "a", "linear", tolerance=1e-7)
    operator = Convolution(relu.convolution("a").weight.double(), 1, 1, (8, 8), torch.float64)
    pixels = numpy.eye(3 * 64).reshape(-1, 3, 8, 8)
    values = numpy.linalg.svd(operator.apply(pixels).reshape(3 * 64, -1), compute_uv=False)
    condition = values[0] / values[-1]
    assert values.size == 3 * 64  # more responses than unknowns: nothing is lost
    x, found = ((each - relu.mean) / relu.std for each in (images, result.image))
    error = (found - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
    # Images and residuals are float32.
    assert (error <= condition * (torch.tensor(result.feature_residual) + 1e-6)).all()
    assert result.status == ["converged", "converged"]
    assert float(error.max()) < condition * 2e-6 < 1e-4


def test_what_is_prepared_for_a_tap_is_there_for_the_next_batch(relu: Network) -> None:
    draw = numpy.random.default_rng(0)
    items = [Item(i, f"{i}.png", draw.integers(0, 256, (12, 12, 3), dtype=numpy.uint8)) for i in range(4)]
    job = Job({"a": ["linear"]}, tap="crelu")
    first, second = (evaluate_batch(relu, part, job) for part in (items[:2], items[2:]))
    assert [row["error"] for row in (*first, *second)] == [None] * 4
    assert first[0]["prepare_passes"] > 0
    assert [row["prepare_passes"] for row in second] == [0, 0]
    assert min(row["psnr"] for row in (*first, *second)) > 60


def test_the_network_of_he_zhang_lee(split: Network) -> None:
    architecture = split.architecture
    theirs = 9 * (3 * 64 + 64 * 64 + 64 * 128 + 3 * 128 * 128)
    assert architecture.parameters() - architecture.parameters("classes") == theirs == 554_688
    assert architecture.response_sizes((32, 32))["pool3"] == (4, 4)
    assert architecture.layers[architecture.index("pool3")].channels * 4 * 4 == 2048  # their feature_dims
    assert split.layer_names[-1] == "pool3"
    assert list(architecture.splits) == NAMES
    assert describe("cifar_split")["splits"]["ReLU31"] == {"layer": "conv31", "tap": "relu"}


def test_a_split_point_is_what_its_authors_call_so(split: Network, generator: torch.Generator) -> None:
    images = torch.rand(1, 3, 32, 32, generator=generator)
    for name in NAMES:
        layer = f"conv{name[4:]}"
        own = split.responses(images, layer)
        own = own if name.startswith("conv") else own.relu()
        assert torch.equal(split.features(images, name), own)
        at = point(split, name)
        assert torch.equal(at.features(images), own)
        assert (at.name, at.layer) == (name, layer)
    assert point(split, "ReLU22").net is point(split, "ReLU22").net
    pool = point(split, "pool1")
    assert (pool.net.layers, pool.layer, pool.tap) == (split.layers, "pool1", None)
    # Whoever inverts it asks its network for layers, which have names of their own there.
    assert torch.equal(pool.net.features(images, "conv12"), split.features(images, "ReLU12"))
    # With a tap the name is the layer's.
    assert torch.equal(point(split, "conv11", "relu").features(images), point(split, "ReLU11").features(images))
    assert [at.tap for at in points(split, "all")] == ["responses"] * 6
    assert [at.tap for at in points(split, "ReLU11, conv12,ReLU11")] == ["relu", "responses"]
    assert layer_list(split, "ReLU22,conv22,pool1") == ["conv22", "pool1"]


def test_several_are_read_in_one_pass(split: Network, generator: torch.Generator) -> None:
    images = torch.rand(2, 3, 32, 32, generator=generator)
    found = split.features_of(images, ["ReLU12", "conv12", "pool1", "ReLU21"])
    assert list(found) == ["ReLU12", "conv12", "pool1", "ReLU21"]
    for name, values in found.items():
        assert torch.equal(values, split.features(images, name))
    where = split.switches(images, "pool1").flatten(2)
    assert torch.equal(found["ReLU12"].flatten(2).gather(2, where), found["pool1"].flatten(2))


@pytest.mark.parametrize("name", ["conv12", "ReLU12", "pool1"])
def test_a_name_is_one_tensor_in_python_and_on_the_command_line(
    name: str, split: Network, call: Call, tmp_path: Path
) -> None:
    """The features that are written, and what comes back of them."""
    image = load_image(SAMPLES[0], 32)[None]
    features = split.features(image, name)
    status, _, err = call("features", SAMPLES[0], "--model", "cifar_split", "--layer", name, "--output", tmp_path)
    assert status == 0, err
    stem = f"{SAMPLES[0].stem}.cifar_split.{name}"
    assert torch.equal(read_features(str(tmp_path / f"{stem}.safetensors")).values, features)
    result = invert(split, features, name, "gradient", budget=30)  # it prepares nothing
    (row,) = records(call, tmp_path, "--layer", name, "--method", "gradient")
    assert quality(image, result.image).psnr[0] == pytest.approx(row["psnr"], abs=1e-3)
    assert result.feature_residual[0] == pytest.approx(row["feature_residual"], rel=1e-3)


def test_scipy_sees_the_split_point(split: Network) -> None:
    """The responses that ReLU11 comes from are conv11."""
    before, after = (linear_operator(split, name, 32) for name in ("conv11", "ReLU11"))
    vector = numpy.random.default_rng(0).standard_normal(before.shape[1])
    assert numpy.array_equal(before @ vector, after @ vector)


def test_names_that_mean_nothing_are_refused(split: Network) -> None:
    with pytest.raises(CallError, match="ReLU22 of cifar_split reads relu of conv22: name the layer to read its crelu"):
        point(split, "ReLU22", "crelu")
    with pytest.raises(CallError, match="no layer 'ReLU2'; did you mean ReLU"):
        point(split, "ReLU2")
    with pytest.raises(CallError, match="ReLU22 of cifar_split is a split point and no layer: its layer is conv22"):
        split.layer("ReLU22")
    with pytest.raises(CallError, match="no weights for classes"):
        points(split, "classes")


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ('q = { layer = "c", tap = "relu" }', "split point q: there is no layer 'c'"),
        ('q = { layer = "a", tap = "rely" }', "tap is one of responses, relu, crelu, avr, not 'rely'"),
        ('q = { layer = "p", tap = "relu" }', "split point q: p is a pooling and has no tap"),
        ('b = { layer = "a", tap = "relu" }', "split point b is of a, and b is a layer"),
        ('q = { layer = "a" }', "splits is a table"),
        ('q = { layer = "a", tap = "relu", at = "b" }', "splits is a table"),
        ('q = { layer = "a", tap = 1 }', "splits is a table"),
        ('q = "a"', "splits is a table"),
        ('"q,r" = { layer = "a", tap = "relu" }', "'q,r' is not a plain word"),
        ('all = { layer = "a", tap = "relu" }', "'all' is not a plain word"),
    ],
)
def test_faulty_splits_are_refused(table: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text(f"{specification_text(RELU, 'none.safetensors')}\n[splits]\n{table}\n")
    with pytest.raises(ModelError, match=complaint):
        read_architecture(str(path))


def test_splits_are_written_read_inherited_and_part_of_what_a_network_is(relu: Network, tmp_path: Path) -> None:
    splits = {"a": Split("a", "responses"), "q": Split("b", "avr")}
    path, variant = tmp_path / "small.toml", tmp_path / "variant.toml"
    path.write_text(specification_text(replace(RELU, splits=splits), "none.safetensors"))
    variant.write_text('base = "small.toml"\nsplits = { r = { layer = "a", tap = "crelu" } }\n')
    assert read_architecture(str(path)).splits == splits
    assert read_architecture(str(variant)).splits == splits | {"r": Split("a", "crelu")}
    digests = set()
    for tap in ("avr", "relu"):
        relu.architecture = replace(RELU, splits={"q": Split("b", tap)})
        digests.add(fingerprint(relu))
    assert len(digests) == 2


def records(call: Call, output: Path, *arguments: str) -> list[dict[str, Any]]:
    status, out, err = call(
        SAMPLES[0], "--model", "cifar_split", *arguments, "--budget", "30", "--json", "--output", output
    )
    assert status == 0, err
    found: list[dict[str, Any]] = json.loads(out)
    return found


def test_the_main_job_at_split_points_and_with_a_tap(call: Call, tmp_path: Path) -> None:
    found = records(call, tmp_path, "--layer", "conv11,ReLU11,pool1")
    assert [(row["layer"], row["tap"]) for row in found] == [
        ("conv11", "responses"), ("ReLU11", "relu"), ("pool1", None),
    ]  # fmt: skip
    stem = f"{SAMPLES[0].stem}.cifar_split"
    names = {f"{stem}.{name}.map.png" for name in ("conv11", "ReLU11", "pool1")} | {f"{stem}.comparison.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    # 64 responses a pixel of three numbers and no rectification: exact, but for so few passes and rounding.
    assert found[0]["psnr"] > 50
    (row,) = records(call, tmp_path, "--layer", "conv11", "--tap", "crelu", "--method", "linear")
    assert (row["layer"], row["tap"], row["method"]) == ("conv11", "crelu", "linear")
    assert row["psnr"] > 50


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("ReLU11", "--method", "linear"), "needs the linear responses of conv11, and its relu does not keep them"),
        (("ReLU22", "--tap", "crelu"), "reads relu of conv22: name the layer"),
        (("pool1", "--tap", "relu"), "the max-pooling pool1 has no activation"),
        (("conv11", "--tap", "sigmoid"), "unknown tap 'sigmoid'; there are responses, relu, crelu, avr"),
        (("ReLU33",), "did you mean ReLU32?"),
    ],
)
def test_wrong_calls_get_one_clear_line(call: Call, tmp_path: Path, arguments: tuple[str, ...], complaint: str) -> None:
    status, out, err = call(SAMPLES[0], "--model", "cifar_split", "--output", tmp_path, "--layer", *arguments)
    assert (status, out) == (2, "")
    assert complaint in err
    assert len(err.splitlines()) == 1


def test_evaluate_records_the_tap_and_refuses_another(call: Call, tmp_path: Path) -> None:
    pictures, output = tmp_path / "pictures", tmp_path / "results"
    pictures.mkdir()
    for number in range(2):
        pixels = numpy.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=numpy.uint8)
        Image.fromarray(pixels).save(pictures / f"{number}.png")
    base = ("evaluate", pictures, "--model", "cifar_split", "--layer", "conv11", "--output", output, "--quiet")
    budget = ("--budget", "30")
    status, _, err = call(*base, *budget, "--tap", "crelu")
    assert status == 0, err
    assert read_run(output)["settings"]["tap"] == "crelu"
    assert read_rows(output)["layer"].to_pylist() == ["conv11"] * 2
    for other, said in (((), "not given"), (("--tap", "relu"), "relu")):
        status, _, err = call(*base, *budget, *other)
        assert status == 2
        assert f"{output} holds results of another call: tap was crelu, is {said}." in err
    status, _, err = call(*base, *budget, "--tap", "crelu")
    assert status == 0, err
    assert len(read_run(output)["sessions"]) == 2
    status, _, err = call(*base[:5], "ReLU11,conv11", "--output", tmp_path / "points", "--quiet", *budget)
    assert status == 0, err
    assert sorted(read_rows(tmp_path / "points")["layer"].to_pylist()) == ["ReLU11"] * 2 + ["conv11"] * 2


def test_noise_on_a_relu_s_zeros_does_not_mislead_map() -> None:
    """Told of noise of a hundredth, map comes within 2 dB of what it finds without it; not told, it loses far more."""
    net = load_model("cifar_split")
    images = torch.stack([load_image(path, 32) for path in SAMPLES])
    at = point(net, "ReLU22")
    exact = at.features(images)
    noisy, level = disturb(exact, noise=0.01)

    def psnr(features: torch.Tensor, noise: float) -> float:
        found = invert(at.net, features, at.layer, noise=noise, size=32, budget=150).image
        return sum(quality(images, found).psnr) / len(images)

    without, told = psnr(exact, 0.0), psnr(noisy, level)
    assert told > without - 2
    assert told > psnr(noisy.clamp_min(0), 0.0) + 4


def test_a_chain_knows_layers_by_the_modules_names() -> None:
    """Convolution, norm and activation are one layer of the chain; poolings and what drops out likewise."""
    net = from_torch(chain(), IMAGENET, input_size=32)
    named = named_chain(net, "0,1,2,3,4,7,9")
    assert named.layer_names == ["0", "3", "5", "7", "9"]
    assert layer_list(named, "0,1,2") == ["0"]
    assert layer_list(named, "3,4") == ["3"]
    assert layer_list(named, "2+7,9") == ["0", "7", "9"]
    assert layer_list(named_chain(net, "all"), "all") == ["0", "5", "9"]
    assert net.longest_chain().splits == {}
    with pytest.raises(CallError, match="has no layer '6'"):
        layer_list(named, "6")


def test_layers_outside_the_chain_are_refused() -> None:
    net = from_torch(drawn(ResNet()), IMAGENET, input_size=32)
    with pytest.raises(CallError, match=r"layer1\.0 of ResNet is outside the chain .* it begins with"):
        named_chain(net, "layer1.0")
