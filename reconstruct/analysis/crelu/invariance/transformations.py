"""Images that are moved, turned, scaled or mirrored, and where their points go."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from reconstruct.errors import CallError
from reconstruct.network.architecture import Size

KINDS = ("translation", "rotation", "scale", "flip")

Point = tuple[float, float]
"""Down and across from the image's top left corner, in pixels; pixel i extends from i to i + 1."""


@dataclass(frozen=True)
class Transformation:
    """One change of an image.

    Attributes
    ----------
    kind : ``translation``, ``rotation``, ``scale`` or ``flip`` (left and right are swapped).
    magnitude : radius in pixels, angle in degrees (positive: anticlockwise as seen), factor (above 1: content grows);
        of a flip nothing. Rates are told by kind and magnitude: transformations that agree in both are averaged.
    shift : of a translation alone, rows down and columns to the right by which content moves.
    """

    kind: str
    magnitude: float = 1.0
    shift: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise CallError(f"unknown kind of transformation '{self.kind}'; there are {', '.join(KINDS)}")
        if self.kind == "scale" and not 0 < self.magnitude < math.inf:
            raise CallError(f"a scale's factor is above 0, not {self.magnitude:g}")
        if self.kind != "translation" and self.shift != (0, 0):
            raise CallError(f"only a translation has a shift, not a {self.kind}")

    def matrix(self) -> torch.Tensor:
        """What the change does to a vector (down, across) from the point that stays: 2 x 2, float64."""
        match self.kind:
            case "rotation":
                turn = math.radians(self.magnitude)
                rows = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
            case "scale":
                rows = [[self.magnitude, 0.0], [0.0, self.magnitude]]
            case _:
                rows = [[1.0, 0.0], [0.0, -1.0]]
        return torch.tensor(rows, dtype=torch.float64)


def transformations(side: int) -> tuple[Transformation, ...]:
    """The default transformations of images of this side, in pixels.

    Translations by a 64th, 32nd and 16th of it, rounded to distinct whole pixels, in eight directions (diagonal ones
    rounded to whole pixels down and across, so that those of 1 and of 2 pixels are the same); rotations by 5, 10, 20
    and 40 degrees both ways; scales by 1.1, 1.25 and 1.5 both ways; the flip.
    """
    radii = sorted({max(1, round(side / part)) for part in (64, 32, 16)})
    moves = [
        Transformation("translation", float(radius), (round(-radius * math.sin(turn)), round(radius * math.cos(turn))))
        for radius in radii
        for turn in (math.pi / 4 * eighth for eighth in range(8))
    ]
    angles = [Transformation("rotation", float(angle)) for angle in (-40, -20, -10, -5, 5, 10, 20, 40)]
    scales = [Transformation("scale", factor) for factor in (1 / 1.5, 1 / 1.25, 1 / 1.1, 1.1, 1.25, 1.5)]
    return (*moves, *angles, *scales, Transformation("flip"))


def transform(images: torch.Tensor, transformation: Transformation, centre: Point | None = None) -> torch.Tensor:
    """Transformed images, N x C x H x W in [0, 1] to the same.

    Translations and flips are exact; rotations and scales are resampled bicubically (``grid_sample``; enlarging and
    shrinking alike, without a filter against aliasing) and clipped to [0, 1]. What comes in from outside the image is
    its mirror image.

    Parameters
    ----------
    centre : the point that stays; default the image's middle. A flip stays on whole pixels: twice what ``centre`` says
        across must be a whole number.

    Raises
    ------
    CallError : a flip about a centre that is no whole number of half pixels across.
    """
    height, width = images.shape[2:]
    down, across = (height / 2, width / 2) if centre is None else centre
    if transformation.kind in ("translation", "flip"):
        rows = torch.arange(height) - transformation.shift[0]
        if transformation.kind == "flip":
            if not float(2 * across).is_integer():
                raise CallError(f"a flip's centre is a whole number of half pixels across, not {across:g}")
            columns = int(2 * across) - 1 - torch.arange(width)
        else:
            columns = torch.arange(width) - transformation.shift[1]
        rows, columns = (_mirrored(*each).to(images.device) for each in ((rows, height), (columns, width)))
        return images.index_select(2, rows).index_select(3, columns)
    fixed = torch.tensor((down, across), dtype=torch.float64)
    sides = torch.tensor((height, width), dtype=torch.float64)
    pixels = grid_points(0.5, 1, (height, width))
    source = (pixels - fixed) @ torch.linalg.inv(transformation.matrix()).T + fixed
    # Across before down, and the image's borders at -1 and 1.
    sampled = (2 * source / sides - 1).flip(-1).to(images)
    every = sampled.expand(len(images), -1, -1, -1)
    resampled = torch.nn.functional.grid_sample(images, every, "bicubic", "reflection", align_corners=False)
    return resampled.clamp(0, 1)


def grid_points(start: float, step: int, grid: Size) -> torch.Tensor:
    """The places of a grid's positions in the image, down and across: h x w x 2, float64.

    Parameters
    ----------
    start, step : where the first position lies, and how far it is from one to the next, in pixels.
    grid : h x w.
    """
    rows, columns = (start + step * torch.arange(count, dtype=torch.float64) for count in grid)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1)


def _mirrored(indices: torch.Tensor, side: int) -> torch.Tensor:
    """Indices of any size into a row of pixels that goes on as its own mirror image, border pixels twice."""
    within = indices % (2 * side)
    return torch.minimum(within, 2 * side - 1 - within)
