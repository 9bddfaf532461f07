"""What max-pooling leaves of a layer's input, one pooling region after the other, with bounds that hold.

A region holds n shifts w_i^1 ... w_i^n of each filter; x is the part of the layer's input that they see. Pooled CReLU
features with their switches (which shift had the maximum) say exactly the responses m of the selected columns W^:
``W^T^ x = m``. So ``x' = (W^T^)^+ m`` is the orthogonal projection of x on the range of W^, and

- ``|x - x'|^2 / |x|^2 <= 1 - |m|^2 / (L |x|^2)``, L the largest eigenvalue of W^ W^^T (``bound_measured``);
- ``|x - x'|^2 / |x|^2 <= 1 - l |P x|^2 / (L |x|^2)``, l the smallest non-zero squared singular value of W_x, the one
  selected column of each filter whose response is larger, and P the projection on its range (``bound_model``).

Proofs, and which are Shang et al.'s (2016, section A.2) and which ours, are in docs/pooling.md. No W^ is ever formed:
the Gram matrix of shifted filters depends on the difference of their shifts alone, so every region's is read from one
table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.functional import conv2d, pad

from reconstruct.errors import CallError
from reconstruct.network.activations import activate
from reconstruct.network.architecture import Layer
from reconstruct.network.dense_filters import dense_filters, dense_weight
from reconstruct.network.network import Network
from reconstruct.network.surgery import pooled_layer
from reconstruct.operators.pooling import MaxPool

ZERO = torch.finfo(torch.float64).eps ** (2 / 3)
"""An eigenvalue below this share of the largest counts as zero. Dropping one of share t changes the squared relative
error by at most t, and keeping it lets rounding of n eps in the responses through as 2 n eps / sqrt(t): equal at
t = eps^(2/3), to within a factor of 2 and n."""
CHUNK = 2**25
"""Entries of the Gram matrices that are worked on at once."""


@dataclass(frozen=True)
class Regions:
    """One entry a pooling region, N x h x w, float64; NaN where the region's input is zero and nothing is relative.

    Attributes
    ----------
    reconstruction_ratio : |x'| / |x|.
    relative_error : |x - x'| / |x|.
    bound_measured, bound_model : the two bounds of it.
    lambda_max : L; NaN where no column was selected (ReLU, and all responses negative).
    lambda_min : l; NaN likewise.
    selected : columns of W^.
    """

    reconstruction_ratio: torch.Tensor
    relative_error: torch.Tensor
    bound_measured: torch.Tensor
    bound_model: torch.Tensor
    lambda_min: torch.Tensor
    lambda_max: torch.Tensor
    selected: torch.Tensor

    @property
    def violations(self) -> int:
        """How many regions have an error above a bound by more than rounding can explain (it must be 0).

        In squares, by n times ``ZERO`` for each of the three sums of n terms that are compared.
        """
        slack = 4 * ZERO * self.selected.clamp_min(1)
        squared = self.relative_error.square()
        above = [squared > bound.square() + slack for bound in (self.bound_measured, self.bound_model)]
        return int((above[0] | above[1]).sum())

    @property
    def empty(self) -> int:
        """How many regions have an input that is zero."""
        return int(self.relative_error.isnan().sum())

    def summary(self) -> dict[str, Any]:
        """Mean and worst of each number over the regions that have it (None: none has), and the counts."""
        found: dict[str, Any] = {}
        for name, worst in _WORST.items():
            values = getattr(self, name)
            values = values[~values.isnan()]
            some = len(values) > 0
            found[name] = {
                "mean": float(values.mean()) if some else None,
                "worst": float(worst(values)) if some else None,
            }
        return found | {"violations": self.violations, "regions": self.relative_error.numel(), "empty": self.empty}


_WORST: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "reconstruction_ratio": torch.amin,
    "relative_error": torch.amax,
    "bound_measured": torch.amax,
    "bound_model": torch.amax,
    "lambda_min": torch.amin,
    "lambda_max": torch.amax,
}


def region_bounds(
    inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, layer: Layer, pool: Layer
) -> Regions:
    """Errors and bounds of every pooling region.

    Parameters
    ----------
    inputs : N x C x H x W, what the convolution sees: the normalised image, or the features of the layer below.
    weight : K x C x k x k.
    bias : K, or None.
    layer : the convolution: its stride, padding and activation (``crelu`` or ``relu``).
    pool : the max-pooling of its features.

    Raises
    ------
    CallError : another activation: of AVR's |z| the switches do not tell the sign.
    """
    if layer.activation not in ("crelu", "relu"):
        raise CallError(f"the bounds are of CReLU and ReLU features; {layer.name} has {layer.activation}")
    inputs, weight = inputs.double(), weight.double()  # bounds are compared to rounding
    linear = conv2d(inputs, weight, stride=layer.stride, padding=layer.padding)
    shift = 0 if bias is None else bias.double().view(1, -1, 1, 1)
    windows = MaxPool(pool, (linear.shape[2], linear.shape[3]))
    signs = (1, -1) if layer.activation == "crelu" else (1,)
    switches = [windows.switches(sign * (linear + shift)) for sign in signs]
    # Selected: the rectified maximum is not zero.
    active = torch.cat(
        [windows.gather(sign * (linear + shift), at) > 0 for sign, at in zip(signs, switches, strict=True)], 1
    )
    places = torch.cat(switches, 1)
    known = torch.where(active, torch.cat([windows.gather(linear, at) for at in switches], 1), 0)
    origin = [torch.arange(side, device=inputs.device) * pool.stride - pool.padding for side in windows.grid]
    rows = places // linear.shape[3] - origin[0].view(-1, 1)
    columns = places % linear.shape[3] - origin[1]
    energy = _energy(inputs, layer, pool, (linear.shape[2], linear.shape[3]), windows.grid)

    def listed(values: torch.Tensor) -> torch.Tensor:
        """N x C x h x w to regions x C."""
        return values.movedim(1, -1).reshape(-1, values.shape[1])

    table = _inner_products(weight, layer.stride, pool.kernel)
    filters = torch.arange(len(weight), device=inputs.device).repeat(len(signs))
    given = [listed(each) for each in (known, active, rows, columns)]
    step = max(1, CHUNK // len(filters) ** 2)
    parts = [
        _bounds(table, filters, pool.kernel, *part) for part in zip(*(each.split(step) for each in given), strict=True)
    ]
    largest, smallest, projected, modelled, measured = (torch.cat(each) for each in zip(*parts, strict=True))
    norm = energy.flatten()
    norm = torch.where(norm > 0, norm, torch.nan)
    found = {
        "reconstruction_ratio": (projected / norm).sqrt(),
        "relative_error": (1 - projected / norm).clamp_min(0).sqrt(),
        "bound_measured": (1 - (measured / largest).nan_to_num(0) / norm).clamp_min(0).sqrt(),
        "bound_model": (1 - (smallest * modelled / largest).nan_to_num(0) / norm).clamp_min(0).sqrt(),
        "lambda_min": smallest,
        "lambda_max": largest,
        "selected": given[1].sum(1).double(),
    }
    return Regions(**{name: values.view(len(inputs), *windows.grid) for name, values in found.items()})


def layer_bounds(net: Network, images: torch.Tensor, pool: str, *, random: int | None = None) -> Regions:
    """Errors and bounds of every region of a network's max-pooling, as from ``region_bounds``.

    Parameters
    ----------
    images : N x 3 x H x W in [0, 1].
    pool : the max-pooling's name.
    random : a seed: ``random_filters`` stand in place of the convolution's, with no bias.

    Raises
    ------
    CallError : ``pool`` is not a max-pooling of a convolution's features; an activation without bounds; images smaller
        than the receptive field.
    """
    layer, last = pooled_layer(net, pool)
    net.architecture.response_sizes((images.shape[2], images.shape[3]), pool)  # refuses images that are too small
    below = net.up_to(layer.name)
    if len(below) > 1:  # by the layer's own activation, whatever a split point of its name reads
        source = below[-2]
        inputs = activate(net.responses(images, source.name), source.activation, source.slope)
    else:
        inputs = (images - net.mean) / net.std
    convolution = net.convolution(layer.name)
    # As filters of all channels without gaps, which region_bounds takes.
    plain = replace(layer, kernel=layer.extent, groups=1, dilation=1)
    if random is None:
        return region_bounds(inputs, dense_weight(convolution), convolution.bias, plain, last)
    drawn = dense_filters(random_filters(convolution.weight, random), layer.groups, layer.dilation)
    return region_bounds(inputs, drawn, None, plain, last)


def random_filters(weight: torch.Tensor, seed: int) -> torch.Tensor:
    """Gaussian filters of the same shape, each of unit norm, float64: what trained filters are compared with."""
    filters = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (filters / filters.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).to(weight.device)


def _inner_products(weight: torch.Tensor, stride: int, kernel: int) -> torch.Tensor:
    """<w_k at shift u, w_l at shift v> by the difference u - v: K x K x (2 kernel - 1) x (2 kernel - 1).

    Differences run from 1 - kernel to kernel - 1 in both directions, in strides of the convolution.
    """
    reach = (kernel - 1) * stride
    return conv2d(weight, weight, stride=stride, padding=reach).transpose(0, 1).contiguous()


def _energy(
    inputs: torch.Tensor, layer: Layer, pool: Layer, grid: tuple[int, int], regions: tuple[int, int]
) -> torch.Tensor:
    """|x|^2 of every region, N x h x w: sums of what some position of the region sees, and nothing else."""
    step, side = pool.stride * layer.stride, (pool.kernel - 1) * layer.stride + layer.kernel
    before = pool.padding * layer.stride + layer.padding
    seen = [
        min(s, (g - 1) * layer.stride - layer.padding + layer.kernel)
        for s, g in zip(inputs.shape[2:], grid, strict=True)
    ]
    squares = inputs.square().sum(1, keepdim=True)[:, :, : seen[0], : seen[1]]
    after = [max(0, (count - 1) * step + side - before - each) for count, each in zip(regions, seen, strict=True)]
    padded = pad(squares, (before, after[1], before, after[0]))
    sums = conv2d(padded, padded.new_ones(1, 1, side, side), stride=step)
    return sums[:, 0, : regions[0], : regions[1]]


def _bounds(
    table: torch.Tensor,
    filters: torch.Tensor,
    kernel: int,
    known: torch.Tensor,
    active: torch.Tensor,
    rows: torch.Tensor,
    columns: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    """L, l, |x'|^2, |P x|^2 and |m|^2 of regions, from their selected columns, regions x n."""
    down = rows.unsqueeze(2) - rows.unsqueeze(1) + kernel - 1
    right = columns.unsqueeze(2) - columns.unsqueeze(1) + kernel - 1
    both = active.unsqueeze(2) & active.unsqueeze(1)
    span = table.shape[-1]
    # Positions of one flat table: four index tensors of this size would be four times the memory.
    flat = (filters.view(-1, 1) * len(table) + filters) * span**2 + (down * span + right).clamp(0, span**2 - 1)
    gram = torch.where(both, table.flatten()[flat], 0)
    largest, _, projected = _solve(gram, known)
    count = len(table)
    larger = known
    chosen = torch.arange(count, device=known.device).expand(len(known), -1)
    if len(filters) > count:
        chosen = torch.where(known[:, :count].abs() >= known[:, count:].abs(), chosen, chosen + count)
        larger = known.gather(1, chosen)
        gram = gram.gather(1, chosen.unsqueeze(2).expand(-1, -1, len(filters)))
        gram = gram.gather(2, chosen.unsqueeze(1).expand(-1, count, -1))
    _, smallest, modelled = _solve(gram, larger)
    return largest, smallest, projected, modelled, known.square().sum(1)


def _solve(gram: torch.Tensor, known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Largest and smallest non-zero eigenvalue (NaN: all are zero) and m^T G^+ m, a squared projection."""
    values, vectors = torch.linalg.eigh(gram)
    largest = values[:, -1]
    kept = values > ZERO * largest.unsqueeze(1)
    parts = (vectors.transpose(1, 2) @ known.unsqueeze(2)).squeeze(2)
    projected = torch.where(kept, parts.square() / torch.where(kept, values, 1), 0).sum(1)
    smallest = torch.where(kept, values, math.inf).amin(1)
    some = largest > 0
    return torch.where(some, largest, torch.nan), torch.where(some, smallest, torch.nan), projected
