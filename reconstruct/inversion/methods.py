"""The methods by name: what each is, which options it takes, what it needs of a layer, and where it stops.

The command line, ``evaluate``, the page and the documentation read this; a new method is an entry here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial

from reconstruct.errors import CallError
from reconstruct.inversion import gradient, linear, memory, wiener
from reconstruct.inversion.checks import not_differentiable, not_linear
from reconstruct.inversion.custom import invert_custom, name_of
from reconstruct.inversion.most_probable import method as most_probable
from reconstruct.inversion.problem import BUDGET, TOLERANCE, CustomMethod
from reconstruct.inversion.result import Inverted
from reconstruct.network.protocol import AnyNetwork
from reconstruct.user_function import function_named

Refusal = Callable[[AnyNetwork, str], str | None]
"""Why a layer of a network cannot be inverted, in a sentence; None where it can."""


@dataclass(frozen=True)
class Method:
    """A method of inversion, declared.

    Attributes
    ----------
    name : as it is asked for.
    summary : what it is, in half a sentence.
    invert : network, features, layer's name and image size to ``Inverted``; takes ``options`` by name.
    options : those of ``invert``'s options that it takes; ``tolerance`` and ``budget`` are every method's.
    refusal : why it cannot invert a layer; None where it can.
    joint : networks, features and names of several layers and image size to ``Inverted``; None where it inverts one
        layer at a time.
    budget, tolerance : where it stops by default, in forward passes and feature residual.
    confidence : whether the expected error of its images has been measured on photographs (``confidence``).
    memory : network, layer's name, image size and ``options`` by name to the bytes that it takes for one image.
    """

    name: str
    summary: str
    invert: Callable[..., Inverted]
    options: frozenset[str]
    refusal: Refusal
    budget: float
    tolerance: float
    joint: Callable[..., Inverted] | None = None
    confidence: bool = False
    memory: Callable[..., float] = memory.of_values

    def refuses(self, nets: Sequence[AnyNetwork], layers: Sequence[str]) -> str | None:
        """Why it cannot invert the layers, one or several together, in a sentence; None where it can."""
        reasons = [self.refusal(net, layer) for net, layer in zip(nets, layers, strict=True)]
        if len(layers) > 1 and self.joint is None:
            able = " and ".join(name for name, method in METHODS.items() if method.joint is not None)
            return f"method {self.name} inverts one layer at a time; {able} inverts {' and '.join(layers)} together"
        return next((reason for reason in reasons if reason is not None), None)


def anywhere(net: AnyNetwork, layer: str) -> str | None:
    """The refusal of a method that inverts every layer."""
    net.layer(layer)
    return None


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "map",
            "the most probable natural image, through the whole network",
            most_probable.invert_map,
            frozenset({"noise", "watch"}),
            partial(not_differentiable, method="map", twice=True),
            most_probable.BUDGET,
            most_probable.TOLERANCE,
            most_probable.invert_joint,
            confidence=True,
            memory=memory.of_covariances,
        ),
        Method(
            "wiener",
            "one linear solve through all layers; CReLU only",
            wiener.invert_wiener,
            frozenset({"noise"}),
            partial(not_linear, method="wiener"),
            wiener.BUDGET,
            wiener.TOLERANCE,
            memory=memory.of_covariances,
        ),
        Method(
            "linear",
            "the CReLU paper's algorithm, layer by layer, damped by default; CReLU only",
            linear.invert_linear,
            frozenset({"linear_form", "damping"}),
            partial(not_linear, method="linear"),
            linear.BUDGET,
            linear.IMAGE_TOLERANCE,
            memory=memory.of_layers,
        ),
        Method(
            "gradient",
            "descent on the pixels with total variation, after Mahendran and Vedaldi",
            gradient.invert_gradient,
            frozenset({"seed", "watch"}),
            partial(not_differentiable, method="gradient"),
            gradient.BUDGET,
            gradient.TOLERANCE,
        ),
    )
}
"""Every built-in method by name, the default first."""


def method_of(method: str | CustomMethod) -> Method:
    """The method that is meant: one of ``METHODS``, or a function of the user's, itself or by name.

    Raises
    ------
    CallError : there is no such method, with the nearest that there is; or no such function.
    """
    if isinstance(method, str) and method in METHODS:
        return METHODS[method]
    if isinstance(method, str) and ":" not in method:
        near = get_close_matches(method, METHODS, n=1)
        end = f", did you mean {near[0]}?" if near else "."
        raise CallError(
            f"unknown method '{method}'{end} There are {', '.join(METHODS)}, and your own: package.module:function"
        )
    function = function_named(method, "method") if isinstance(method, str) else method
    if not callable(function):
        raise CallError(f"method is a name or a function of a reconstruct.Problem, not {type(method).__name__}")
    return Method(
        name_of(method),
        "a function of your own",
        partial(invert_custom, function),
        frozenset({"noise", "seed", "watch"}),
        anywhere,
        BUDGET,
        TOLERANCE,
    )


def check_confidence(method: str | CustomMethod) -> None:
    """Refuse a method whose images' expected error has not been measured.

    Raises
    ------
    CallError : it is one; says which have been.
    """
    if not (chosen := method_of(method)).confidence:
        able = ", ".join(name for name, each in METHODS.items() if each.confidence)
        raise CallError(f"how far off its images are is known of method {able}, not of {chosen.name}")


def applicable(
    net: AnyNetwork | Sequence[AnyNetwork], layer: str | Sequence[str], method: str | CustomMethod
) -> str | None:
    """None if the method can invert this layer, or these together; otherwise why not, in a sentence."""
    names = [layer] if isinstance(layer, str) else layer
    nets = net if isinstance(net, Sequence) else [net] * len(names)
    return method_of(method).refuses(nets, names)
