import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image

import reconstruct
from reconstruct.errors import CallError
from reconstruct.network.architecture import Architecture, Layer
from reconstruct.network.network import Network
from reconstruct.network.surgery import randomise, with_batch_norm, with_classes
from reconstruct.training import distill, ica, questions, runs
from reconstruct.training.checkpoint import CHECKPOINT
from reconstruct.training.classification import class_scores, divergence
from reconstruct.training.data import Arrays, Augmentation, load_pictures, random_part, resize, split
from reconstruct.training.loop import Recipe
from reconstruct.training.start import start_evenly
from reconstruct.zoo.registry import class_names
from reconstruct.zoo.specification import read_architecture
from tests.builders import synthetic
from tests.conftest import ROOT, Call

# Its first layer sees 4 x 4 pixels side by side: 48 numbers by 64 filters, so its matrix is that of one place.
CIFAR = """
input_size = 32
input_dropout = 0.05
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
layers = [
    { name = "conv1", filters = 64, kernel = 4, stride = 4, activation = "crelu" },
    { name = "pool1", kind = "max_pool", kernel = 2, stride = 2, dropout = 0.1 },
    { name = "conv2", filters = 16, kernel = 3, padding = 1 },
    { name = "conv3", filters = 10, kernel = 1, activation = "none" },
]
"""
# The first layer of All-CNN-B with CReLU, and images from 72 pixels, for which the ImageNet recipe is the default.
IMAGENET = """
input_size = 71
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
layers = [
    { name = "conv1", filters = 96, kernel = 11, stride = 4, activation = "crelu" },
    { name = "conv2", filters = 12, kernel = 3, stride = 2, padding = 1, activation = "crelu" },
    { name = "conv3", filters = 1000, kernel = 1 },
]
"""
TINY = Architecture(
    "tiny",
    (Layer("conv1", 4, 3, stride=2, activation="crelu"), Layer("conv2", 3, 3, activation="none")),
    8,
    (0.5, 0.5, 0.5),
    (0.25, 0.25, 0.25),
)


def judged(call: Call, *arguments: str | Path | int) -> dict[str, Any]:
    status, out, err = call("classify", *arguments, "--json")
    assert (status, err) == (0, ""), err
    found = json.loads(out)
    assert found.keys() == {"data", "split", "teacher", "pictures", "crops", "models", "average", "vote", "paper"}
    return found


def refused(call: Call, *arguments: str | Path | int) -> str:
    status, out, err = call(*arguments)
    assert (status, out) == (2, ""), err
    assert len(err.strip().splitlines()) == 1 or "Usage" in err
    return err


def write_cifar(folder: Path, count: int = 60) -> Path:
    synthetic.cifar10_python(
        folder, synthetic.patterns(count, 32, 10), synthetic.patterns(20, 32, 10, 1), [f"kind{i}" for i in range(10)]
    )
    return folder


def tiny_data(count: int = 30, seed: int = 0) -> Arrays:
    images, labels = synthetic.patterns(count, 8, 3, seed)
    return Arrays(images, labels, ["a", "b", "c"])


