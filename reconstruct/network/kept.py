"""What is made of a network and kept for the next time: one rule for all of it.

Chains, operators, inverses, covariances and networks with taps are made once. They hold as long as nothing that the
network computes with has changed: not the device or type of a parameter or buffer, not a number in one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import chain
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch

Made = TypeVar("Made")
State = tuple[Hashable, ...]

_kept: WeakKeyDictionary[Any, tuple[State, dict[Hashable, Any]]] = WeakKeyDictionary()
"""By network, what it was when these were made. Nothing in here may refer to the network itself, or it stays for ever.
Not a part of the network, so that no copy of one, and none that is sent to another process, takes it along."""


def kept(net: Any, key: Hashable, make: Callable[[], Made]) -> Made:
    """What ``make`` gives, made anew only when the network has changed since.

    Parameters
    ----------
    net : a network; it is held weakly.
    key : says what is made, and with which settings.

    Examples
    --------
    >>> import torch
    >>> from reconstruct.network.kept import kept
    >>> layer = torch.nn.Linear(2, 1)
    >>> total = lambda: kept(layer, "sum", lambda: layer.weight.sum().item())
    >>> before = total()
    >>> _ = layer.weight.data.fill_(3.0)
    >>> total()
    6.0
    """
    return kept_or_made(net, key, make)[0]


def kept_or_made(net: Any, key: Hashable, make: Callable[[], Made]) -> tuple[Made, bool]:
    """As ``kept``, and whether it had to be made."""
    now = state(net)
    found = _kept.get(net)
    if found is None or found[0] != now:
        found = _kept[net] = (now, {})
    values = found[1]
    if key in values:
        return values[key], False
    values[key] = made = make()
    return made, True


def forget(net: Any) -> None:
    """Free what was kept of a network."""
    _kept.pop(net, None)


def state(net: Any) -> State:
    """For every parameter and buffer where it lies, what it is, its version, and its sums over rows and columns.

    A change in place raises the version, one through ``.data`` does not: the sums tell it. They cost two passes over
    the weights, 6 ms for the default model.
    """
    return tuple(_state(values) for values in chain(net.parameters(), net.buffers()))


def _state(values: torch.Tensor) -> Hashable:
    version = 0 if values.is_inference() else values._version
    strided = values.layout is torch.strided
    about = (values.device, values.dtype, values.shape, values.data_ptr() if strided else None, version)
    if values.is_meta:  # it has no numbers
        return about
    numbers = plain(values)
    sums = (numbers,) if numbers.ndim < 2 else (numbers.flatten(1).sum(1), numbers.sum(0))
    return *about, *map(_bits, sums)


def _bits(values: torch.Tensor) -> int:
    """A hash of the bits, not of the numbers: one that is no number equals itself."""
    # NumPy has no bfloat16.
    exact = values.double() if values.is_floating_point() else values
    return hash(exact.cpu().numpy().tobytes())


def plain(values: torch.Tensor) -> torch.Tensor:
    """A tensor's numbers as they are, of one that is sparse or quantised written out."""
    numbers = values.detach()
    numbers = numbers.dequantize() if numbers.is_quantized else numbers
    return numbers if numbers.layout is torch.strided else numbers.to_dense()
