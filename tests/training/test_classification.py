import math
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from reconstruct.errors import CallError
from reconstruct.network.architecture import Architecture, Layer
from reconstruct.network.network import Network
from reconstruct.network.surgery import randomise
from reconstruct.training.classification import autocast, average, check_classes, class_scores, error_rate, judge, views
from reconstruct.training.data import Arrays, Files
from reconstruct.training.distill import TEACHER_SIDE, ask, unlabelled
from tests.builders import synthetic

SMALL = Architecture(
    "small",
    (Layer("conv1", 6, 3, stride=2, activation="crelu"), Layer("conv2", 7, 3, activation="none")),
    12,
    (0.5, 0.5, 0.5),
    (0.25, 0.25, 0.25),
)


def noise(height: int, width: int, seed: int = 0) -> numpy.ndarray:
    return numpy.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=numpy.uint8)


@given(st.integers(9, 24), st.integers(9, 24))
def test_ten_crops_are_corners_and_centre_and_their_mirror_images(height: int, width: int) -> None:
    side = 9
    image = Image.fromarray(noise(height, width).transpose(1, 2, 0))
    lefts, tops = (0, width - side), (0, height - side)
    boxes = [(left, top) for left in lefts for top in tops] + [((width - side) // 2, (height - side) // 2)]
    crops = [image.crop((left, top, left + side, top + side)) for left, top in boxes]
    crops += [crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for crop in crops]
    expected = sorted(numpy.asarray(crop).transpose(2, 0, 1).tobytes() for crop in crops)
    found = views(noise(height, width), side, None, 10)
    assert found.shape == (10, 3, side, side)
    assert sorted(each.tobytes() for each in found) == expected
    centre = views(noise(height, width), side, None, 1)
    assert numpy.array_equal(centre[0], numpy.asarray(crops[4]).transpose(2, 0, 1))


def test_views_of_a_resized_picture() -> None:
    pixels = noise(40, 61)
    image = Image.fromarray(pixels.transpose(1, 2, 0)).resize((30, 20), Image.Resampling.BICUBIC)
    expected = numpy.asarray(image.crop((7, 2, 23, 18))).transpose(2, 0, 1)
    assert numpy.array_equal(views(pixels, 16, 20, 1)[0], expected)
    assert views(noise(5, 9), 16, None, 10).shape == (10, 3, 16, 16)  # enlarged
    with pytest.raises(CallError, match="crops are 1"):
        views(pixels, 16, None, 5)


def test_error_rates_are_numpys() -> None:
    draw = numpy.random.default_rng(0)
    scores, targets = draw.normal(size=(200, 12)), draw.integers(0, 12, 200)
    order = numpy.argsort(-scores, axis=1)
    for top in (1, 2, 5):
        wrong = numpy.mean([target not in row[:top] for target, row in zip(targets, order, strict=True)])
        found = error_rate(torch.from_numpy(scores), torch.from_numpy(targets), top)
        assert math.isclose(found, wrong, abs_tol=1e-6)
        assert 0 < found < 1
    assert error_rate(torch.from_numpy(scores[:, :3]), torch.from_numpy(targets % 3), 5) == 0
    answers = torch.from_numpy(draw.normal(size=(200, 12))).log_softmax(1)
    choice = torch.from_numpy(scores), answers.argmax(1)
    assert error_rate(choice[0], answers, 5) == error_rate(choice[0], choice[1], 5)


def test_average_and_standard_error() -> None:
    values = [0.31, 0.28, 0.35, 0.30]
    mean, error = average(values)
    assert math.isclose(mean, numpy.mean(values))
    assert math.isclose(error, numpy.std(values, ddof=1) / 2)


def certain(choices: list[int], probability: float, classes: int = 3) -> torch.Tensor:
    """Log-probabilities of a network that gives its choices this probability and the others the rest."""
    rest = (1 - probability) / (classes - 1)
    return torch.full((len(choices), classes), rest).scatter_(1, torch.tensor(choices)[:, None], probability).log()


def test_a_vote_beats_the_average_where_networks_err_apart() -> None:
    targets = torch.tensor([0, 1, 2])
    networks = {"a": certain([1, 1, 2], 0.6), "b": certain([0, 2, 2], 0.6), "c": certain([0, 1, 0], 0.6)}
    found = judge(networks.items(), targets)
    assert [each["model"] for each in found["models"]] == ["a", "b", "c"]
    assert [each["top1"] for each in found["models"]] == pytest.approx([1 / 3] * 3)
    assert [each["divergence"] for each in found["models"]] == [None] * 3
    assert found["average"]["top1"] == pytest.approx(1 / 3)
    assert found["average"]["top1_standard_error"] == pytest.approx(0, abs=1e-7)
    assert found["vote"] == {"top1": 0, "top5": 0}
    alone = judge([("a", networks["a"])], targets)
    assert (alone["average"], alone["vote"]) == (None, None)


def test_a_vote_is_by_mean_probability_not_by_heads_nor_by_logarithms() -> None:
    targets = torch.tensor([0])
    weak, sure = certain([1], 0.4), certain([0], 0.9)
    found = judge([("a", weak), ("b", weak), ("c", sure)], targets)
    assert [each["top1"] for each in found["models"]] == [1, 1, 0]
    assert found["vote"]["top1"] == 0
    assert found["average"]["top1"] == pytest.approx(2 / 3)
    assert found["average"]["top1_standard_error"] == pytest.approx(numpy.std([1, 1, 0], ddof=1) / 3**0.5)
    # One network that excludes the class outright has a third of the vote, no veto.
    veto = torch.tensor([[1e-30, 1 - 2e-30, 1e-30]]).log()
    assert judge([("a", certain([0], 0.8)), ("b", certain([0], 0.8)), ("c", veto)], targets)["vote"]["top1"] == 0


def test_judging_by_a_teacher() -> None:
    answers = torch.randn(9, 7, generator=torch.Generator().manual_seed(0)).log_softmax(1)
    found = judge([("itself", answers), ("flat", torch.zeros(9, 7).log_softmax(1))], answers)
    assert found["models"][0] == pytest.approx({"model": "itself", "top1": 0, "top5": 0, "divergence": 0}, abs=1e-6)
    expected = math.log(7) + float((answers.exp() * answers).sum(1).mean())
    assert found["models"][1]["divergence"] == pytest.approx(expected, rel=1e-5)


def test_class_scores_are_the_mean_output_over_the_crops() -> None:
    net = randomise(Network(SMALL), 0).eval()
    pictures = Arrays(numpy.stack([noise(15, 17, seed) for seed in range(11)]), numpy.zeros(11, int), list("abcdefg"))
    done: list[int] = []
    found = class_scores(net, pictures, side=12, crops=10, advance=done.append)
    assert sum(done) == 11
    for i in range(11):
        outputs = [
            net(torch.from_numpy(seen.copy())[None] / 255).softmax(1)
            for seen in views(pictures.pixels(i), 12, None, 10)
        ]
        assert torch.allclose(found[i].exp(), torch.cat(outputs).mean(0), atol=1e-6)
    one = class_scores(net, pictures, side=12)
    for batch in (1, 3, 1000):
        assert torch.allclose(class_scores(net, pictures, side=12, batch=batch), one, atol=1e-5)
        assert torch.allclose(class_scores(net, pictures, side=12, crops=10, batch=batch), found, atol=1e-5)
    for workers in (1, 2):
        assert torch.equal(class_scores(net, pictures, side=12, crops=10, workers=workers), found)
    assert torch.allclose(class_scores(net, pictures, side=12, precision="bfloat16"), one, atol=0.1)
    with pytest.raises(CallError, match="precision is one of"):
        autocast(torch.device("cpu"), "int8")


def test_pictures_of_any_size(tmp_path: Path) -> None:
    net = randomise(Network(SMALL), 0).eval()
    paths = []
    for number, (height, width) in enumerate(((20, 31), (12, 12), (7, 40))):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(noise(height, width).transpose(1, 2, 0)).save(paths[-1])
    found = class_scores(net, Files(paths, numpy.zeros(3, int), list("abcdefg")), side=12, resize=14, crops=10)
    assert found.shape == (3, 7)
    assert torch.allclose(found.exp().sum(1), torch.ones(3), atol=1e-5)


def test_networks_of_other_classes_are_refused() -> None:
    net, names = Network(SMALL).eval(), list("abcdefg")

    def said(net: Network, names: list[str] | None, classes: list[str], side: int = 12) -> str:
        with pytest.raises(CallError) as caught:
            check_classes(net, side, names, classes)
        return str(caught.value)

    for known in (names, None, list("0123456")):  # names that are their numbers are none
        check_classes(net, 12, known, names)
    check_classes(net, 12, names, list("0123456"))
    assert "tells 7 classes apart, and the data has 6" in said(net, names, names[:6])
    assert "number 2 is 'c', here 'x'" in said(net, names, list("abxdefg"))
    assert "number 6 is missing, here 'g'" in said(net, names[:6], names)
    assert "weights only up to conv1" in said(Network(SMALL, 1).eval(), None, names)
    assert "vanish" in said(net, None, names, side=4)
    wide = Network(replace(SMALL, layers=(*SMALL.layers[:-1], replace(SMALL.layers[-1], activation="crelu")))).eval()
    assert "tells 14 classes apart" in said(wide, None, names)


def test_a_teacher_is_asked_about_the_centre(tmp_path: Path) -> None:
    images, labels = synthetic.patterns(3, 300, 3)
    synthetic.class_folders(tmp_path, images, labels, ["a", "b", "c"])
    seen: list[torch.Tensor] = []

    def teacher(inputs: torch.Tensor) -> torch.Tensor:
        seen.append(inputs)
        return inputs.mean((2, 3)) * 5

    pictures = unlabelled(tmp_path)
    assert (len(pictures), len(pictures.classes)) == (3, 1000)
    found = ask(teacher, pictures, "cpu", batch=2)
    assert [len(each) for each in seen] == [2, 1]
    expected = numpy.stack([views(image, TEACHER_SIDE, 253, 1)[0] for image in images]) / 255
    assert numpy.allclose(torch.cat(seen).numpy(), expected, atol=1e-6)
    scores = torch.from_numpy(expected.mean((2, 3)) * 5)
    assert numpy.allclose(found, scores.log_softmax(1), atol=1e-5)
