"""A torch module with its activations averaged over Gaussian responses, while it runs: the module itself is unchanged.

Activations are caught where they are called, be it by parts of the module, as functions or as methods of tensors, and
replaced by E[f(z + s n)], n standard normal (``gaussian_means``). A run's calls are known by their order, which is the
same whenever a network runs up to the same layer.

Counted are the elementwise activations of tensors that autograd follows from the image on and that have channels. All
others are left alone: bounds on constants and on integers, and what a function with a derivative of its own calls
inside, for that derivative would not be the one of the mean. So are those that torch does not show: a module that is a
TorchScript has none. The mode is of one thread, and of several that are nested the innermost decides.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from reconstruct.errors import CallError
from reconstruct.network.activations import deviations
from reconstruct.network.gaussian_means import (
    LOGISTIC,
    MISH_GATE,
    NORMAL,
    SOFTSIGN,
    TANH_GATE,
    Mean,
    mean_of,
    mean_of_at_least,
    mean_of_at_most,
    mean_of_between,
    mean_of_elu,
    mean_of_gated,
    mean_of_hard_sigmoid,
    mean_of_hard_swish,
    mean_of_mixture,
    mean_of_prelu,
    mean_of_softplus,
)


def recorded(run: Callable[[torch.Tensor], Any], images: torch.Tensor) -> list[torch.Tensor | None]:
    """The standard deviation, for each channel, of what goes into each activation's call of a run on images.

    Parameters
    ----------
    run : runs a module on images that it is given; what it gives is not used.
    images : N x C x H x W.

    Returns
    -------
    1 x C x 1 x 1 for each call, with as many axes as what goes in, over batch and positions; channels on axis 1.

    Examples
    --------
    >>> import torch
    >>> from reconstruct.network.smoothing import recorded, smoothing
    >>> module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(inplace=True))
    >>> spreads = recorded(module, torch.rand(2, 3, 16, 16))
    >>> [tuple(spread.shape) for spread in spreads]
    [(1, 8, 1, 1)]
    >>> with smoothing(spreads):
    ...     means = module(torch.rand(1, 3, 16, 16, requires_grad=True))
    >>> bool((means > 0).all())
    True
    """
    leaf = images.detach().requires_grad_(True)
    found: list[torch.Tensor | None] = []

    def note(call: _Activation, unchanged: Callable[[], Any]) -> Any:
        found.append(deviations(call.responses))
        return unchanged()

    with torch.enable_grad(), _Caught(note):
        run(leaf)
    return found


@contextmanager
def smoothing(spreads: Sequence[torch.Tensor | None]) -> Iterator[None]:
    """Within, the k-th call of an activation gives its mean under Gaussian uncertainty of what goes in, of spreads[k].

    For one run, on images that autograd follows: nothing else is smoothed. None leaves a call as it is.

    Parameters
    ----------
    spreads : standard deviations as ``recorded`` gives them or scaled, at least 0; or one for all of an activation.

    Raises
    ------
    CallError : the run calls more activations, or fewer, or of other channels. Not for fewer where the run ends in an
        exception, which goes its way.
    """
    count = 0

    def averaged(call: _Activation, unchanged: Callable[[], Any]) -> Any:
        nonlocal count
        if count == len(spreads):
            raise CallError(f"the run calls more activations than the {len(spreads)} whose spreads are given")
        spread = spreads[count]
        count += 1
        return unchanged() if spread is None else _averaged(call, spread, count)

    with _Caught(averaged):
        yield
    if count < len(spreads):
        raise CallError(f"the run has called {count} activations, and {len(spreads)} spreads are given")


@dataclass(frozen=True)
class _Activation:
    """An activation as it is called: what goes in, its mean, and whether what comes out is written over it."""

    responses: torch.Tensor
    mean: Mean
    in_place: bool


class _Caught(TorchFunctionMode):
    """Has the calls of activations answered, by what they are and what they would give unchanged. torch turns a mode
    off while it answers a call."""

    def __init__(self, answer: Callable[[_Activation, Callable[[], Any]], Any]) -> None:
        super().__init__()
        self.answer = answer

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        settings = kwargs or {}
        found = _activation(func, args, settings)
        if found is None:
            return func(*args, **settings)
        return self.answer(found, lambda: func(*args, **settings))


def _averaged(call: _Activation, spread: torch.Tensor, number: int) -> torch.Tensor:
    """The mean of an activation, the ``number``-th of its run; in place where the call is."""
    shape = call.responses.shape
    ones = (1,) * (len(shape) - 2)
    if spread.shape not in ((1, shape[1], *ones), (1, 1, *ones)):
        raise CallError(
            f"activation {number} of the run is of {' x '.join(map(str, shape))}, "
            f"and its spread is {' x '.join(map(str, spread.shape))}"
        )
    # In place, what went in is still needed for the derivative.
    responses = call.responses.clone() if call.in_place else call.responses
    means: torch.Tensor = _Means.apply(responses, spread.to(responses), call.mean)
    return call.responses.copy_(means) if call.in_place else means


class _Means(torch.autograd.Function):
    """A mean with its derivative from the same pass; autograd would go through erf and exp again."""

    @staticmethod
    def forward(ctx: Any, responses: torch.Tensor, spread: torch.Tensor, mean: Mean) -> torch.Tensor:
        means, slopes = mean(responses, spread)
        ctx.save_for_backward(responses, spread, slopes)
        ctx.mean = mean
        return means

    @staticmethod
    def backward(ctx: Any, pulled: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        responses, spread, slopes = ctx.saved_tensors
        return pulled * _Slopes.apply(responses, spread, slopes, ctx.mean), None, None


class _Slopes(torch.autograd.Function):
    """The slopes that are there already; what they come from is computed again only where their own derivative is
    asked for, which a product with the Jacobian does not."""

    @staticmethod
    def forward(
        ctx: Any, responses: torch.Tensor, spread: torch.Tensor, slopes: torch.Tensor, mean: Mean
    ) -> torch.Tensor:
        ctx.save_for_backward(responses, spread)
        ctx.mean = mean
        return slopes.detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, pulled: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        responses, spread = ctx.saved_tensors
        with torch.enable_grad():
            leaf = responses.detach().requires_grad_(True)
            _, slopes = ctx.mean(leaf, spread)
            (curved,) = torch.autograd.grad(slopes, leaf, pulled)
        return curved, None, None, None


def _activation(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Activation | None:
    """What a call of torch is as an activation; None if it is none, or one that is left alone."""
    of_settings = _MEANS.get(func)
    responses: Any = args[0] if args else kwargs.get("input")
    # A result that is written elsewhere, out=, is none that autograd follows.
    if of_settings is None or not _is_followed(responses) or kwargs.get("out") is not None:
        return None
    names = [*inspect.signature(of_settings).parameters, "inplace"]
    settings = dict(zip(names, args[1:], strict=False)) | kwargs
    settings.pop("input", None)
    settings.pop("out", None)
    in_place = bool(settings.pop("inplace", False)) or func.__name__.endswith("_")
    mean = of_settings(**settings)
    return None if mean is None else _Activation(responses, mean, in_place)


def _is_followed(responses: Any) -> bool:
    return (
        isinstance(responses, torch.Tensor)
        and responses.is_floating_point()
        and responses.ndim >= 2
        and responses.requires_grad
        and torch.is_grad_enabled()
    )


# Each takes the settings of torch's function of its name, in its order, and gives the mean that belongs to them.


def _leaky_relu(negative_slope: float = 0.01) -> Mean:
    return mean_of("leaky_relu", negative_slope)


def _clamp(min: Any = None, max: Any = None) -> Mean | None:  # noqa: A002
    if isinstance(min, torch.Tensor) or isinstance(max, torch.Tensor) or (min is None and max is None):
        return None
    if max is None:
        return mean_of_at_least(min)
    return mean_of_at_most(max) if min is None else mean_of_between(min, max)


def _clamp_max(max: Any) -> Mean | None:  # noqa: A002
    return _clamp(None, max)


def _hardtanh(min_val: float = -1.0, max_val: float = 1.0) -> Mean:
    return mean_of_between(min_val, max_val)


def _elu(alpha: float = 1.0) -> Mean:
    return mean_of_elu(alpha)


def _selu() -> Mean:
    return mean_of_elu(1.6732632423543772, scale=1.0507009873554805)


def _celu(alpha: float = 1.0) -> Mean:
    return mean_of_elu(alpha, 1 / alpha)


def _softplus(beta: float = 1.0, threshold: float = 20.0) -> Mean:
    return mean_of_softplus(beta)  # above the threshold it is z, to within exp(-threshold)


def _gelu(approximate: str = "none") -> Mean:
    return mean_of_gated(TANH_GATE if approximate == "tanh" else NORMAL)


def _prelu(weight: torch.Tensor) -> Mean:
    return mean_of_prelu(weight)


def _without_settings(mean: Mean) -> Callable[[], Mean]:
    return lambda: mean


_CALLED: list[tuple[Callable[..., Mean | None], tuple[str, ...]]] = [
    (_without_settings(mean_of("relu")), ("relu", "relu_")),
    (_without_settings(mean_of("relu6")), ("relu6",)),
    (_without_settings(mean_of("avr")), ("abs", "abs_", "absolute", "absolute_")),
    (_leaky_relu, ("leaky_relu", "leaky_relu_")),
    (_prelu, ("prelu",)),
    (_clamp, ("clamp", "clamp_", "clip", "clip_", "clamp_min", "clamp_min_")),
    (_clamp_max, ("clamp_max", "clamp_max_")),
    (_hardtanh, ("hardtanh", "hardtanh_")),
    (_elu, ("elu", "elu_")),
    (_selu, ("selu", "selu_")),
    (_celu, ("celu", "celu_")),
    (_softplus, ("softplus",)),
    (_gelu, ("gelu",)),
    (_without_settings(mean_of_gated(LOGISTIC)), ("silu",)),
    (_without_settings(mean_of_gated(MISH_GATE)), ("mish",)),
    (_without_settings(mean_of_hard_swish), ("hardswish",)),
    (_without_settings(mean_of_hard_sigmoid), ("hardsigmoid",)),
    (_without_settings(mean_of_mixture(LOGISTIC)), ("sigmoid", "sigmoid_", "expit")),
    (_without_settings(mean_of_mixture(LOGISTIC, -1.0, 1.0, 2.0)), ("tanh", "tanh_")),
    (_without_settings(mean_of_mixture(SOFTSIGN, -1.0, 1.0)), ("softsign",)),
]


def _functions(names: Sequence[str]) -> Iterator[Callable[..., Any]]:
    """Every function that torch has under the names: of tensors, of ``torch`` itself, and of ``functional``."""
    places: tuple[Any, ...] = (torch.Tensor, torch, functional, torch.special)
    return (getattr(place, name) for place in places for name in names if hasattr(place, name))


_MEANS = {function: mean for mean, names in _CALLED for function in _functions(names)}