def test_what_is_left_out_of_a_set_is_told(call: Call, tmp_path: Path) -> None:
    """Of an archive that is trained on and of a folder that is classified; a broken picture ends both by its name."""
    spec = tmp_path / "net.toml"
    spec.write_text(
        "input_size = 8\nmean = [0.5, 0.5, 0.5]\nstd = [0.25, 0.25, 0.25]\n"
        'layers = [{ name = "a", filters = 2, kernel = 3, activation = "crelu" }, '
        '{ name = "b", filters = 2, kernel = 3 }]'
    )
    data, out = tmp_path / "data", tmp_path / "out"
    synthetic.class_folders(data, *synthetic.patterns(6, 8, 2), ["a", "b"])
    (data / "a" / "notes.txt").write_text("x")
    archive = shutil.make_archive(str(tmp_path / "data"), "zip", data)
    train = ("train", spec, archive, "--epochs", 1, "--batch-size", 6, "--side", 8, "--resize", 8, "--output")
    status, _, err = call(*train, out)
    assert (status, f"{archive}: 1 file left out: .txt\n" in err) == (0, True), err
    status, table, err = call("classify", data, "--model", out)
    assert (status, err) == (0, f"{data}: 1 file left out: .txt\n")
    assert "6 pictures" in " ".join(table.split())
    (data / "b" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for command in (("classify", data, "--model", out), ("train", spec, data, *train[3:], tmp_path / "again")):
        status, _, err = call(*command)
        assert (status, "broken.png begins as a PNG file does, and what follows is damaged" in err) == (1, True), err


def test_a_data_set_shaped_as_cifar_the_whole_way(call: Call, tmp_path: Path) -> None:
    data, out = write_cifar(tmp_path / "cifar"), tmp_path / "out"
    (tmp_path / "net.toml").write_text(CIFAR)
    train = ("train", tmp_path / "net.toml", data, "--output", out, "--epochs", 60, "--batch-size", 20)
    status, printed, said = call(*train, "--learning-rate", 0.02, "--schedule", "40", "--validation", data)
    assert status == 0, said
    assert "finished after 180 steps" in printed
    assert {path.name for path in out.iterdir()} == {
        "checkpoint.pt", "log.csv", "net.toml", "net.safetensors", "net.classes.json", "net.md"
    }  # fmt: skip
    found = judged(call, data, "--model", out, "--split", "train")
    assert (found["pictures"], found["crops"], found["split"], found["teacher"]) == (60, 1, "train", None)
    assert found["models"] == [{"model": str(out / "net.toml"), "top1": 0, "top5": 0, "divergence": None}]
    assert (found["average"], found["vote"]) == (None, None)
    # The held-out error of the log, of the card and of classify are one number.
    rate = judged(call, data, "--model", out / "net.toml")["models"][0]["top1"]
    with (out / "log.csv").open() as file:
        assert float(file.readlines()[-1].split(",")[-1]) == pytest.approx(rate, abs=1e-5)
    assert f"top-1 error {rate:.1%}" in (out / "net.md").read_text()
    assert class_names(str(out / "net.toml")) == [f"kind{i}" for i in range(10)]
    table = call("classify", data, "--model", out)[1]
    assert f"{rate:.2%}" in table
    assert "20 pictures against the labels, the centre crop" in " ".join(table.split())

    net = reconstruct.load_model(str(out / "net.toml"))
    images = torch.from_numpy(load_pictures(data).pixels(7).copy())[None] / 255
    features = net.features(images, "conv1")
    result = reconstruct.invert(net, features, "conv1", budget=600)
    # |x' - x| <= |A (x' - x)| / s, with s the least singular value of the layer's matrix, which a place has to itself.
    least = torch.linalg.svdvals(net.convolution("conv1").weight.flatten(1).double())[-1]
    missed = result.feature_residual[0] * net.responses(images, "conv1").double().norm() / least * 0.25
    bound = -10 * math.log10(float(missed) ** 2 / images.numel())
    psnr = reconstruct.quality(images, result.image).psnr[0]
    assert psnr >= bound - 0.1
    assert bound > 60


def test_the_first_layer_has_a_rate_of_its_own(call: Call, tmp_path: Path) -> None:
    """Without weight decay a layer whose rate is 0 stays what it was, in units of the others' rate as in a recipe."""
    data, moved = write_cifar(tmp_path / "cifar"), {}
    (tmp_path / "net.toml").write_text(CIFAR)
    start = start_evenly(Network(read_architecture(str(tmp_path / "net.toml"))), 0)
    for factor in (0, 1):
        out = tmp_path / f"factor{factor}"
        status, _, said = call(
            "train", tmp_path / "net.toml", data, "--output", out, "--epochs", 1, "--batch-size", 20,
            "--first-layer", factor,
        )  # fmt: skip
        assert status == 0, said
        net = reconstruct.load_model(str(out / "net.toml"))
        for layer in ("conv1", "conv2"):
            moved[layer, factor] = not torch.equal(net.convolution(layer).weight, start.convolution(layer).weight)
    assert moved == {("conv1", 0): False, ("conv2", 0): True, ("conv1", 1): True, ("conv2", 1): True}


def test_a_data_set_shaped_as_imagenet_the_whole_way(call: Call, tmp_path: Path) -> None:
    """Class folders of pictures of several sizes, read by a worker; batch normalisation by the default recipe."""
    data, out = tmp_path / "data", tmp_path / "out"
    (tmp_path / "net.toml").write_text(IMAGENET)
    images, labels = synthetic.patterns(20, 96, 5)
    for name, chosen in (("train", range(15)), ("val", range(15, 20))):
        for i in chosen:
            path = data / name / f"n{labels[i]:08}" / f"{i}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[i].transpose(1, 2, 0)[: 80 + i, : 96 - i]).save(path, quality=95)
    train = ("train", tmp_path / "net.toml", data, "--output", out, "--epochs", 15, "--batch-size", 5, "--workers", 1)
    status, _, said = call(*train, "--learning-rate", 0.02, "--schedule", "12", "--seed", 1)
    assert status == 0, said
    for crops in (1, 10):
        found = judged(call, data, "--model", out, "--split", "train", "--crops", crops)
        assert (found["models"][0]["top1"], found["pictures"], found["crops"]) == (0, 15, crops)
    assert judged(call, data, "--model", out, "--workers", 1)["pictures"] == 5

    # Folding batch normalisation into the weights changes scores by rounding only.
    exported = reconstruct.load_model(str(out / "net.toml"))
    saved = torch.load(out / CHECKPOINT, weights_only=True)["net"]
    assert any("_bn." in key for key in saved)
    assert not any("_bn." in key for key in exported.state_dict())
    unfolded = Network(with_batch_norm(with_classes(exported.architecture, 5))).eval()
    unfolded.load_state_dict(saved)
    pictures = load_pictures(data)
    scores = [class_scores(net, pictures, side=71, resize=80) for net in (unfolded, exported)]
    assert (scores[0] - scores[1]).abs().max() < 1e-4 * (1 + scores[0].abs().max())

    photograph = torch.from_numpy(pictures.pixels(0).copy())[None, :, :71, :71] / 255
    result = reconstruct.invert(exported, exported.features(photograph, "conv1"), "conv1", budget=300)
    flat = -10 * math.log10(float(photograph.var((2, 3)).mean()))
    # 96 filters on 48 numbers a place: an error of less than a hundredth of the picture's variance.
    assert reconstruct.quality(photograph, result.image).psnr[0] > flat + 20


NORMED = """
input_size = 32
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
layers = [
    { name = "conv1", filters = 8, kernel = 4, stride = 4, activation = "crelu", batch_norm = true },
    { name = "pool1", kind = "avg_pool", kernel = 2, stride = 2 },
    { name = "conv2", filters = 10, kernel = 1, activation = "none" },
]
"""


def test_a_specification_with_batch_normalisation_and_average_pooling(call: Call, tmp_path: Path) -> None:
    """It trains with the normalisation it states, not with more, and what is written has it folded."""
    data, out = write_cifar(tmp_path / "cifar"), tmp_path / "out"
    (tmp_path / "net.toml").write_text(NORMED)
    status, _, said = call("train", tmp_path / "net.toml", data, "--output", out, "--epochs", 3, "--batch-size", 20)
    assert status == 0, said
    saved = torch.load(out / CHECKPOINT, weights_only=True)["net"]
    assert {key.split(".")[0] for key in saved} == {"conv1", "conv1_bn", "conv2"}
    assert (saved["conv1_bn.running_mean"] != 0).all()
    unfolded = Network(read_architecture(str(tmp_path / "net.toml"))).eval()
    unfolded.load_state_dict(saved)
    exported = reconstruct.load_model(str(out / "net.toml"))
    assert set(exported.state_dict()) == {
        f"{layer}.{part}" for layer in ("conv1", "conv2") for part in ("weight", "bias")
    }
    images = torch.from_numpy(load_pictures(data).pixels(7).copy())[None] / 255
    scores = unfolded(images).detach()
    torch.testing.assert_close(exported(images), scores, rtol=0, atol=1e-5 * (1 + float(scores.abs().max())))


def test_folds(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = write_cifar(tmp_path / "cifar", 45), tmp_path / "out"
    (tmp_path / "net.toml").write_text(CIFAR)
    train = ["train", tmp_path / "net.toml", data, "--epochs", 3, "--batch-size", 10, "--learning-rate", 0.02]
    train += ["--folds", 3, "--seed", 5]
    # Interrupted in the third fold; what is done is not done again, and the end is that of an undisturbed run.
    fit = runs.fit

    def stopping(*arguments: Any, **options: Any) -> Any:
        if options["seed"] == 8:
            raise CallError("stopped")
        return fit(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "fit", stopping)
        assert "stopped" in call(*train, "--output", out)[2]
    assert "fold03 holds no trained model" in refused(call, "classify", data, "--model", out)
    before = (out / "fold01" / CHECKPOINT).stat().st_mtime_ns
    status, printed, said = call(*train, "--output", out)
    assert status == 0, said
    assert (out / "fold01" / CHECKPOINT).stat().st_mtime_ns == before
    assert [name in said for name in ("training fold01", "training fold03")] == [True, True]
    assert call(*train, "--output", tmp_path / "whole", "--quiet") == (0, "", "")
    for number in (1, 2, 3):
        name = f"fold{number:02}"
        assert f"{name}: finished after 9 steps" in printed
        run, whole = (torch.load(each / name / CHECKPOINT, weights_only=True) for each in (out, tmp_path / "whole"))
        assert run["call"]["seed"] == 5 + number
        assert run["call"]["pictures"] == 30
        assert all(torch.equal(run["net"][key], value) for key, value in whole["net"].items())
        assert run["rows"][-1][6] is not None  # validated on its own fold
    found = judged(call, data, "--model", out)
    assert [each["model"] for each in found["models"]] == [str(out / f"fold0{i}" / "net.toml") for i in (1, 2, 3)]
    errors = [each["top1"] for each in found["models"]]
    assert found["average"]["top1"] == pytest.approx(numpy.mean(errors))
    assert found["average"]["top1_standard_error"] == pytest.approx(numpy.std(errors, ddof=1) / 3**0.5)
    assert found["average"].keys() == {"top1", "top1_standard_error", "top5", "top5_standard_error"}
    nets = [reconstruct.load_model(each["model"]) for each in found["models"]]
    test = load_pictures(data, "test")
    outputs = sum(class_scores(net, test, side=32).exp() for net in nets)
    assert isinstance(outputs, torch.Tensor)
    wrong = (outputs.argmax(1).numpy() != test.targets).mean()
    assert found["vote"]["top1"] == pytest.approx(wrong)
    table = call("classify", data, "--model", out)[1]
    assert "average" in table
    assert f"{found['vote']['top1']:.2%}" in table
    assert "holds other folds" in refused(call, *train[:-3], 4, "--output", out)


def test_single(call: Call, tmp_path: Path) -> None:
    data, out = write_cifar(tmp_path / "cifar", 40), tmp_path / "out"
    (tmp_path / "net.toml").write_text(CIFAR)
    train = ["train", tmp_path / "net.toml", data, "--epochs", 6, "--batch-size", 10, "--learning-rate", 0.01]
    status, printed, said = call(*train, "--single", "--hold-out", 0.25, "--output", out)
    assert status == 0, said
    first, again = (torch.load(out / name / CHECKPOINT, weights_only=True) for name in ("held_out", "single"))
    assert (first["call"]["pictures"], again["call"]["pictures"]) == (30, 40)
    # The first one's loss on what it learned from, by its own written model; the second one's on what was held out.
    held = split(load_pictures(data), 0.25, 0)
    losses = [
        float(divergence(class_scores(reconstruct.load_model(str(out / name / "net.toml")), part, side=32), answers))
        for name, part in zip(("held_out", "single"), held, strict=True)
        for answers in [torch.from_numpy(part.targets)]
    ]
    assert again["call"]["until"] == pytest.approx(losses[0], rel=1e-5)
    assert again["rows"][-1][5] == pytest.approx(losses[1], rel=1e-5)
    assert losses[1] <= losses[0]
    assert again["ended"] == "reached"
    assert first["rows"][-1][6] is not None
    assert json.loads((out / "single.json").read_text()) == {"loss": again["call"]["until"]}
    assert f"held_out: finished after 18 steps, loss {first['loss']:.4g}, error held out" in printed
    assert f"single: reached after {again['step']} steps" in printed
    assert judged(call, data, "--model", out / "single", "--split", "train")["pictures"] == 40
    for wrong in ("0", "1", "0.001"):
        assert "cannot be held out" in refused(call, *train, "--single", "--hold-out", wrong, "--output", out)


def test_single_says_whether_the_loss_was_reached(tmp_path: Path) -> None:
    """At a learning rate of 0 it is if and only if the pictures held out are the easier ones."""
    pictures, recipe = tiny_data(), Recipe(1, 3, 0.0)
    statuses = set()
    for seed in range(6):
        ended = runs.train_single(
            TINY, pictures, recipe, Augmentation(8, flip=False), tmp_path / str(seed), share=0.2, seed=seed
        )
        net = start_evenly(Network(TINY), seed).eval()
        losses = []
        for part in split(pictures, 0.2, seed):
            scores = class_scores(net, part, side=8)
            losses.append(-float(scores[range(len(part)), part.targets].mean()))
        assert ended["held_out"].loss == pytest.approx(losses[0], rel=1e-5)
        assert ended["single"].status == ("reached" if losses[1] <= losses[0] else "finished")
        statuses.add((ended["single"].status, ended["single"].steps))
    assert statuses == {("reached", 10), ("finished", 20)}
    with pytest.raises(CallError, match="at least one epoch"):
        runs.train_single(TINY, pictures, Recipe(0.5, 3, 0.0), Augmentation(8), tmp_path / "half")


def test_wrong_calls(call: Call, tmp_path: Path) -> None:
    data = write_cifar(tmp_path / "cifar")
    (tmp_path / "net.toml").write_text(CIFAR)
    train = ("train", tmp_path / "net.toml", data, "--output", tmp_path / "out")
    assert "two schemes" in refused(call, *train, "--folds", 2, "--single")
    assert "leave out --validation" in refused(call, *train, "--folds", 2, "--validation", data)
    assert "unknown recipe 'mnist'" in refused(call, *train, "--recipe", "mnist")
    for schedule in ("linear", "halve:", "halve"):
        assert "--schedule is 'cosine', 'halve:25' or" in refused(call, *train, "--schedule", schedule)
    assert "halved after a finite number of epochs above 0" in refused(call, *train, "--schedule", "halve:0")
    assert "give one of them" in refused(call, *train, "--no-dropout", "--dropout-rate", 0.5)
    assert "a dropout rate is from 0 to less than 1, not 1" in refused(call, *train, "--dropout-rate", 1)
    synthetic.class_folders(tmp_path / "other", *synthetic.patterns(4, 32, 2), ["a", "b"])
    assert "other classes" in refused(call, *train, "--validation", tmp_path / "other")
    assert not (tmp_path / "out").exists()
    classify = ("classify", data, "--model")
    assert "--crops is 1 or 10" in refused(call, *classify, "convpool_cnn_c", "--crops", 5)
    assert "convpool_cnn_c_avr has no weights" in refused(call, *classify, "convpool_cnn_c_avr")
    assert "weights only up to conv8" in refused(call, *classify, "convpool_cnn_c")
    assert "no model 'nothing'" in refused(call, *classify, "nothing")
    assert "holds no trained model" in refused(call, *classify, data)
    assert "'train' or 'test'" in refused(call, *classify, "convpool_cnn_c", "--split", "val")
    teacher = ("classify", data, "--model", "convpool_cnn_c", "--teacher", "resnet")
    assert "leave out --crops" in refused(call, *teacher, "--crops", 10)
    assert "unknown teacher 'resnet'" in refused(call, *teacher)  # CIFAR's pictures are pictures
    (tmp_path / "folds.json").write_text("{}")
    assert "folds.json cannot be read" in refused(call, *classify, tmp_path)


def test_other_classes_are_refused(call: Call, tmp_path: Path) -> None:
    runs.train(TINY, tiny_data(), Recipe(1, 10, 0.01), Augmentation(8), tmp_path / "out")
    images, labels = synthetic.patterns(6, 8, 3)
    for name, classes in (("same", ["a", "b", "c"]), ("named", ["a", "b", "d"])):
        synthetic.class_folders(tmp_path / name, images, labels, classes)
    assert judged(call, tmp_path / "same", "--model", tmp_path / "out")["pictures"] == 6
    assert "number 2 is 'c', here 'd'" in refused(call, "classify", tmp_path / "named", "--model", tmp_path / "out")
    synthetic.class_folders(tmp_path / "more", *synthetic.patterns(8, 8, 4), list("abcd"))
    assert "tells 3 classes apart" in refused(call, "classify", tmp_path / "more", "--model", tmp_path / "out")
    (tmp_path / "out" / "tiny.classes.json").write_text("{")
    assert "cannot be read as JSON" in refused(call, "classify", tmp_path / "same", "--model", tmp_path / "out")


def test_independent_components_start_the_first_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ica, "PATCHES", 4000)
    with Image.open(ROOT / "samples" / "chelsea.jpg") as image:
        photograph = numpy.asarray(image).transpose(2, 0, 1)
    parts = [photograph[:, 15 * i : 15 * i + 15, 15 * j : 15 * j + 15] for i in range(15) for j in range(20)]
    pictures = Arrays(numpy.stack(parts), numpy.zeros(300, int), ["a", "b"])
    architecture = Architecture("net", (Layer("conv1", 12, 4, 2),), 32, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    net, other = (randomise(Network(architecture), seed).eval() for seed in (0, 1))
    for each in (net, other):
        ica.initialise_by_ica(each, pictures, 3)
    weight = net.convolution("conv1").weight
    assert weight.shape == (12, 3, 4, 4)
    assert torch.equal(weight, other.convolution("conv1").weight)
    assert not net.convolution("conv1").bias.any()
    responses = net.responses(torch.from_numpy(pictures.images) / 255, "conv1")
    assert (responses.var((0, 2, 3)) - 1).abs().max() < 0.1  # on other patches than those it was scaled on
    assert torch.linalg.matrix_rank(weight.flatten(1)) == 12
    wide = Network(Architecture("wide", (Layer("conv1", 49, 4),), 32, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)))
    with pytest.raises(CallError, match="49 filters of 48 numbers"):
        ica.initialise_by_ica(wide, pictures, 0)
    large = Network(Architecture("large", (Layer("conv1", 4, 33),), 40, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)))
    with pytest.raises(CallError, match="no picture is as large"):
        ica.initialise_by_ica(large, pictures, 0)


