"""ReLU, CReLU and AVR: forward, and back to the linear responses where that is possible.

Sources: CReLU and AVR (absolute value rectification), Shang, Sohn, Almeida, Lee 2016, Definition 2.1 for CReLU;
AVR is Jarrett et al.'s (2009), whom they compare with in sections 2.1, 3 and 4.3.
"""

from __future__ import annotations

import math
from functools import partial

import torch

from reconstruct.errors import CallError, FeatureError

ACTIVATIONS = ("relu", "relu6", "leaky_relu", "crelu", "leaky_crelu", "avr", "none")

TAPS = {"responses": "none", "relu": "relu", "crelu": "crelu", "avr": "avr"}
"""What can be read of a layer, whatever its own activation, and the activation that gives it. The leaky ones are not
here: which they are depends on a slope."""

VANISHING = -70.0
"""The logarithm of what is taken for 0 in smoothed activations: 4e-31."""


def activate(responses: torch.Tensor, activation: str, slope: float = 0.0) -> torch.Tensor:
    """Linear responses to features.

    Parameters
    ----------
    responses : N x C x ... (channels on axis 1)
    activation : one of ``ACTIVATIONS``. With a = ``slope`` for the leaky ones and 0 for the others:
        ``relu`` max(z, a z); ``crelu`` that of z, then that of -z, concatenated on the channel axis (2C
        channels, all positive phases first); ``relu6`` min(max(z, 0), 6); ``avr`` |z|; ``none`` z.
    slope : of the leaky variants, at least 0 and below 1; the others ignore it.

    Returns
    -------
    N x C x ..., or N x 2C x ... after CReLU.

    Raises
    ------
    CallError : an unknown activation.
    """
    match activation:
        case "relu" | "crelu":
            slope = 0.0
        case "relu6":
            return responses.clamp(0, 6)
        case "avr":
            return responses.abs()
        case "none":
            return responses
        case "leaky_relu" | "leaky_crelu":
            pass
        case _:
            raise _unknown(activation)
    rectify = torch.relu if slope == 0 else partial(torch.nn.functional.leaky_relu, negative_slope=slope)
    if phases(activation) == 1:
        return rectify(responses)
    return torch.cat((rectify(responses), rectify(-responses)), dim=1)


def derivative(responses: torch.Tensor, activation: str, slope: float = 0.0) -> torch.Tensor:
    """The derivative of each feature by its response: N x C x ..., C as ``activate`` gives it; at z = 0 that of z > 0.

    CReLU's features are ``derivative * cat(z, z)``: the activation is piecewise linear, and so is a network of such.
    """
    positive = responses >= 0
    # In the responses' own precision: a leak of 0.2 is another number in float32 than in float64.
    one, leak = responses.new_tensor(1.0), responses.new_tensor(slope if activation.startswith("leaky") else 0.0)
    match activation:
        case "relu" | "leaky_relu":
            return torch.where(positive, one, leak)
        case "relu6":
            return torch.where(positive & (responses < 6), one, leak)
        case "crelu" | "leaky_crelu":
            return torch.cat((torch.where(positive, one, leak), torch.where(positive, -leak, -one)), dim=1)
        case "avr":
            return torch.where(positive, one, -one)
    return torch.ones_like(responses)


