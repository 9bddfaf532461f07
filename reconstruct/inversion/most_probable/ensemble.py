"""The second stage of ``map`` with work to spare: several searches, of every region the best, and a last one from it.

A search ends in wrong signs here and there, and another one elsewhere. What is wrong is local, and the residual shows
where: the searches' images are mixed position by position, by how well each explains the responses near it. The first
search believes that an image is as rough everywhere; those after it take from the mixture how rough it is where.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from reconstruct.inversion.most_probable.search import EVALUATION, Weighting, plan, search
from reconstruct.inversion.most_probable.task import Progress, Task
from reconstruct.inversion.result import Watch

MEMBERS = (0.5, 0.7, 0.35, 1.0, 0.6, 0.42, 0.85, 0.3)
"""The first tau of each search: what makes them differ."""
FEWEST, MEMBER = 90, 140
"""Evaluations of a search: as many searches as leave each the fewest, and no more for each than the most."""
SHARE = 0.75
"""The share of the evaluations for the searches; the rest is for the last one."""
AGAIN = 0.2
"""The first tau of the last search."""
REACH, SHARPNESS = 1.5, 4.0
"""Of the local residual: the deviation, in positions, of the blur, and the power of its mean square that weighs."""
ROUGHNESS_REACH, SMOOTHEST = 3.0, 0.2
"""Of the contrast: the deviation, in pixels, of the blur, and the least of it, as a share of the mean."""


def search_often(
    tasks: Sequence[Task],
    weightings: Sequence[Weighting],
    white: torch.Tensor,
    progress: Progress,
    *,
    tolerance: float,
    budget: float,
    watch: Watch | None,
) -> torch.Tensor:
    """As ``search.search``, by as many searches as the budget, in forward passes, allows; one if it allows no two."""
    searches = int(SHARE * budget / EVALUATION)
    count = 2 if 2 * FEWEST <= searches < 2 * MEMBER else min(len(MEMBERS), searches // MEMBER)
    if count < 2 or not any(each.smooth for each in weightings):
        return search(tasks, weightings, white, progress, plan(weightings, budget), tolerance=tolerance, watch=watch)
    each = min(MEMBER, searches // count)
    best, contrast = white, None
    errors: list[torch.Tensor] = []
    images: list[torch.Tensor] = []
    for first in MEMBERS[:count]:
        stages = plan(weightings, EVALUATION * each, first=first)
        live = progress.live()
        found = search(tasks, weightings, white, progress, stages, tolerance=tolerance, watch=watch, contrast=contrast)
        best = best.index_copy(0, live, found[live])
        live = progress.live()
        if not len(live):
            return best
        images.append(progress.images.clone())
        errors.append(local_residual(tasks, images[-1]))
        for image in live.tolist():
            progress.passes[image] += 1
        best = best.index_copy(0, live, tasks[0].prior.white(mixed(images, errors))[live])
        contrast = roughness(best)
    used = (EVALUATION * each + 1) * count
    stages = plan(weightings, budget - used, first=AGAIN, again=True)
    return search(tasks, weightings, best, progress, stages, tolerance=tolerance, watch=watch)


def local_residual(tasks: Sequence[Task], images: torch.Tensor) -> torch.Tensor:
    """The mean square of the residual near each pixel, N x 1 x H x W, in units of that of the known responses; the mean
    over the layers that are read."""
    found = torch.zeros_like(images[:, :1])
    for task in tasks:
        residual, _ = task.known.residual(task.operator.linearise(images).responses)
        near = blurred(residual.square().mean(1, keepdim=True), REACH, "replicate") / task.power
        size = images.shape[2:]
        found += torch.nn.functional.interpolate(near, size=size, mode="bilinear", align_corners=False) / len(tasks)
    return found


def roughness(white: torch.Tensor) -> torch.Tensor:
    """The local root mean square of w over the image's, at least a share of it: N x C x H' x W' to N x 1 x H' x W'."""
    near = blurred(white.square().mean(1, keepdim=True), ROUGHNESS_REACH, "circular")
    level = (near / near.mean((2, 3), keepdim=True).clamp_min(1e-30) + SMOOTHEST**2).sqrt()
    return level / level.square().mean((2, 3), keepdim=True).sqrt()


def mixed(images: list[torch.Tensor], errors: list[torch.Tensor]) -> torch.Tensor:
    """The images' mixture, each weighed by an inverse power of its local residual."""
    squares = torch.stack(errors).clamp_min(1e-20)
    weights = (squares.amin(0) / squares) ** SHARPNESS
    return (weights / weights.sum(0) * torch.stack(images)).sum(0)


def blurred(values: torch.Tensor, deviation: float, border: str) -> torch.Tensor:
    """A Gaussian mean near each position, N x 1 x h x w to the same."""
    height, width = values.shape[2:]
    reach = min(int(3 * deviation), height - 1, width - 1)
    offsets = torch.arange(-reach, reach + 1, device=values.device)
    kernel = torch.exp(-0.5 * (offsets / deviation) ** 2)
    kernel = kernel / kernel.sum()
    padded = torch.nn.functional.pad(values, (reach,) * 4, mode=border)
    across = torch.nn.functional.conv2d(padded, kernel.view(1, 1, 1, -1))
    return torch.nn.functional.conv2d(across, kernel.view(1, 1, -1, 1))