def fake_teacher(classes: int = 1000) -> distill.Teacher:
    """Class scores from the colours of 4 x 4 parts."""
    matrix = torch.randn(48, classes, generator=torch.Generator().manual_seed(0))
    return lambda images: torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1) @ matrix * 3


def photographs(folder: Path, count: int = 5) -> Path:
    folder.mkdir()
    for number, pixels in enumerate(synthetic.patterns(count, 70, 5)[0]):
        Image.fromarray(pixels.transpose(1, 2, 0)[: 40 + 5 * number]).save(folder / f"{number}.png")
    return folder


def test_crops_carry_what_the_teacher_says_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill, "CHUNK", 4)
    pictures, teacher = photographs(tmp_path / "photographs"), fake_teacher(7)
    made: dict[str, Any] = {"count": 18, "side": 24, "seed": 2}
    distill.make_crops(pictures, tmp_path / "whole", teacher=teacher, **made)
    found = load_pictures(tmp_path / "whole")
    assert (len(found), found.targets.shape, found.targets.dtype) == (18, (18, 7), numpy.float16)
    for number in range(18):
        with Image.open(pictures / f"{number * 5 // 18}.png") as image:
            pixels = numpy.asarray(image).transpose(2, 0, 1)
        part = random_part(pixels, questions.AREA, numpy.random.default_rng((2, number)))
        whole = resize(part, (224, 224))
        assert numpy.array_equal(found.pixels(number), resize(whole, (24, 24)))
        large = torch.from_numpy(whole.copy())[None] / 255
        said = teacher(large).log_softmax(1)[0]
        assert torch.allclose(torch.tensor(found.targets[number]).float(), said, rtol=2e-3, atol=1e-3)

    asked = 0

    def tired(images: torch.Tensor) -> torch.Tensor:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise KeyboardInterrupt
        return teacher(images)

    with pytest.raises(KeyboardInterrupt):
        distill.make_crops(pictures, tmp_path / "parts", teacher=tired, **made)
    with pytest.raises(CallError, match="8 of 18 crops are made"):
        load_pictures(tmp_path / "parts")
    asked = 10
    distill.make_crops(pictures, tmp_path / "parts", teacher=tired, **made)
    assert asked == 10 + 3
    for name in ("crops.npy", "answers.npy", "crops.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    for changes in (
        {"seed": 3},
        {"side": 25},
        {"count": 19},
        {"precision": "bfloat16"},
        {"mixed": 0.5},
        {"distorted": True},
    ):
        with pytest.raises(CallError, match="made otherwise"):
            distill.make_crops(pictures, tmp_path / "whole", teacher=teacher, **(made | changes))
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", pictures))
    distill.make_crops(archive, tmp_path / "archived", teacher=teacher, **made)
    assert (tmp_path / "archived" / "crops.npy").read_bytes() == (tmp_path / "whole" / "crops.npy").read_bytes()
    (pictures / "0.png").rename(pictures / "first.png")
    with pytest.raises(CallError, match="made otherwise"):
        distill.make_crops(pictures, tmp_path / "whole", teacher=teacher, **made)
    with pytest.raises(CallError, match="unknown teacher"):
        distill.load_teacher("resnet")
    (tmp_path / "whole" / "answers.npy").write_bytes(b"nothing")
    with pytest.raises(CallError, match="holds no crops"):
        load_pictures(tmp_path / "whole")