def smoothed(
    responses: torch.Tensor, activation: str, slope: float, spread: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of an activation f over uncertain responses, E[f(z + s n)], n standard normal, and its derivative.

    With P = Phi(z / s) and p = s phi(z / s) from ``smoothed_step`` that of ReLU is z P + p, and its derivative P. The
    others are made of it. They tend to ``activate`` and ``derivative`` as s goes to 0.

    Parameters
    ----------
    responses : N x C x ..., z.
    activation, slope : as of ``activate``.
    spread : s, at least 0; 1 x C x 1 x 1, or whatever broadcasts against the responses. Where it is 0 the activation is
        what it is.

    Returns
    -------
    Features and their derivatives as ``activate`` and ``derivative`` lay them out, N x 2C x ... after CReLU; float32
    ones are right to within some 1e-6 of the spread.

    Raises
    ------
    CallError : an unknown activation.
    """
    if activation not in ACTIVATIONS:
        raise _unknown(activation)
    if activation == "none":
        return responses, torch.ones_like(responses)
    step, bump = smoothed_step(responses, spread)
    if activation == "relu6":
        upper, upper_bump = smoothed_step(responses - 6, spread)
        gain = step - upper
        return torch.addcmul(bump - upper_bump, responses, gain).add_(upper, alpha=6), gain
    if activation == "avr":
        gain = 2 * step - 1
        return torch.addcmul(2 * bump, responses, gain), gain
    leak = slope if activation.startswith("leaky") else 0.0
    if leak:
        step, bump = step * (1 - leak) + leak, bump * (1 - leak)
    mean = torch.addcmul(bump, responses, step)
    if phases(activation) == 1:
        return mean, step
    # f(z) - f(-z) = (1 + a) z, and so are the means.
    negative = torch.sub(mean, responses, alpha=1 + leak)
    return torch.cat((mean, negative), dim=1), torch.cat((step, step - (1 + leak)), dim=1)


def smoothed_step(responses: torch.Tensor, spread: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Phi(z / s) and s phi(z / s): the probability that z + s n is positive, and the bump that rounds the corner off.

    Where s is 0 they are 1 or 0, that of z = 0 being 1, and 0. Both can be differentiated by the responses.
    """
    spread = spread.to(responses)
    exact = spread < torch.finfo(responses.dtype).tiny  # a smaller one has no inverse
    scaled = responses * (math.sqrt(0.5) / spread).masked_fill(exact, 0)
    # erf takes half of the time of ndtr. A factor in front of exp would be one more pass over all of the responses.
    step = torch.erf(scaled).mul_(0.5).add_(0.5)
    exponent = torch.addcmul((spread / math.sqrt(2 * math.pi)).log(), scaled, scaled, value=-1)
    # 0 where nobody sees it: far from a kink numbers are subnormal, and all of this takes half as long again.
    bump = torch.nn.functional.threshold(exponent, VANISHING, -math.inf, inplace=True).exp_()
    if exact.any():
        step = torch.where(exact, (responses >= 0).to(step), step)
    return step, bump


def deviations(responses: torch.Tensor) -> torch.Tensor:
    """The standard deviation of each channel over batch and positions: N x C x ... to 1 x C x 1 ..."""
    others = [axis for axis in range(responses.ndim) if axis != 1]
    return responses.detach().std(others, correction=0, keepdim=True)


def phases(activation: str) -> int:
    """How many features one linear response gives: 2 for CReLU, 1 for the others."""
    return 2 if activation in ("crelu", "leaky_crelu") else 1


def is_invertible(activation: str, slope: float = 0.0) -> bool:
    """Whether the linear responses can be computed back from the features."""
    return activation in ("crelu", "leaky_crelu", "none") or (activation == "leaky_relu" and slope > 0)


def linear_responses(features: torch.Tensor, activation: str, slope: float = 0.0) -> torch.Tensor:
    """Linear responses of features that may be estimates: z = (p - q) / (1 + slope) for CReLU.

    Estimated features need not lie in CReLU's image (both phases of a pair may be non-zero); the difference of
    the phases is then the least-squares estimate. Use ``check_features`` first where they should.

    Raises
    ------
    CallError : the activation has lost the responses (ReLU keeps [z]+, AVR keeps |z|).

    Examples
    --------
    >>> import reconstruct, torch
    >>> z = torch.tensor([[[[1.0, -2.0]]]])
    >>> features = torch.cat((z.relu(), (-z).relu()), dim=1)
    >>> reconstruct.linear_responses(features, "crelu")
    tensor([[[[ 1., -2.]]]])
    """
    if not is_invertible(activation, slope):
        kept = {"relu": "[z]+", "relu6": "[z]+ up to 6", "leaky_relu": "[z]+", "avr": "|z|"}.get(
            activation, "part of z"
        )
        raise CallError(f"{activation} keeps only {kept}: its linear responses cannot be computed back")
    match activation:
        case "crelu":
            positive, negative = features.chunk(2, dim=1)
            return positive - negative
        case "leaky_crelu":
            positive, negative = features.chunk(2, dim=1)
            return (positive - negative) / (1 + slope)
        case "leaky_relu":
            return torch.where(features >= 0, features, features / slope)
    return features


def check_features(features: torch.Tensor, activation: str, slope: float = 0.0, *, pooled: bool = False) -> None:
    """Refuse features that this activation cannot have produced, saying where the first such entry is.

    Finite everywhere; CReLU: no negative entry and at most one non-zero phase in a pair; leaky CReLU: the two
    phases p, q of a pair satisfy min(p, q) = -slope max(p, q); ReLU and AVR: no negative entry; ReLU6: none above 6
    either. "Zero" is within 4 units of rounding of the largest feature, in the features' own precision or float32 at
    best.

    pooled : after a pooling both phases of a pair may be non-zero, from two positions of a window: only negative
        entries are refused, and those of leaky CReLU are not.

    Raises
    ------
    FeatureError : with the index of the first entry at fault, and its value.
    """
    _refuse(~features.isfinite(), features, "is not finite")
    if activation in ("none", "leaky_relu") or (pooled and activation == "leaky_crelu") or features.numel() == 0:
        return
    # float64 features are often float32 ones converted.
    eps = max(torch.finfo(features.dtype).eps, torch.finfo(torch.float32).eps)
    tolerance = 4 * eps * float(features.abs().max())
    if pooled or phases(activation) == 1:
        kind = f"pooled {activation}" if pooled else activation
        _refuse(features < -tolerance, features, f"is negative, which {kind} features never are")
        if activation == "relu6":
            _refuse(features > 6 + tolerance, features, f"is above 6, which {kind} features never are")
        return
    positive, negative = features.chunk(2, dim=1)
    if activation == "crelu":
        _refuse(features < -tolerance, features, "is negative, which CReLU features never are")
        slope = 0.0
    low, high = torch.minimum(positive, negative), torch.maximum(positive, negative)
    pair = f"and its other phase, {positive.shape[1]} channels on, contradict each other: not CReLU features"
    _refuse((low + slope * high).abs() > tolerance, positive, pair)


def _unknown(activation: str) -> CallError:
    return CallError(f"unknown activation '{activation}'; there are {', '.join(ACTIVATIONS)}")


def _refuse(fault: torch.Tensor, features: torch.Tensor, complaint: str) -> None:
    if fault.any():
        index = [int(i) for i in fault.nonzero()[0]]
        raise FeatureError(f"features{index} = {float(features[tuple(index)]):g} {complaint}")
