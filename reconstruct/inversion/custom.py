"""Methods of the user's own: called, and what they return checked."""

from __future__ import annotations

import inspect

import torch

from reconstruct.errors import CallError
from reconstruct.inversion.problem import BUDGET, TOLERANCE, CustomMethod, Problem
from reconstruct.inversion.result import Inverted, Watch
from reconstruct.network.architecture import Size
from reconstruct.network.protocol import AnyNetwork


def invert_custom(
    method: CustomMethod,
    net: AnyNetwork,
    features: torch.Tensor,
    layer: str,
    size: Size,
    *,
    tolerance: float | None = None,
    budget: float | None = None,
    noise: float = 0.0,
    seed: int = 0,
    watch: Watch | None = None,
) -> Inverted:
    """Call the method with a ``Problem`` of these, and with gradients enabled; what it raises passes through.

    It returns images, N x 3 x H x W on the features' device, in [0, 1] as the network takes them and not clipped; or
    those and a status an image; or an ``Inverted``, whose own counts are then believed. Otherwise the work is what the
    problem has counted, the same for every image of the batch, and the status ``converged`` where the residual is
    within the tolerance, ``ended`` elsewhere. Without images to find it is not called.

    Raises
    ------
    CallError : it takes another number of arguments, or what it returned is none of these, or not finite.
    """
    problem = Problem(
        net,
        layer,
        size,
        features,
        noise,
        TOLERANCE if tolerance is None else tolerance,
        BUDGET if budget is None else budget,
        seed,
        watch,
    )
    name, count = name_of(method), len(problem)
    _check_call(method, name)
    if not count:
        empty = problem.features.new_zeros(0, problem.net.channels, *problem.size, dtype=torch.float32)
        return Inverted(empty, [], [], [], 0.0, 0.0)
    with torch.enable_grad():
        returned = method(problem)
    if isinstance(returned, Inverted):
        _check_lists(name, count, returned.status, returned.iterations, returned.forward_passes)
        images = _checked(name, returned.images, problem)
        return Inverted(
            images, returned.status, returned.iterations, returned.forward_passes, returned.prepare_seconds,
            returned.prepare_passes,
        )  # fmt: skip
    found, said = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
    images = _checked(name, found, problem)
    passes, evaluations = problem.passes, problem.work.evaluations
    if said is None:
        with torch.no_grad():
            residual = problem.misfit(problem.f(images)).tolist()
        status = ["converged" if each <= problem.tolerance else "ended" for each in residual]
    else:
        _check_lists(name, count, said)
        status = [str(each) for each in said]
    return Inverted(images, status, [evaluations] * count, [passes] * count, 0.0, 0.0)


def name_of(method: str | CustomMethod) -> str:
    """What a method is called: its name among the built-in ones, ``package.module:function``, or the function's."""
    return method if isinstance(method, str) else getattr(method, "__name__", type(method).__name__)


def _check_call(method: CustomMethod, name: str) -> None:
    """Refuse what cannot be called with a problem alone, as far as its signature tells."""
    try:
        signature = inspect.signature(method)
    except ValueError:  # some that are compiled have none
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise CallError(f"method {name} is to take one argument, the problem, as {name}(problem): {error}") from None


def _checked(name: str, images: object, problem: Problem) -> torch.Tensor:
    wanted = (len(problem), problem.net.channels, *problem.size)
    form = f"images of {' x '.join(map(str, wanted))}, or (images, statuses), or an Inverted"
    if not isinstance(images, torch.Tensor):
        raise CallError(f"method {name} returned {type(images).__name__}; it is to return {form}")
    if tuple(images.shape) != wanted or not images.is_floating_point():
        shape = " x ".join(map(str, images.shape))
        raise CallError(f"method {name} returned {shape} of {images.dtype}; it is to return {form}")
    if images.device != problem.features.device:
        raise CallError(
            f"method {name} returned images on {images.device}, the features are on {problem.features.device}"
        )
    if not images.isfinite().all():
        bad = int((~images.isfinite()).flatten(1).any(1).sum())
        raise CallError(f"method {name} returned values that are not finite, in {bad} of {len(images)} images")
    return images.detach().float()


def _check_lists(name: str, count: int, *lists: object) -> None:
    for each in lists:
        if not isinstance(each, (list, tuple)) or len(each) != count:
            raise CallError(f"method {name} says how each image ended by lists with one entry an image, {count}")
