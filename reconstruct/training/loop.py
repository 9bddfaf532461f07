"""The training loop: stochastic gradient descent that a kill cannot lose, on one process or several.

Everything random in a step depends on the seed and the step's number alone, so a run continued from a checkpoint is the
run that was never interrupted. Under ``torchrun`` the processes share each batch (``torch.nn.parallel``); process 0
writes.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy
import torch

# Its functions take the process group there is as a default, and hold it for ever. Imported now, there is none: the
# threads of a group that outlives the interpreter abort the process.
import torch.distributed.nn
from torch import distributed, nn

from reconstruct.errors import CallError
from reconstruct.network.network import Network
from reconstruct.training.checkpoint import LogRow, Run
from reconstruct.training.classification import autocast, class_scores, divergence, error_rate
from reconstruct.training.data import Augmentation, Batches, Pictures, read_in_order
from reconstruct.training.normalisation import BATCHES, are_disturbed, measure_statistics

OPTIMIZERS = ("sgd", "adam", "adamw")
SAVE_SECONDS = 60.0
LOG_STEPS = 20


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes
    ----------
    epochs : how often every picture is seen; not necessarily a whole number.
    batch_size : pictures of a step, of all processes together.
    optimizer : ``sgd`` (with momentum), ``adam`` or ``adamw``.
    learning_rate : the highest rate; the first layer has ``first_layer`` times as much.
    momentum : the momentum of ``sgd``.
    schedule : with ``steps`` the rate is divided by 10 at each of ``drops``, in epochs; with ``halve`` it is halved
        after every ``halving`` epochs; with ``cosine`` it goes to 0 along half a cosine.
    warmup : epochs in which the learning rate rises from 0.
    clip : the largest norm of the gradient of all weights together; longer ones are shortened to it. 0: as they are.
    weight_decay : the decay of convolution weights; biases and batch normalisation have none.
    batch_norm : whether every convolution is normalised while training; this is folded into the weights at the end.
    even_start : whether weights start as ``start.start_evenly`` has them, or as in He et al. 2015.

    Raises
    ------
    CallError : a number is out of its range, or the optimizer or schedule is unknown.
    """

    epochs: float
    batch_size: int
    learning_rate: float
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "steps"
    drops: tuple[float, ...] = ()
    halving: float = 25.0
    warmup: float = 0.0
    clip: float = 0.0
    first_layer: float = 1.0
    batch_norm: bool = False
    even_start: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.epochs < math.inf:
            raise CallError(f"epochs is a finite number above 0, not {self.epochs:g}")
        rates = {
            "learning rate": self.learning_rate,
            "the first layer's rate": self.first_layer,
            "weight decay": self.weight_decay,
            "warm-up": self.warmup,
            "the gradient's largest norm": self.clip,
        }
        for name, value in rates.items():
            if not 0 <= value < math.inf:
                raise CallError(f"{name} is a finite number, 0 or above, not {value:g}")
        if self.optimizer not in OPTIMIZERS:
            raise CallError(f"optimizer is one of {', '.join(OPTIMIZERS)}, not '{self.optimizer}'")
        if self.schedule not in ("steps", "halve", "cosine"):
            raise CallError(f"schedule is 'steps', 'halve' or 'cosine', not '{self.schedule}'")
        if not 0 < self.halving < math.inf:
            raise CallError(f"the rate is halved after a finite number of epochs above 0, not {self.halving:g}")

    def rate(self, epoch: float) -> float:
        """The learning rate at a time, in epochs."""
        if epoch < self.warmup:
            return self.learning_rate * epoch / self.warmup
        if self.schedule == "cosine":
            share = (epoch - self.warmup) / max(self.epochs - self.warmup, 1e-9)
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
        if self.schedule == "halve":
            return self.learning_rate * 0.5 ** (epoch // self.halving)
        return self.learning_rate * 0.1 ** sum(epoch >= drop for drop in self.drops)


@dataclass(frozen=True)
class Progress:
    """Where a run is: a row of its log (``checkpoint.LogRow``), and how many steps it is to have."""

    step: int
    steps: int
    epoch: float
    loss: float
    learning_rate: float
    images_per_second: float
    validation_loss: float | None
    validation_error: float | None


@dataclass(frozen=True)
class Trained:
    """How a run ended.

    Attributes
    ----------
    status : ``finished``, or ``reached`` where its validation came to the loss at which it was to stop.
    steps : steps done.
    loss : the mean training loss of its last whole epoch, or of all its steps where they are fewer.
    rows : its log.
    """

    status: str
    steps: int
    loss: float
    rows: list[LogRow]


def fit(
    net: Network,
    pictures: Pictures,
    recipe: Recipe,
    augment: Augmentation,
    folder: Path,
    *,
    validation: Pictures | None = None,
    validate_every: float = 1.0,
    seed: int = 0,
    workers: int = 0,
    precision: str = "float32",
    until: float | None = None,
    save_seconds: float = SAVE_SECONDS,
    report: Callable[[Progress], None] = lambda _: None,
) -> Trained:
    """Train a network in place; goes on from the folder's checkpoint if there is one.

    Before a validation and at the end, statistics that dropout has disturbed are measured anew
    (``normalisation.measure_statistics``) on the last batches. What is learned does not depend on them.

    Parameters
    ----------
    net : the network, on the device to train on.
    pictures, augment : the pictures, and what is seen of each. Targets may be classes (cross entropy) or
        log-probabilities of a teacher (Kullback-Leibler divergence from them).
    folder : where ``checkpoint.pt`` and ``log.csv`` are written, at least every ``save_seconds`` (``checkpoint.Run``).
    validation : pictures whose loss and top-1 error are logged every ``validate_every`` epochs, centre crops.
    workers : how many processes read and augment pictures; with 0 this one does.
    precision : ``float32``, or ``bfloat16`` or ``float16`` by autocast (weights stay float32; float16 scales its loss).
    until : stop at the first validation with at most this loss.

    Raises
    ------
    CallError : the folder has a checkpoint of another run, a batch is larger than the data, an option is unknown, or
        the loss is no longer finite.
    """
    rank, world = processes()
    batches = Batches(pictures, augment, recipe.batch_size, seed, rank, world)
    per_epoch = batches.steps_per_epoch
    steps = max(1, round(recipe.epochs * per_epoch))
    every = max(1, round(validate_every * per_epoch))
    device = net.mean.device
    net.train().requires_grad_(True)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = _optimizer(net, recipe)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16" and device.type == "cuda")
    rest = {"pictures": len(pictures), "seed": seed, "precision": precision, "until": until, "processes": world}
    run = Run(folder, _call(net, recipe, augment) | rest, net, optimizer, scaler)
    run.restore()
    parallel = nn.parallel.DistributedDataParallel(net) if world > 1 else net
    began = saved = time.perf_counter()
    first = run.step
    for images, targets in read_in_order(batches, range(first, 0 if run.ended else steps), workers):
        rate = recipe.rate(run.step / per_epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        # Dropout, too, depends on the step alone.
        torch.manual_seed((seed * 1_000_003 + run.step) * 1009 + rank)
        run.add(
            _mean(_step(parallel, optimizer, scaler, images.to(device), targets.to(device), recipe, precision), world)
        )
        if run.step % per_epoch == 0:
            run.end_epoch()
        if run.step == steps:
            run.ended = "finished"
            if run.step < per_epoch:
                run.end_epoch()
        validates = validation is not None and (run.step % every == 0 or run.ended is not None)
        if rank == 0 and (validates or run.ended):
            _settle(net, batches, run.step, precision)
        if run.step % LOG_STEPS == 0 or validates or run.ended:
            recent = run.take_recent()
            if not math.isfinite(recent):
                raise CallError(f"the loss is {recent} at step {run.step}; a lower learning rate may help")
            speed = (run.step - first) * recipe.batch_size / (time.perf_counter() - began)
            row = LogRow(run.step, run.step / per_epoch, recent, rate, speed)
            if validation is not None and validates:
                row = _validated(row, net, validation, augment, precision, workers)
                if until is not None and row.validation_loss is not None and row.validation_loss <= until:
                    run.ended = "reached"
            run.rows.append(row)
            report(Progress(steps=steps, **row._asdict()))
        if rank == 0 and (run.ended or time.perf_counter() - saved > save_seconds):
            run.save()
            saved = time.perf_counter()
        if run.ended:
            break
    wait()
    assert run.ended is not None
    net.eval().requires_grad_(False)
    return Trained(run.ended, run.step, run.loss, run.rows)


def _call(net: Network, recipe: Recipe, augment: Augmentation) -> dict[str, Any]:
    """What a run trains and how, in JSON's types, as a checkpoint gives it back."""
    stated = asdict(net.architecture)
    for layer in stated["layers"]:
        del layer["sides"]  # of networks for parts of pictures, which are not trained
    call = {key: stated[key] for key in ("name", "layers", "mean", "std", "input_dropout")}
    call |= {"recipe": asdict(recipe), "augment": asdict(augment)}
    found: dict[str, Any] = json.loads(json.dumps(call))
    return found


def _step(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    images: torch.Tensor,
    targets: torch.Tensor,
    recipe: Recipe,
    precision: str,
) -> torch.Tensor:
    """Take one step down the gradient on a batch of bytes, and return its loss."""
    with autocast(images.device, precision):
        scores = net(_inputs(images))
    value = divergence(scores.float(), targets)
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(value).backward()
    if recipe.clip:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(net.parameters(), recipe.clip)
    scaler.step(optimizer)
    scaler.update()
    return value.detach()


def _settle(net: Network, batches: Batches, step: int, precision: str) -> None:
    """Measure statistics that dropout has disturbed anew, on the batches before a step."""
    if not are_disturbed(net.architecture):
        return
    device = net.mean.device
    with autocast(device, precision):
        measure_statistics(
            net, (_inputs(batches[before][0].to(device)) for before in range(max(0, step - BATCHES), step))
        )


def _inputs(images: torch.Tensor) -> torch.Tensor:
    """Bytes as a network takes them in."""
    return images.to(memory_format=torch.channels_last).float() / 255


def processes() -> tuple[int, int]:
    """This process's number and how many there are; joins them if ``torchrun`` started this one."""
    if not distributed.is_torchelastic_launched():
        return 0, 1
    if not distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        # Only process 0 validates and asks a teacher, which may take hours; torchrun ends the others if it dies.
        distributed.init_process_group(backend, timeout=timedelta(days=7))
    return distributed.get_rank(), distributed.get_world_size()


def wait() -> None:
    """Wait until all processes are here, if there are several."""
    if distributed.is_initialized():
        distributed.barrier()


def leave() -> None:
    """Leave what ``processes`` joined, once all processes are here.

    Process 0 may still be writing, and torchrun ends it with the first process that fails.
    """
    if distributed.is_initialized():
        wait()
        distributed.destroy_process_group()


def _optimizer(net: Network, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimizer, its parameters in groups: of the first layer or not, with weight decay or without."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    first = net.layers[0].name
    for name, parameter in net.named_parameters():
        factor = recipe.first_layer if name.split(".")[0] == first else 1.0
        groups.setdefault((factor, recipe.weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    options = [
        {"params": own, "factor": factor, "weight_decay": decay, "lr": recipe.learning_rate * factor}
        for (factor, decay), own in groups.items()
    ]
    match recipe.optimizer:
        case "sgd":
            return torch.optim.SGD(options, momentum=recipe.momentum)
        case "adam":
            return torch.optim.Adam(options)
    return torch.optim.AdamW(options)


def _validated(
    row: LogRow, net: Network, validation: Pictures, augment: Augmentation, precision: str, workers: int
) -> LogRow:
    """A row with the loss and error on held-out pictures. Process 0 computes them and tells the others."""
    found = torch.zeros(2, dtype=torch.float64)
    if processes()[0] == 0:
        found = torch.tensor(loss_and_error(net, validation, augment, precision, workers), dtype=torch.float64)
    if distributed.is_initialized():
        distributed.broadcast(found, 0)
    loss, error = found.tolist()
    return row._replace(validation_loss=loss, validation_error=error)


def loss_and_error(
    net: Network, pictures: Pictures, augment: Augmentation, precision: str = "float32", workers: int = 0
) -> tuple[float, float]:
    """Loss and top-1 error, without dropout, on centre crops as large as the network is trained on.

    The network is left as it was, training or not.
    """
    training = net.training
    net.eval()
    found = class_scores(net, pictures, side=augment.side, resize=augment.resize, precision=precision, workers=workers)
    net.train(training)
    targets = torch.from_numpy(numpy.array(pictures.targets))
    return float(divergence(found, targets)), error_rate(found, targets, 1)


def _mean(value: torch.Tensor, world: int) -> float:
    """The mean over all processes, whose parts of a batch are equally large."""
    if world > 1:
        distributed.all_reduce(value)
    return float(value) / world
