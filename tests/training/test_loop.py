import csv
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import scipy.special
import torch
from torch import nn

from reconstruct.commands.main import main
from reconstruct.errors import CallError
from reconstruct.network.architecture import Architecture, Layer
from reconstruct.network.network import Network
from reconstruct.network.surgery import randomise, with_batch_norm
from reconstruct.training.checkpoint import CHECKPOINT, LOG, LogRow
from reconstruct.training.classification import class_scores, divergence, error_rate
from reconstruct.training.data import Arrays, Augmentation, Batches, Pictures
from reconstruct.training.loop import Progress, Recipe, Trained, fit
from tests.builders import synthetic

SIDE = 8
SMALL = Architecture(
    "small",
    (
        Layer("conv1", 4, 3, padding=1, activation="crelu"),
        Layer("pool1", kernel=2, stride=2, kind="max_pool"),
        Layer("conv2", 3, 3, activation="none"),
    ),
    SIDE,
    (0.5, 0.4, 0.3),
    (0.2, 0.25, 0.3),
)
SPECIFICATION = """
input_size = 32
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
layers = [
    {{ name = "conv1", filters = 6, kernel = 5, stride = 2, activation = "crelu"{dropout} }},
    {{ name = "conv2", filters = 8, kernel = 3, stride = 2{dropout} }},
    {{ name = "conv3", filters = 10, kernel = 1, activation = "none" }},
]
"""


def pictures(count: int = 24, classes: int = 3) -> Arrays:
    images, labels = synthetic.patterns(count, SIDE, classes)
    return Arrays(images, labels, [str(i) for i in range(classes)])


def training(
    folder: Path, recipe: Recipe, net: Network | None = None, data: Pictures | None = None, **options: Any
) -> Trained:
    net = net or randomise(Network(SMALL), 0)
    augment = Augmentation(SIDE, flip=options.pop("flip", True))
    return fit(net, data or pictures(), recipe, augment, folder, **options)


def gradients(net: Network, images: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    """The gradient of the cross entropy, without the network's own forward or torch's loss."""
    own = {name: value.detach().double().requires_grad_() for name, value in net.named_parameters()}
    values = (images.double() / 255 - net.mean.double()) / net.std.double()
    values = nn.functional.conv2d(values, own["conv1.weight"], own["conv1.bias"], padding=1)
    values = torch.cat([values.clamp(min=0), (-values).clamp(min=0)], 1)
    values = values.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))
    scores = nn.functional.conv2d(values, own["conv2.weight"], own["conv2.bias"]).mean((2, 3))
    loss = (scores.exp().sum(1).log() - scores[range(len(targets)), targets]).mean()
    return dict(zip(own, torch.autograd.grad(loss, list(own.values())), strict=True))


def by_hand(recipe: Recipe, net: Network, steps: int) -> dict[str, torch.Tensor]:
    """The weights after so many steps, from the update rules as they are published."""
    batches = Batches(pictures(), Augmentation(SIDE), recipe.batch_size, 0)
    weights = {name: value.detach().double().clone() for name, value in net.named_parameters()}
    first = {name: torch.zeros_like(value) for name, value in weights.items()}
    second = {name: torch.zeros_like(value) for name, value in weights.items()}
    for step in range(steps):
        net.load_state_dict({name: value.float() for name, value in weights.items()})
        for name, gradient in gradients(net, *batches[step]).items():
            rate = recipe.learning_rate * (recipe.first_layer if name.startswith("conv1") else 1)
            decay = recipe.weight_decay if name.endswith("weight") else 0.0
            if recipe.optimizer == "sgd":
                first[name] = recipe.momentum * first[name] + gradient + decay * weights[name]
                weights[name] -= rate * first[name]
                continue
            if recipe.optimizer == "adam":
                gradient = gradient + decay * weights[name]  # noqa: PLW2901
            else:
                weights[name] -= rate * decay * weights[name]
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            mean, square = first[name] / (1 - 0.9 ** (step + 1)), second[name] / (1 - 0.999 ** (step + 1))
            weights[name] -= rate * mean / (square.sqrt() + 1e-8)
    return weights


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_steps_are_the_published_updates(optimizer: str, tmp_path: Path) -> None:
    recipe = Recipe(3 / 2, 12, 0.05, optimizer, momentum=0.8, weight_decay=0.3, first_layer=0.1)
    net = randomise(Network(SMALL), 1)
    trained = training(tmp_path, recipe, net)
    assert (trained.status, trained.steps) == ("finished", 3)
    expected = by_hand(recipe, randomise(Network(SMALL), 1), 3)
    for name, value in net.named_parameters():
        assert (value - expected[name]).abs().max() < 1e-5 * (1 + expected[name].abs().max()), name