def test_mixed_crops_are_made_of_two_photographs(tmp_path: Path) -> None:
    """Photographs of one colour each: a mixture has two, the second in one rectangle of at most half the area."""
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0)]
    for number, colour in enumerate(colours):
        Image.new("RGB", (50, 60), colour).save(tmp_path / f"{number}.png")
    shown: list[torch.Tensor] = []

    def teacher(images: torch.Tensor) -> torch.Tensor:
        shown.append((images * 255).round().byte())
        return torch.zeros(len(images), 3)

    distill.make_crops(tmp_path, tmp_path / "crops", count=80, side=32, teacher=teacher, mixed=0.5)
    mixtures = 0
    for number, image in enumerate(torch.cat(shown)):
        # A colour as one number: that is far quicker to sort than columns of three.
        coded = (image.int() * torch.tensor([65536, 256, 1])[:, None, None]).sum(0)
        codes = [65536 * red + 256 * green + blue for red, green, blue in colours]
        assert set(coded.unique().tolist()) <= set(codes)
        other = coded != codes[number * 4 // 80]
        mixtures += int(other.any())
        assert len(coded.unique()) == 1 + int(other.any())
        if other.any():
            rows, columns = (other.any(dim).nonzero() for dim in (1, 0))
            area = (int(rows.max() - rows.min()) + 1) * (int(columns.max() - columns.min()) + 1)
            assert int(other.sum()) == area
            assert area <= 0.51 * 224**2
    # Half of 80 crops, of which a quarter meets its own colour again: 30, and 5 deviations of sqrt(80 x 3/8 x 5/8).
    assert abs(mixtures - 30) <= 5 * 4.4


def test_learning_from_a_teacher_by_the_command_line(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill, "load_teacher", lambda *_: fake_teacher())
    pictures, out = photographs(tmp_path / "photographs"), tmp_path / "out"
    (tmp_path / "net.toml").write_text(CIFAR)
    train = ["train", tmp_path / "net.toml", pictures, "--teacher", "efficientnet_lite0", "--output", out]
    train += ["--crop-count", 100, "--crop-side", 36, "--batch-size", 20, "--validation", pictures]
    status, printed, said = call(*train, "--epochs", 12, "--learning-rate", 0.01, "--precision", "bfloat16")
    assert status == 0, said
    assert "finished after 60 steps" in printed
    assert len(load_pictures(out / "crops_held_out")) == 100
    found = judged(call, pictures, "--model", out, "--teacher", "efficientnet_lite0")
    assert (found["pictures"], found["teacher"], found["split"]) == (5, "efficientnet_lite0", None)
    (model,) = found["models"]
    start = runs.start(
        with_classes(reconstruct.load_model(str(out / "net.toml")).architecture, 1000),
        runs.RECIPES["distil"], load_pictures(out / "crops"), ica=None, seed=0, device="cpu",
    )  # fmt: skip
    asked = distill.unlabelled(pictures)
    answers = torch.from_numpy(distill.ask(fake_teacher(), asked, "cpu"))
    before = class_scores(start.eval(), asked, side=32, resize=36)
    assert model["divergence"] < 0.7 * float((answers.exp() * (answers - before)).sum(1).mean())
    table = call("classify", pictures, "--model", out, "--teacher", "efficientnet_lite0")[1]
    assert "divergence" in table
    assert "the teacher's first choice" in table
