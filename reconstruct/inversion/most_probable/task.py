"""What method ``map`` has to solve at a layer, as plain data, and how far it has come."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch

from reconstruct.inversion.known import Box, Exact, Known, Modulus
from reconstruct.network.architecture import Size
from reconstruct.network.protocol import AnyNetwork
from reconstruct.operators.jacobian import Jacobian, jacobian_of
from reconstruct.prior.gaussian import Prior

SHALLOW = 1
"""Rectifications and max-poolings on the way up to which Gauss-Newton takes over: its preconditioner is a mean over
their signs and switches."""

DEEP = 3
"""Bends above which a search begins with coarse weights: with fine ones it trusts the smoothed network too early."""

SMOOTHED = 18
"""Bends of a network with sums up to which smoothing helps: at 22, EfficientNet-Lite0's tenth block, PSNR rises and
SSIM falls; with 16, its seventh, both rise. In plain chains it helps up to ``DEEP`` bends: with 5, pictures of flat
skies are lost to speckle (rocket from conv6's responses 23.0 to 13.4 dB)."""


@dataclass(frozen=True)
class Task:
    """Images of whose responses at a layer something is known.

    Attributes
    ----------
    operator : the layers up to this one, for images of the size asked for.
    prior : of images of that size.
    known : what is known of the responses, N images.
    noise : the share of their norm that is noise.
    scale : N, the norm of what is known; 1 where it is 0.
    work : multiplications of a forward pass through the layer.
    """

    net: AnyNetwork
    layer: str
    operator: Jacobian
    prior: Prior
    known: Known
    noise: float
    scale: torch.Tensor
    work: int

    @property
    def linear(self) -> bool:
        """Whether it is one linear problem: no rectification on the way, and every response is known."""
        return self.operator.bends == 0 and isinstance(self.known, Exact)

    @property
    def shallow(self) -> bool:
        """Whether Gauss-Newton finishes it: by then nearly all signs and switches are right."""
        return self.operator.bends <= SHALLOW

    @property
    def responses(self) -> int:
        """Numbers in the responses of one image."""
        return self.operator.layer.filters * self.operator.grid[0] * self.operator.grid[1]

    @property
    def smoothed(self) -> bool:
        """Whether signs below are found by smoothing: not where the layer's own are unknown too, AVR's at any depth and
        those of ReLU's zeros in deep layers; and not in deep plain chains, but for what a pooling gives."""
        if isinstance(self.known, Modulus):
            return False
        plain = math.isfinite(self.operator.bends) and not self.pooled
        return 0 < self.bends <= (DEEP if plain or isinstance(self.known, Box) else SMOOTHED)

    @property
    def deep(self) -> bool:
        """Whether there are many bends below, or a max-pooling is read: a search then begins with coarse weights."""
        return self.bends > DEEP or self.pooled

    @property
    def pooled(self) -> bool:
        """Whether a deep max-pooling is read, whose switches move with the image."""
        return not self.shallow and self.operator.layer.kind == "max_pool"

    @cached_property  # a module is run for it
    def bends(self) -> float:
        """How many rectifications and max-poolings are below; a module's are counted as they are called."""
        if math.isinf(self.operator.bends):
            return len(self.operator.spreads(self.prior.mean.expand(1, -1, *self.prior.size)))
        return self.operator.bends

    @property
    def determined(self) -> bool:
        """Whether at least as many responses are known as an image has numbers; after a ReLU some half of them are."""
        known = self.responses / (2 if isinstance(self.known, Box) else 1)
        return known >= self.prior.shape[0] * self.prior.size[0] * self.prior.size[1]

    @property
    def power(self) -> torch.Tensor:
        """The mean squared response of each image, N x 1 x 1 x 1, of which the noise is a share."""
        return (self.scale.square() / self.responses).view(-1, 1, 1, 1)

    def misfit(self, residual: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """|residual| / |known| of the images with these indices."""
        return residual.flatten(1).norm(dim=1) / self.scale[images]

    def passes_to_invert(self, matrices: torch.Tensor) -> float:
        """Forward passes that inverting a matrix a frequency costs: some n^3 complex multiplications, of four real."""
        return 4.0 * matrices.shape[0] * matrices.shape[1] * matrices.shape[2] ** 3 / self.work


class Reading(NamedTuple):
    """What is known of the responses of a layer of a network, and the share of its norm that is noise."""

    net: AnyNetwork
    layer: str
    known: Known
    noise: float = 0.0


def tasks_of(readings: Sequence[Reading], size: Size) -> list[Task]:
    """The tasks of readings of the same images, of this height and width, under one prior."""
    operators = [jacobian_of(each.net, each.layer, size) for each in readings]
    net = readings[0].net
    step = math.lcm(*(operator.step for operator in operators))
    prior = Prior(size, net.channels, step=step, device=net.mean.device)
    tasks = []
    for (net, layer, known, noise), operator in zip(readings, operators, strict=True):
        norm = known.norm()
        scale = torch.where(norm > 0, norm, 1)
        work = sum(net.multiplications(layer, size).values())
        tasks.append(Task(net, layer, operator, prior, known, noise, scale, work))
    return tasks


def task_of(net: AnyNetwork, layer: str, size: Size, known: Known, noise: float) -> Task:
    """The task of one reading."""
    (task,) = tasks_of([Reading(net, layer, known, noise)], size)
    return task


def together(tasks: Sequence[Task], misfits: Sequence[torch.Tensor]) -> torch.Tensor:
    """The root mean square of tasks' relative residuals, N each; each counts as often as its layer has responses."""
    counts = torch.tensor([float(task.responses) for task in tasks], device=misfits[0].device)
    return (counts @ torch.stack(list(misfits)).square() / counts.sum()).sqrt()


@dataclass
class Progress:
    """How far a batch has come; lists hold one entry an image.

    Attributes
    ----------
    images : N x C x H x W, the best so far.
    status : ``budget`` until an image is done.
    passes : forward passes spent on each.
    """

    images: torch.Tensor
    status: list[str]
    iterations: list[int]
    passes: list[float]

    def live(self) -> torch.Tensor:
        """Indices of the images that are not done."""
        waiting = [image for image, status in enumerate(self.status) if status == "budget"]
        return torch.tensor(waiting, dtype=torch.long, device=self.images.device)
