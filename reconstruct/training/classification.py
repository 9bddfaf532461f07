"""Error rates: class scores by centre or ten crops, of one network or several."""

from __future__ import annotations

import math

import numpy
import torch

from reconstruct.errors import CallError
from reconstruct.network import Network
from reconstruct.training.data import Pictures, shorter_side

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BATCH = 64


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a network computes in a precision; weights stay as they are.

    Raises
    ------
    CallError : an unknown precision.
    """
    if precision not in PRECISIONS:
        raise CallError(f"precision is one of {', '.join(PRECISIONS)}, not '{precision}'")
    return torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "float32")


def views(pixels: numpy.ndarray, side: int, resize: int | None, crops: int) -> numpy.ndarray:
    """What a network sees of a picture, crops x 3 x side x side bytes.

    Parameters
    ----------
    pixels : 3 x H x W bytes.
    resize : the shorter side before crops are cut; None: as it is, enlarged where it is smaller than ``side``.
    crops : 1, the centre; or 10, the corners and the centre, each also mirrored (Krizhevsky et al. 2012).
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


@torch.no_grad()
def class_scores(
    net: Network,
    pictures: Pictures,
    *,
    side: int,
    resize: int | None = None,
    crops: int = 1,
    precision: str = "float32",
    workers: int = 0,
) -> torch.Tensor:
    """Log-probabilities of the classes, N x classes, float32, on the CPU: of the mean output over a picture's crops."""
    device = net.mean.device
    batches = _Views(pictures, side, resize, crops, max(1, BATCH // crops))
    loader = torch.utils.data.DataLoader(batches, batch_size=None, num_workers=workers)
    found = []
    for seen in loader:
        inputs = seen.flatten(0, 1).to(device, memory_format=torch.channels_last).float() / 255
        with autocast(device, precision):
            scores = net(inputs)
        outputs = scores.float().log_softmax(1).unflatten(0, (-1, crops)).logsumexp(1) - math.log(crops)
        found.append(outputs.cpu())
    return torch.cat(found)


def error_rate(scores: torch.Tensor, targets: torch.Tensor, top: int) -> float:
    """Share of pictures whose class is not among the ``top`` highest scores.

    Targets may be a teacher's log-probabilities: its first choice is the class, and the rate is one of disagreement.
    """
    classes = targets if not targets.is_floating_point() else targets.float().argmax(1)
    best = scores.topk(min(top, scores.shape[1]), dim=1).indices
    return float((best != classes[:, None]).all(1).float().mean())