def test_schedules() -> None:
    steps = Recipe(350, 128, 0.05, drops=(200, 250, 300))
    for epoch, rate in ((0, 0.05), (199.99, 0.05), (200, 5e-3), (250, 5e-4), (299, 5e-4), (340, 5e-5)):
        assert math.isclose(steps.rate(epoch), rate)
    halved = Recipe(300, 128, 0.1, schedule="halve", halving=25)
    for epoch, rate in ((0, 0.1), (24.99, 0.1), (25, 0.05), (74.9, 0.025), (299, 0.1 / 2**11)):
        assert math.isclose(halved.rate(epoch), rate)
    cosine = Recipe(10, 64, 2.0, schedule="cosine", warmup=2)
    for epoch, rate in ((0, 0), (1, 1), (2, 2), (4, 1 + math.cos(math.pi / 4)), (6, 1), (10, 0)):
        assert math.isclose(cosine.rate(epoch), rate, abs_tol=1e-12)


def test_the_rate_of_a_step_is_the_schedules(tmp_path: Path) -> None:
    recipe = Recipe(20, 12, 0.01, drops=(10,), warmup=5)
    rows = training(tmp_path, recipe, validation=pictures()).rows
    for row in rows:
        step, rate = row.step, row.learning_rate
        assert step is not None
        assert rate == recipe.rate((step - 1) / 2)
    assert len({row.learning_rate for row in rows}) > 4


def test_divergence_is_scipys() -> None:
    draw = torch.Generator().manual_seed(0)
    scores, answers = torch.randn(2, 20, 7, generator=draw) * 3
    teacher, student = answers.softmax(1).double().numpy(), scores.softmax(1).double().numpy()
    expected = scipy.special.rel_entr(teacher, student).sum(1).mean()
    assert math.isclose(float(divergence(scores, answers.log_softmax(1))), expected, rel_tol=1e-5)
    assert abs(float(divergence(answers, answers.log_softmax(1)))) < 1e-6
    classes = torch.arange(20) % 7
    expected = -numpy.log(student[numpy.arange(20), classes]).mean()
    assert math.isclose(float(divergence(scores, classes)), expected, rel_tol=1e-5)


def test_it_learns_and_validates(tmp_path: Path) -> None:
    net, seen = randomise(Network(SMALL), 0), list[Progress]()
    held = pictures(9)
    trained = training(tmp_path, Recipe(40, 12, 0.05), net, validation=held, report=seen.append)
    assert not net.training
    assert not any(parameter.requires_grad for parameter in net.parameters())
    scores, targets = class_scores(net, held, side=SIDE), torch.from_numpy(held.targets)
    assert error_rate(scores, targets, 1) == 0
    last = trained.rows[-1]
    assert last.validation_loss == pytest.approx(float(divergence(scores, targets)), rel=1e-6)
    assert last.validation_error == 0
    assert trained.loss < 0.1
    assert [(each.step, each.loss) for each in seen] == [(row.step, row.loss) for row in trained.rows]
    assert sum(row.validation_loss is not None for row in trained.rows) == 40
    with (tmp_path / LOG).open() as file:
        table = list(csv.DictReader(file))
    assert tuple(table[0]) == LogRow._fields
    assert [int(row["step"]) for row in table] == [row.step for row in trained.rows]
    assert float(table[-1]["loss"]) == pytest.approx(last.loss, rel=1e-5)
    assert float(table[-1]["images_per_second"]) > 0


