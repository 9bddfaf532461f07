"""Error rates: class scores by centre or ten crops, of one network or several."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy
import torch
from torch import nn

from reconstruct.errors import CallError
from reconstruct.images.cifar import numbered
from reconstruct.network.network import Network
from reconstruct.training.data import Pictures, read_in_order, shorter_side

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BATCH = 64


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a network computes in a precision; weights stay as they are.

    Raises
    ------
    CallError : the precision is unknown.
    """
    if precision not in PRECISIONS:
        raise CallError(f"precision is one of {', '.join(PRECISIONS)}, not '{precision}'")
    return torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "float32")


def views(pixels: numpy.ndarray, side: int, resize: int | None, crops: int) -> numpy.ndarray:
    """What a network sees of a picture, crops x 3 x side x side bytes.

    Parameters
    ----------
    pixels : 3 x H x W bytes.
    side : height and width of a view, in pixels.
    resize : the shorter side before crops are cut; None leaves it, but enlarges it where it is smaller than ``side``.
    crops : 1, the centre; or 10, the corners and the centre, each also mirrored (Krizhevsky et al. 2012).

    Raises
    ------
    CallError : another number of crops is asked for.
    """
    if crops not in (1, 10):
        raise CallError(f"crops are 1 (the centre) or 10 (corners and centre, mirrored), not {crops}")
    if resize is not None or min(pixels.shape[1:]) < side:
        pixels = shorter_side(pixels, max(side, resize or side))
    down, right = pixels.shape[1] - side, pixels.shape[2] - side
    corners = [(down // 2, right // 2)]
    if crops == 10:
        corners += [(0, 0), (0, right), (down, 0), (down, right)]
    seen = numpy.stack([pixels[:, top : top + side, left : left + side] for top, left in corners])
    return seen if crops == 1 else numpy.concatenate([seen, seen[..., ::-1]])


class _Views(torch.utils.data.Dataset[torch.Tensor]):
    """Batches of views, by batch number."""

    def __init__(self, pictures: Pictures, side: int, resize: int | None, crops: int, batch: int) -> None:
        self.pictures, self.options, self.batch = pictures, (side, resize, crops), batch

    def __len__(self) -> int:
        return math.ceil(len(self.pictures) / self.batch)

    def __getitem__(self, number: int) -> torch.Tensor:
        chosen = range(number * self.batch, min((number + 1) * self.batch, len(self.pictures)))
        return torch.from_numpy(numpy.stack([views(self.pictures.pixels(i), *self.options) for i in chosen]))


def class_scores(
    net: Network,
    pictures: Pictures,
    *,
    side: int,
    resize: int | None = None,
    crops: int = 1,
    precision: str = "float32",
    workers: int = 0,
    batch: int = BATCH,
    advance: Callable[[int], None] = lambda _: None,
) -> torch.Tensor:
    """Log-probabilities of the classes by the mean output over a picture's crops, N x classes, float32, on the CPU.

    Parameters
    ----------
    side, resize, crops : what the network sees, as in ``views``.
    precision : as in ``autocast``.
    workers : how many processes read the pictures; with 0 this one does.
    batch : about how many views the network is shown together.
    advance : told how many pictures are done with each batch.
    """
    device = net.mean.device
    return log_probabilities(
        net, pictures, (side, resize, crops), device, precision=precision, workers=workers, batch=batch, advance=advance
    )


@torch.no_grad()
def log_probabilities(
    compute: Callable[[torch.Tensor], torch.Tensor],
    pictures: Pictures,
    seen: tuple[int, int | None, int],
    device: torch.device,
    *,
    precision: str = "float32",
    workers: int = 0,
    batch: int = BATCH,
    advance: Callable[[int], None] = lambda _: None,
) -> torch.Tensor:
    """Log-probabilities as in ``class_scores``, of any function from images in [0, 1] to class scores.

    Parameters
    ----------
    compute : the function, N x 3 x side x side to N x classes.
    seen : ``side``, ``resize`` and ``crops``, as in ``views``.
    device : where the function wants its images.
    precision, workers, batch, advance : as in ``class_scores``.
    """
    crops = seen[2]
    batches = _Views(pictures, *seen, max(1, batch // crops))
    found = []
    for bytes_seen in read_in_order(batches, range(len(batches)), workers):
        inputs = bytes_seen.flatten(0, 1).to(device, memory_format=torch.channels_last).float() / 255
        with autocast(device, precision):
            scores = compute(inputs)
        outputs = scores.float().log_softmax(1).unflatten(0, (-1, crops)).logsumexp(1) - math.log(crops)
        found.append(outputs.cpu())
        advance(len(outputs))
    return torch.cat(found)


def error_rate(scores: torch.Tensor, targets: torch.Tensor, top: int) -> float:
    """Share of pictures whose class is not among the ``top`` highest scores.

    Targets may be a teacher's log-probabilities: its first choice is the class, and the rate is one of disagreement.
    """
    classes = targets if not targets.is_floating_point() else targets.float().argmax(1)
    best = scores.topk(min(top, scores.shape[1]), dim=1).indices
    return float((best != classes[:, None]).all(1).float().mean())


def divergence(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean over pictures of the cross entropy with a class, or of KL(teacher || student) from log-probabilities."""
    if not targets.is_floating_point():
        return nn.functional.cross_entropy(scores, targets)
    return nn.functional.kl_div(scores.log_softmax(1), targets.float(), reduction="batchmean", log_target=True)


def average(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error (sample standard deviation by the root of the number) of two or more values."""
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))


def judge(found: Iterable[tuple[str, torch.Tensor]], targets: torch.Tensor) -> dict[str, Any]:
    """Error rates of networks from their log-probabilities, and of several together (Shang et al. 2016, Table 1).

    Parameters
    ----------
    found : names, and log-probabilities, N x classes; taken one by one, so that not all of them need memory at once.
    targets : classes, N; or a teacher's log-probabilities, N x classes.

    Returns
    -------
    ``models``, a list of ``model``, ``top1``, ``top5`` and, with a teacher, ``divergence`` (mean Kullback-Leibler
    divergence from it); ``average``, of two or more the means and standard errors of the rates; ``vote``, the rates of
    the mean of their probabilities.
    """
    models: list[dict[str, Any]] = []
    together: torch.Tensor | None = None
    soft = targets.is_floating_point()
    for name, scores in found:
        own = float(divergence(scores, targets)) if soft else None
        models.append({"model": name, **_rates(scores, targets), "divergence": own})
        together = scores if together is None else torch.logaddexp(together, scores)
    if together is None or len(models) < 2:
        return {"models": models, "average": None, "vote": None}
    averages: dict[str, float] = {}
    for rate in ("top1", "top5"):
        averages[rate], averages[f"{rate}_standard_error"] = average([each[rate] for each in models])
    return {"models": models, "average": averages, "vote": _rates(together, targets)}


def _rates(scores: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    return {f"top{top}": error_rate(scores, targets, top) for top in (1, 5)}


@torch.no_grad()
def check_classes(net: Network, side: int, names: list[str] | None, classes: list[str]) -> None:
    """Check that a network's outputs are the classes of the data.

    Parameters
    ----------
    side : height and width of the squares that the network is shown, in pixels.
    names : names of the network's classes where they are known; plain numbers are no names.
    classes : names of the data's classes.

    Raises
    ------
    CallError : there are not as many outputs as classes, names differ, the network lacks weights of some layers, or
        squares of ``side`` pixels are too small for it.
    """
    blank = torch.zeros(1, len(net.architecture.mean), side, side, device=net.mean.device)
    outputs = net(blank).shape[1]
    if outputs != len(classes):
        raise CallError(f"{net.name} tells {outputs} classes apart, and the data has {len(classes)}")
    if names is None or numbered(outputs) in (names, classes) or names == classes:
        return
    place = next((i for i, (a, b) in enumerate(zip(names, classes, strict=False)) if a != b), min(len(names), outputs))
    pair = [repr(each[place]) if place < len(each) else "missing" for each in (names, classes)]
    raise CallError(f"{net.name} knows other classes than the data has: number {place} is {pair[0]}, here {pair[1]}")
