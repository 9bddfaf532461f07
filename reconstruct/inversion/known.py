"""What features say of a layer's linear responses: the responses themselves, their modulus, or bounds.

CReLU keeps every response, so does a layer without activation. ReLU says z where it is positive and z <= 0 elsewhere,
AVR says |z|, and a max-pooling bounds the responses of its windows. A residual is the shortest way back to what is
known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from reconstruct.errors import CallError
from reconstruct.network.activations import is_invertible, linear_responses
from reconstruct.network.architecture import Layer
from reconstruct.operators.pooling import MaxPool

SURE = 3.0
"""Deviations of the noise up to which a feature behind a ReLU is taken for a 0."""


@dataclass(frozen=True)
class Exact:
    """Every response is known: z, N x K x h x w."""

    values: torch.Tensor

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, chosen: torch.Tensor) -> Exact:
        """The same of some images of the batch."""
        return Exact(self.values[chosen])

    def norm(self) -> torch.Tensor:
        """|z| of each image, N."""
        return self.values.flatten(1).norm(dim=1)

    def residual(self, responses: torch.Tensor) -> tuple[torch.Tensor, None]:
        """What is missing, and None: it changes with every response."""
        return self.values - responses, None


@dataclass(frozen=True)
class Modulus:
    """AVR's |z|, N x K x h x w: z is one of two."""

    values: torch.Tensor

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, chosen: torch.Tensor) -> Modulus:
        """The same of some images of the batch."""
        return Modulus(self.values[chosen])

    def norm(self) -> torch.Tensor:
        """|z| of each image, N."""
        return self.values.flatten(1).norm(dim=1)

    def residual(self, responses: torch.Tensor) -> tuple[torch.Tensor, None]:
        """What is missing to the nearer of the two, and None: it changes with every response."""
        return torch.where(responses >= 0, self.values, -self.values) - responses, None


@dataclass(frozen=True)
class Box:
    """Bounds of linear responses: ``lower <= z <= upper``, N x K x h x w; they are equal where z itself is known."""

    lower: torch.Tensor
    upper: torch.Tensor

    def __len__(self) -> int:
        return len(self.lower)

    def __getitem__(self, chosen: torch.Tensor) -> Box:
        """The same of some images of the batch."""
        return Box(self.lower[chosen], self.upper[chosen])

    @property
    def known(self) -> torch.Tensor:
        """Where z itself is known."""
        return self.lower == self.upper

    def norm(self) -> torch.Tensor:
        """For each image the norm of the responses that are known; where none is, of the bounds that there are."""
        known = self.known.flatten(1)
        sides = torch.stack((self.lower, self.upper)).flatten(2).abs()
        bounds = torch.where(sides.isfinite(), sides, 0).amax(0)
        counted = known | ~known.any(1, keepdim=True)
        return torch.where(counted, bounds, 0).norm(dim=1)

    def inner(self, share: float) -> Box:
        """The middle of every interval, with this share of its length; one that is open to a side stays as it is."""
        middle, half = (self.lower + self.upper) / 2, share * (self.upper - self.lower) / 2
        closed = self.lower.isfinite() & self.upper.isfinite()
        return Box(torch.where(closed, middle - half, self.lower), torch.where(closed, middle + half, self.upper))

    def narrowed(self, known: Box) -> Box:
        """With the responses that another box knows; where it knows none, as it was."""
        there = known.known
        return Box(torch.where(there, known.lower, self.lower), torch.where(there, known.upper, self.upper))

    def residual(self, responses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The shortest way back into the box, and where (1 or 0) it changes with the responses."""
        nearest = torch.minimum(torch.maximum(responses, self.lower), self.upper)
        active = self.known | (nearest != responses)
        return nearest - responses, active.to(responses.dtype)


Known = Exact | Modulus | Box


def known_of(features: torch.Tensor, layer: Layer, noise: float) -> Known:
    """What a layer's features, N x C x h x w, say of its responses, where noise has this share of the features' norm.

    Noise moves many of a ReLU's zeros above 0. What is within ``SURE`` of its deviations is taken for a zero, which
    says that the response is not above 0: taken for the response it would mislead.
    """
    if is_invertible(layer.activation, layer.slope):
        return Exact(linear_responses(features, layer.activation, layer.slope))
    rectified = features.clamp_min(0)
    if layer.activation == "avr":
        return Modulus(rectified)
    if noise:
        deviation = noise * features.flatten(1).square().mean(dim=1).sqrt().view(-1, 1, 1, 1)
        rectified = torch.where(rectified > SURE * deviation, rectified, 0)
    lower = torch.where(rectified > 0, rectified, -torch.inf)
    if layer.activation == "relu6":
        rectified = torch.where(rectified < 6, rectified, torch.inf)
        lower = lower.clamp_max(6)
    return Box(lower, rectified)


def intervals(pool: MaxPool, features: torch.Tensor, activation: str) -> Box:
    """Bounds of every response below a max-pooling, from what it gives: N x C x h x w to N x K x H x W.

    The tightest of every window that sees a response: at most the window's largest positive phase, and after CReLU at
    least minus its largest negative one (after AVR minus its largest value). Where no window looks: no bounds.

    Raises
    ------
    CallError : an activation whose pooled features bound nothing.
    """
    if activation == "relu":
        upper = pool.tightest(features)
        return Box(torch.full_like(upper, -math.inf), upper)
    if activation == "avr":
        upper = pool.tightest(features)
        return Box(-upper, upper)
    if activation != "crelu":
        raise CallError(f"intervals are of pooled CReLU, ReLU and AVR features, not of {activation}")
    positive, negative = pool.tightest(features).chunk(2, dim=1)
    return Box(-negative, positive)


def at_switches(pool: MaxPool, features: torch.Tensor, switches: torch.Tensor, activation: str) -> Box:
    """The responses at the switches, and nothing of the others; where a phase's maximum is 0, nothing either.

    Raises
    ------
    CallError : AVR, whose |z| does not tell the sign.
    """
    if activation not in ("crelu", "relu"):
        raise CallError(f"switches give responses of pooled CReLU and ReLU features, not of {activation}")
    count = features.shape[1] // (2 if activation == "crelu" else 1)
    flat = features.new_full((len(features), count, pool.size[0] * pool.size[1]), torch.nan)
    for sign, first in ((1, 0), (-1, count))[: features.shape[1] // count]:
        values = sign * features[:, first : first + count]
        # Several windows that share a maximum agree on it. A maximum of 0 is written nowhere: past the end.
        places = torch.where(values == 0, flat.shape[2], switches[:, first : first + count])
        room = torch.cat((flat, flat[:, :, :1]), 2)
        flat = room.scatter(2, places.flatten(2), values.flatten(2))[:, :, :-1]
    flat = flat.unflatten(2, pool.size)
    return Box(flat.nan_to_num(-math.inf), flat.nan_to_num(math.inf))