def test_dropout_is_of_training_only(tmp_path: Path) -> None:
    layers = (replace(SMALL.layers[0], dropout=0.5), *SMALL.layers[1:])
    dropping = replace(SMALL, layers=layers, input_dropout=0.2)
    still = Recipe(4, 12, 0.0)  # which changes nothing
    found = [
        training(tmp_path / name, still, randomise(Network(each), 0), validation=pictures(), flip=False).rows
        for name, each in (("with", dropping), ("without", SMALL))
    ]
    assert [row.validation_loss for row in found[0]] == [row.validation_loss for row in found[1]]
    losses = [[row.loss for row in rows] for rows in found]
    assert min(abs(a - b) for a, b in zip(*losses, strict=True)) > 1e-3
    assert len(set(losses[0])) == 4
    assert max(losses[1]) - min(losses[1]) < 1e-6


def test_a_teachers_answers_are_learned(tmp_path: Path) -> None:
    data = pictures()
    answers = numpy.full((24, 3), 0.1)
    answers[numpy.arange(24), data.targets] = 0.8
    net = randomise(Network(SMALL), 0)
    soft = Arrays(data.images, numpy.log(answers).astype(numpy.float16), data.classes)
    assert training(tmp_path, Recipe(60, 12, 0.05), net, soft).loss < 0.02
    found = class_scores(net, data, side=SIDE).exp()
    assert numpy.abs(found.numpy() - answers).mean() < 0.05


def test_it_stops_at_a_validation_loss(tmp_path: Path) -> None:
    slow = Recipe(9, 12, 1e-3)
    whole = training(tmp_path / "whole", slow, validation=pictures())
    losses = [float(row.validation_loss or 0) for row in whole.rows]  # one row an epoch
    assert losses == sorted(losses, reverse=True)
    again = training(tmp_path / "until", slow, validation=pictures(), until=losses[6] + 1e-9)
    assert (again.status, again.steps) == ("reached", 14)
    assert again.rows[-1].validation_loss == pytest.approx(losses[6])
    assert training(tmp_path / "until", slow, validation=pictures(), until=losses[6] + 1e-9) == again
    assert training(tmp_path / "never", Recipe(3, 12, 1e-3), validation=pictures(), until=0.0).status == "finished"


def test_a_long_gradient_is_shortened(tmp_path: Path) -> None:
    """The first step without decay moves the weights by the rate times the gradient, or times the largest norm."""
    start = {name: value.detach() for name, value in randomise(Network(SMALL), 1).named_parameters()}
    images, targets = Batches(pictures(), Augmentation(SIDE), 12, 0)[0]
    found = gradients(randomise(Network(SMALL), 1), images, targets)
    norm = float(torch.cat([each.flatten() for each in found.values()]).norm())
    for clip, expected in ((0.0, norm), (norm / 4, norm / 4), (norm * 4, norm)):
        net = randomise(Network(SMALL), 1)
        training(tmp_path / f"{clip}", Recipe(0.5, 12, 0.1, clip=clip), net)
        moved = torch.cat([(value - start[name]).flatten() for name, value in net.named_parameters()]).norm()
        assert float(moved) == pytest.approx(0.1 * expected, rel=1e-4)


def test_half_precision_keeps_weights_whole(tmp_path: Path) -> None:
    net = randomise(Network(SMALL), 0)
    trained = training(tmp_path, Recipe(40, 12, 0.05), net, precision="bfloat16", validation=pictures())
    assert {value.dtype for value in net.state_dict().values()} == {torch.float32}
    assert trained.rows[-1].validation_error == 0
    with pytest.raises(CallError, match="precision is one of float32, bfloat16, float16"):
        training(tmp_path / "other", Recipe(1, 12, 0.05), precision="float8")


