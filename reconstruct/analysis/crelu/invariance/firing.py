"""Where a layer's units fire, and how often they fire on once the image is transformed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from reconstruct.analysis.crelu.invariance.transformations import Transformation


@dataclass
class Firing:
    """The firings of units on the untransformed images of a batch, one entry a firing, all int64.

    Attributes
    ----------
    image : the number of the image in the batch.
    half : 0 for an image of even number in the whole set, 1 for one of odd number.
    channel : the unit.
    position : through the rows of the layer's grid.
    """

    image: torch.Tensor
    half: torch.Tensor
    channel: torch.Tensor
    position: torch.Tensor


class Tally:
    """A layer's counts of firing, on images as they are and as they are transformed.

    Parameters
    ----------
    thresholds : C, above which the features of each channel fire.
    tried : the transformations.

    Attributes
    ----------
    places : how many positions of untransformed images each channel was looked at.
    fired : C, int64, at how many of them it fired.
    tested : 2 x transformations x C, int64, by half of the images (even and odd): how many firing positions could be
        compared.
    kept : the same shape: at how many of those it fired on.
    """

    def __init__(self, thresholds: torch.Tensor, tried: tuple[Transformation, ...]) -> None:
        self.thresholds, self.tried = thresholds, tried
        channels, device = len(thresholds), thresholds.device
        self.places = 0
        self.fired = torch.zeros(channels, dtype=torch.int64, device=device)
        self.tested = torch.zeros(2, len(tried), channels, dtype=torch.int64, device=device)
        self.kept = torch.zeros_like(self.tested)

    def fire(self, features: torch.Tensor, inner: tuple[slice, slice], seen: int) -> Firing:
        """Count the firing of untransformed images, and give where it is.

        Parameters
        ----------
        features : N x C x h x w.
        inner : rows and columns of the grid that are looked at.
        seen : how many images of the set came before this batch.
        """
        part = features[(..., *inner)]
        self.places += part[:, 0].numel()
        image, channel, row, column = (part > self.thresholds.to(part).view(-1, 1, 1)).nonzero(as_tuple=True)
        self.fired += torch.bincount(channel, minlength=len(self.fired))
        position = (row + inner[0].start) * features.shape[3] + column + inner[1].start
        return Firing(image, (image + seen) % 2, channel, position)

    def compare(self, features: torch.Tensor, fired: Firing, partners: torch.Tensor, number: int) -> None:
        """Count what still fires under a transformation.

        Parameters
        ----------
        features : N x C x h x w, of the same images transformed.
        fired : where units fired before.
        partners : h w, int64, which position each one is compared at, or -1.
        number : of the transformation, among those tried.
        """
        position = partners[fired.position]
        used = position >= 0
        image, half, channel = fired.image[used], fired.half[used], fired.channel[used]
        again = features.flatten(2)[image, channel, position[used]] > self.thresholds.to(features)[channel]
        channels = len(self.fired)
        place = half * channels + channel
        self.tested[:, number] += torch.bincount(place, minlength=2 * channels).view(2, channels)
        self.kept[:, number] += torch.bincount(place[again], minlength=2 * channels).view(2, channels)
