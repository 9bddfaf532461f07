"""The second stage of ``map`` with work to spare: several searches, of every region the best, and a last one from it.

A search ends in wrong signs here and there, and another one elsewhere. What is wrong is local, and the residual shows
where: the searches' images are mixed position by position, by how well each explains the responses near it. The first
search believes that an image is as rough everywhere; those after it take from the mixture how rough it is where.
"""

from __future__ import annotations

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
    task: Task,
    weighting: Weighting,
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
    if count < 2 or not weighting.smooth:
        return search(task, weighting, white, progress, plan(task, weighting, budget), tolerance=tolerance, watch=watch)
    each = min(MEMBER, searches // count)
    best, contrast = white, None
    errors: list[torch.Tensor] = []
    fields: list[torch.Tensor] = []
    for first in MEMBERS[:count]:
        stages = plan(task, weighting, EVALUATION * each, first=first)
        live = progress.live()
        found = search(task, weighting, white, progress, stages, tolerance=tolerance, watch=watch, contrast=contrast)
        best = best.index_copy(0, live, found[live])
        live = progress.live()
        if not len(live):
            return best
        fields.append(found)
        errors.append(local_residual(task, progress.images))
        for image in live.tolist():
            progress.passes[image] += 1
        best = best.index_copy(0, live, _mixed(task, fields, errors)[live])
        contrast = roughness(best)
    used = (EVALUATION * each + 1) * count
    stages = plan(task, weighting, budget - used, first=AGAIN)
    return search(task, weighting, best, progress, stages, tolerance=tolerance, watch=watch)


def local_residual(task: Task, images: torch.Tensor) -> torch.Tensor:
    """The mean square of the residual near each pixel, N x 1 x H x W, in units of that of the known responses."""
    residual, _ = task.known.residual(task.operator.linearise(images).responses)
    near = _blurred(residual.square().mean(1, keepdim=True), REACH, "replicate") / task.power
    return torch.nn.functional.interpolate(near, size=images.shape[2:], mode="bilinear", align_corners=False)


def roughness(white: torch.Tensor) -> torch.Tensor:
    """The local root mean square of w over the image's, at least a share of it: N x C x H' x W' to N x 1 x H' x W'."""
    near = _blurred(white.square().mean(1, keepdim=True), ROUGHNESS_REACH, "circular")
    level = (near / near.mean((2, 3), keepdim=True).clamp_min(1e-30) + SMOOTHEST**2).sqrt()
    return level / level.square().mean((2, 3), keepdim=True).sqrt()


def _mixed(task: Task, fields: list[torch.Tensor], errors: list[torch.Tensor]) -> torch.Tensor:
    """White noise of the images' mixture, each weighed by an inverse power of its local residual."""
    prior, squares = task.prior, torch.stack(errors).clamp_min(1e-20)
    weights = (squares.amin(0) / squares) ** SHARPNESS
    images = (weights / weights.sum(0) * torch.stack([prior.crop(prior.field(each)) for each in fields])).sum(0)
    return prior.whiten(prior.fill(prior.extend(images), prior.size))


def _blurred(values: torch.Tensor, deviation: float, border: str) -> torch.Tensor:
    """A Gaussian mean near each position, N x 1 x h x w to the same."""
    height, width = values.shape[2:]
    reach = min(int(3 * deviation), height - 1, width - 1)
    offsets = torch.arange(-reach, reach + 1, device=values.device)
    kernel = torch.exp(-0.5 * (offsets / deviation) ** 2)
    kernel = kernel / kernel.sum()
    padded = torch.nn.functional.pad(values, (reach,) * 4, mode=border)
    across = torch.nn.functional.conv2d(padded, kernel.view(1, 1, 1, -1))
    return torch.nn.functional.conv2d(across, kernel.view(1, 1, -1, 1))