def test_a_loss_that_is_no_number_is_said(tmp_path: Path) -> None:
    with pytest.raises(CallError, match=r"the loss is (nan|inf) at step 20; a lower learning rate"):
        training(tmp_path, Recipe(40, 12, 1e30))
    with pytest.raises(CallError, match="optimizer is one of sgd, adam, adamw"):
        training(tmp_path / "other", Recipe(1, 12, 0.1, "adagrad"))


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_interrupted_run_is_the_run(optimizer: str, batch_norm: bool, tmp_path: Path) -> None:
    """Interrupted by an exception after any step; the kill of a process is below."""
    recipe = Recipe(6, 8, 0.02, optimizer, weight_decay=0.01, schedule="cosine")
    layers = (replace(SMALL.layers[0], dropout=0.3), *SMALL.layers[1:])
    architecture = replace(SMALL, layers=layers)
    architecture = with_batch_norm(architecture) if batch_norm else architecture

    class StopError(Exception):
        pass

    def network() -> Network:
        return randomise(Network(architecture), 0)

    undisturbed = network()
    whole = training(tmp_path / "whole", recipe, undisturbed, validation=pictures(), validate_every=0.34, seed=5)
    for stop in (4, 11, 17):

        def report(now: Progress, stop: int = stop) -> None:
            if now.step == stop:
                raise StopError

        options: dict[str, Any] = {"validation": pictures(), "validate_every": 0.34, "seed": 5, "save_seconds": -1}
        with pytest.raises(StopError):
            training(tmp_path / "parts", recipe, network(), report=report, **options)
    resumed = network()
    again = training(tmp_path / "parts", recipe, resumed, **options)
    assert (again.steps, again.loss) == (whole.steps, whole.loss)
    assert all(torch.equal(value, undisturbed.state_dict()[key]) for key, value in resumed.state_dict().items())
    assert [row[:4] + row[5:] for row in again.rows] == [row[:4] + row[5:] for row in whole.rows]


def test_what_cannot_be_gone_on_from_is_refused(tmp_path: Path) -> None:
    recipe = Recipe(1, 12, 0.05)
    training(tmp_path, recipe)
    kept = (tmp_path / CHECKPOINT).read_bytes()

    def said(**changes: Any) -> str:
        with pytest.raises(CallError) as caught:
            training(tmp_path, **({"recipe": recipe} | changes))
        assert len(str(caught.value).splitlines()) == 1
        return str(caught.value)

    assert "holds another run (seed 0, now 1)" in said(seed=1)
    assert "(epochs 1, now 2)" in said(recipe=replace(recipe, epochs=2))
    assert "name small, now other" in said(net=Network(replace(SMALL, name="other")))
    assert "dropout 0.0, now 0.5" in said(
        net=Network(replace(SMALL, layers=(replace(SMALL.layers[0], dropout=0.5), *SMALL.layers[1:])))
    )
    assert "std [0.2, 0.25, 0.3], now [1.0, 1.0, 1.0]" in said(net=Network(replace(SMALL, std=(1.0, 1.0, 1.0))))
    assert "pictures 24, now 25" in said(data=pictures(25))
    for broken in (kept[: len(kept) // 2], kept[:-1], b"", b"text", pickle.dumps({"call": {}})):
        (tmp_path / CHECKPOINT).write_bytes(broken)
        assert "cannot be gone on from" in said()
    for content in ([1, 2], {"call": {}}, {"net": {}}):
        torch.save(content, tmp_path / CHECKPOINT)
        assert "cannot be gone on from" in said() or "holds another run" in said()

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path / 'trace'}",)

    torch.save({"call": Hostile()}, tmp_path / CHECKPOINT)
    assert "cannot be gone on from" in said()
    assert not (tmp_path / "trace").exists()
    (tmp_path / CHECKPOINT).write_bytes(kept)
    (tmp_path / f".{CHECKPOINT}.abc").write_bytes(kept[:9])  # as a kill leaves it
    assert training(tmp_path, recipe).steps == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT, LOG]


