"""Rectification, step by step: an image, a filter, its response, and what ReLU, CReLU and AVR keep of it.

After a tutorial, "Convolutional Neural Networks (CNN) - Step 1b - The Rectified Linear Unit (ReLU)" (SuperDataScience,
2018), which shows a picture, a feature detector's answer in black, grey and white, and the answer rectified, with no
black left (``three_shades``). It has ReLU only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from reconstruct.errors import CallError
from reconstruct.network.activations import activate
from reconstruct.network.network import Network


@dataclass(frozen=True)
class Rectified:
    """One filter's response to one image, before and after rectification.

    Attributes
    ----------
    layer, number : the layer's name; the filter's number in it.
    filter : C x h x w, of the layer's own input.
    response : h x w of the layer's grid.
    relu : [z]+, the positive phase of CReLU, of the same shape.
    negative : [-z]+, its other phase.
    avr : |z|.
    of_image : whether the layer is the first, whose input is the image.
    """

    layer: str
    number: int
    filter: torch.Tensor
    response: torch.Tensor
    relu: torch.Tensor
    negative: torch.Tensor
    avr: torch.Tensor
    of_image: bool = False

    def shades(self) -> dict[str, torch.Tensor]:
        """``response``, ``relu``, ``negative`` and ``avr`` in black, grey and white, all by one bound.

        It is the response's root mean square: grey up to there, and white above.
        """
        bound = float(self.response.double().square().mean().sqrt())
        return {name: three_shades(getattr(self, name), bound) for name in ("response", "relu", "negative", "avr")}

    def record(self) -> dict[str, Any]:
        """Plain numbers, for JSON: of the response, and the share of its energy that each rectification keeps.

        ``shades`` has the shares of black, grey and white (``three_shades``).

        ``responses_recovered`` is the share of positions where what is kept determines the response: all under CReLU.
        """
        energy = float(self.response.double().square().sum())
        positive = float(self.relu.double().square().sum())
        kept = positive / energy if energy else 1.0
        return {
            "layer": self.layer,
            "filter": self.number,
            "response_shape": list(self.response.shape),
            "response_min": float(self.response.min()),
            "response_max": float(self.response.max()),
            "response_mean": float(self.response.double().mean()),
            "relu_mean": float(self.relu.double().mean()),
            "avr_mean": float(self.avr.double().mean()),
            "positive_share": float((self.response > 0).double().mean()),
            "shades": {
                name: [float((shades == shade).double().mean()) for shade in range(3)]
                for name, shades in self.shades().items()
            },
            "energy_kept": {"relu": kept, "crelu": 1.0, "avr": 1.0},
            "responses_recovered": {
                "relu": float((self.response >= 0).double().mean()),
                "crelu": 1.0,
                "avr": float((self.response == 0).double().mean()),
            },
        }


def three_shades(values: torch.Tensor, bound: float) -> torch.Tensor:
    """Values in three shades, of the same shape: 0, black, below 0; 1, grey, up to the bound; 2, white, above it.

    So the tutorial draws a response: rectification leaves "the grey and white colors".
    """
    return (values >= 0).int() + (values > max(bound, 0.0)).int()


@torch.no_grad()
def rectify(
    net: Network, image: torch.Tensor, layer: str, filters: Sequence[int] = (), count: int = 4
) -> list[Rectified]:
    """The response of some of a layer's filters to an image, and its rectifications, whatever the layer's own is.

    Parameters
    ----------
    image : 1 x C x H x W in [0, 1].
    filters : their numbers, from 0; default ``count`` of them that find much to respond to in this image, and each
        something else: the first's response varies most about its mean, for the norm of the filter, and every further
        one's varies most in what those before do not explain.

    Raises
    ------
    CallError : no such layer or filter, no weights, a pooling, or not one image.
    """
    weight = net.convolution(layer).weight
    wrong = [number for number in filters if not 0 <= number < len(weight)]
    if wrong:
        raise CallError(f"{layer} of {net.name} has filters 0 to {len(weight) - 1}, and no {wrong[0]}")
    if len(image) != 1:
        raise CallError(f"one image, 1 x C x H x W, is rectified at a time; these are {len(image)}")
    responses = net.responses(image, layer)
    if not filters:
        filters = _telling(responses[0].flatten(1) / weight.flatten(1).norm(dim=1, keepdim=True), count)
    chosen = responses[:, list(filters)]
    relu, avr = activate(chosen, "relu"), activate(chosen, "avr")
    negative = activate(chosen, "crelu").chunk(2, dim=1)[1]
    first = layer == net.layer_names[0]
    return [
        Rectified(layer, number, weight[number], chosen[0, i], relu[0, i], negative[0, i], avr[0, i], first)
        for i, number in enumerate(filters)
    ]


def _telling(responses: torch.Tensor, count: int) -> list[int]:
    """Rows that vary most, each in what those before do not explain: Gram and Schmidt with pivots, K x positions."""
    left = responses.double().nan_to_num(0.0)
    left = left - left.mean(dim=1, keepdim=True)
    chosen: list[int] = []
    for _ in range(min(count, len(left))):
        sizes = left.norm(dim=1)
        sizes[chosen] = -1.0  # rounding leaves something of rows that were taken
        row = int(sizes.argmax())
        chosen.append(row)
        unit = left[row] / left[row].norm().clamp_min(torch.finfo(torch.float64).tiny)
        left = left - (left @ unit)[:, None] * unit
    return chosen