def command(folder: Path, output: Path, dropout: str = "", **options: Any) -> list[str]:
    """A call that trains a small network on a CIFAR-10 of 60 pictures, on which it takes a few milliseconds a step."""
    data = synthetic.patterns(60, 32, 10)
    if not (folder / "data").exists():
        synthetic.cifar10_binary(folder / "data", data, data, [f"kind{i}" for i in range(10)])
    (folder / "spec.toml").write_text(SPECIFICATION.format(dropout=dropout))
    options = {"epochs": 60, "batch_size": 10, "learning_rate": 0.02, "seed": 3} | options
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
    return ["reconstruct", "train", str(folder / "spec.toml"), str(folder / "data"), "--output", str(output), *flags]


def saved(output: Path) -> dict[str, Any]:
    return torch.load(output / CHECKPOINT, weights_only=True)


FORKS = """
import json, os, sys
from reconstruct.commands.main import main
import torch._dynamo, rich.progress, reconstruct.training.runs, reconstruct.training.distill
# Each run is a process of its own, but all of them have PyTorch from here.
for line in sys.stdin:
    process = os.fork()
    if not process:
        sys.argv = json.loads(line)
        os.dup2(2, 1)  # standard output is for the numbers below
        main()
    print(process, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


class Forks:
    """Runs of the command line, one after the other, each a process that can be killed."""

    def __init__(self) -> None:
        self.server = subprocess.Popen(
            [sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )

    def __enter__(self) -> "Forks":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait()
        assert self.server.stdout is not None
        self.server.stdout.close()

    def line(self) -> int:
        assert self.server.stdout is not None
        return int(self.server.stdout.readline())

    def start(self, call: list[str]) -> int:
        """The number of the process that runs this call."""
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps(call) + "\n")
        self.server.stdin.flush()
        return self.line()

    def kill(self, call: list[str], output: Path, step: int) -> int:
        """End a run by SIGKILL as soon as its checkpoint is past a step; how far its last checkpoint then is."""
        process = self.start(call)
        deadline = time.monotonic() + 120
        while not (output / CHECKPOINT).is_file() or saved(output)["step"] <= step:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(process, signal.SIGKILL)
        assert self.line() == -signal.SIGKILL
        return int(saved(output)["step"])


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_killed_three_times_it_ends_as_undisturbed(tmp_path: Path) -> None:
    """kill -9 at random steps, saving at every step, so that a kill also falls into the writing of a checkpoint."""
    killed, whole = (tmp_path / name for name in ("killed", "whole"))
    options = {"dropout": ", dropout = 0.3", "shift": 2, "epochs": 25}
    call = command(tmp_path, killed, save_seconds=0, **options)
    draw = numpy.random.default_rng()
    stops = [0]
    with Forks() as forks:
        for _ in range(3):
            stops.append(forks.kill(call, killed, stops[-1] + int(draw.integers(0, 15))))
        assert stops[-1] < 150, f"it was over before the third kill: {stops}"
        for each in (command(tmp_path, killed, **options), command(tmp_path, whole, **options)):
            forks.start(each)
            assert forks.line() == 0
    resumed, undisturbed = saved(killed), saved(whole)
    assert (resumed["step"], resumed["ended"]) == (undisturbed["step"], undisturbed["ended"]) == (150, "finished")
    assert abs(resumed["loss"] - undisturbed["loss"]) <= 1e-6, stops
    for key, value in undisturbed["net"].items():
        assert (resumed["net"][key] - value).abs().max() <= 1e-6, (key, stops)
    assert len(resumed["rows"]) == len(undisturbed["rows"])
    for row, other in zip(resumed["rows"], undisturbed["rows"], strict=True):
        assert row[:4] == pytest.approx(other[:4], abs=1e-6)
    # Nothing half-written is left.
    assert {path.name for path in killed.iterdir()} == {path.name for path in whole.iterdir()}


@pytest.mark.slow
def test_killed_three_times_with_workers_in_its_folds(tmp_path: Path) -> None:
    """As above with worker processes, batch normalisation and AdamW, at random times in any of three folds."""
    killed, whole = (tmp_path / name for name in ("killed", "whole"))
    options = {"folds": 3, "epochs": 60, "workers": 2, "optimizer": "adamw", "schedule": "cosine", "batch_size": 8}
    options |= {"dropout": ", dropout = 0.3"}
    draw = numpy.random.default_rng()
    kills = 0
    with Forks() as forks:
        while kills < 3 or not (killed / "fold03" / "spec.toml").exists():
            call = [*command(tmp_path, killed, save_seconds=0, **options), "--batch-norm"]
            process = forks.start(call)
            seen = sorted(killed.glob("fold*/checkpoint.pt"))
            deadline = time.monotonic() + 60
            while sorted(killed.glob("fold*/checkpoint.pt")) == seen and kills < 3 and time.monotonic() < deadline:
                time.sleep(0.01)  # until the next fold has begun
            if kills < 3:
                time.sleep(draw.uniform(0, 0.3))
                os.kill(process, signal.SIGKILL)
                kills += 1
                assert forks.line() == -signal.SIGKILL
            else:
                assert forks.line() == 0
        forks.start([*command(tmp_path, whole, **options), "--batch-norm"])
        assert forks.line() == 0
    for name in ("fold01", "fold02", "fold03"):
        resumed, undisturbed = saved(killed / name), saved(whole / name)
        assert abs(resumed["loss"] - undisturbed["loss"]) <= 1e-6
        assert all((resumed["net"][key] - value).abs().max() <= 1e-6 for key, value in undisturbed["net"].items())
        assert {path.name for path in (killed / name).iterdir()} == {path.name for path in (whole / name).iterdir()}


@pytest.mark.slow
def test_two_processes_are_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun with two processes on the CPU, without dropout, whose masks depend on the process."""
    options = {"shift": 2, "epochs": 4, "weight_decay": 0.01, "validation": tmp_path / "data"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    call = [*torchrun, *command(tmp_path, tmp_path / "two", **options)]
    done = subprocess.run(call, check=False, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished after 24 steps") == 1
    monkeypatch.setattr(sys, "argv", command(tmp_path, tmp_path / "one", **options))
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    two, one = saved(tmp_path / "two"), saved(tmp_path / "one")
    assert two["call"] == one["call"] | {"processes": 2}
    assert abs(two["loss"] - one["loss"]) < 1e-5
    for key, value in one["net"].items():
        assert (two["net"][key] - value).abs().max() < 1e-5, key
    assert (tmp_path / "two" / "spec.toml").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0.0}, "epochs is a finite number above 0, not 0"),
        ({"learning_rate": -1.0}, "learning rate is a finite number, 0 or above, not -1"),
        ({"learning_rate": math.nan}, "learning rate is"),
        ({"first_layer": -0.1}, "first layer's rate is a finite number, 0 or above"),
        ({"weight_decay": -0.1}, "weight decay is a finite number, 0 or above"),
        ({"schedule": "linear"}, "schedule is 'steps', 'halve' or 'cosine', not 'linear'"),
        ({"halving": 0.0}, "halved after a finite number of epochs above 0, not 0"),
        ({"clip": -1.0}, "the gradient's largest norm is a finite number, 0 or above"),
    ],
)
def test_recipes_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CallError, match=message):
        Recipe(**({"epochs": 1.0, "batch_size": 2, "learning_rate": 0.1} | changes))
