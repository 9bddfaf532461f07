"""Scores of a layer's units, from the counts of their firing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from reconstruct.analysis.crelu.invariance.firing import Tally


@dataclass(frozen=True)
class Score:
    """L / G of a layer's units under one kind of transformation; NaN where no unit could be tested.

    Attributes
    ----------
    best : mean over the best share of the units.
    deviation : standard deviation over the same.
    mean : over all units.
    held_out : ``best`` with the units chosen on every other image and scored on the rest, averaged over both ways.
        Of scores from few trials the best are the luckiest too, and ``best`` is too high. This is not; it is rather
        too low, as half of the images tell less well which units are the best.
    trials : the median over units of how often a unit was tested: firing positions times transformations.
    """

    best: float
    deviation: float
    mean: float
    held_out: float
    trials: int


@dataclass(frozen=True)
class LayerInvariance:
    """The invariance of a layer's units.

    Attributes
    ----------
    layer, activation : its name; its activation, ``none`` of a pooling.
    units : its channels.
    silent : those that never fire, which are left out of everything else.
    sparse : those that are above 0 too rarely for the rate asked for. Their threshold is 0 and their G, which is
        below the rate, as measured; so their L / G may be above 1 / rate.
    rate : G, the mean over the units that fire.
    scores : by kind.
    curve : L by kind and magnitude, the mean over the units that were tested; magnitudes as the transformations go.
    """

    layer: str
    activation: str
    units: int
    silent: int
    sparse: int
    rate: float
    scores: dict[str, Score]
    curve: dict[str, dict[float, float]]

    @property
    def best(self) -> float:
        """The best units' score, averaged over the kinds of transformation that could be tested."""
        return _mean([score.best for score in self.scores.values()])

    @property
    def held_out(self) -> float:
        """The score ``Score.held_out``, averaged in the same way."""
        return _mean([score.held_out for score in self.scores.values()])

    @property
    def mean(self) -> float:
        """The score of all units, averaged in the same way."""
        return _mean([score.mean for score in self.scores.values()])

    def record(self) -> dict[str, Any]:
        """The scores in plain types of JSON: None stands for NaN, and the curve is pairs of magnitude and L."""
        scores = {
            kind: {name: _plain(value) for name, value in vars(score).items()} for kind, score in self.scores.items()
        }
        curve = {kind: [[size, _plain(rate)] for size, rate in rates.items()] for kind, rates in self.curve.items()}
        return {
            "layer": self.layer,
            "activation": self.activation,
            "units": self.units,
            "silent": self.silent,
            "sparse": self.sparse,
            "rate": _plain(self.rate),
            "best": _plain(self.best),
            "held_out": _plain(self.held_out),
            "mean": _plain(self.mean),
            "scores": scores,
            "curve": curve,
        }


def layer_invariance(tally: Tally, layer: str, activation: str, best: float) -> LayerInvariance:
    """The scores of a layer's counts.

    Parameters
    ----------
    layer, activation : the layer's name, and its activation.
    best : the share of the units that counts as the best, in (0, 1].
    """
    firing = tally.fired > 0
    rates = (tally.fired[firing].double() / tally.places).cpu()
    tested, kept = tally.tested[:, :, firing].double().cpu(), tally.kept[:, :, firing].double().cpu()
    # 0 / 0, a unit that was never tested, is NaN, which the means below leave out.
    local, halves = kept.sum(0) / tested.sum(0), kept / tested
    scores: dict[str, Score] = {}
    curve: dict[str, dict[float, float]] = {}
    for kind in dict.fromkeys(each.kind for each in tally.tried):
        chosen = [number for number, each in enumerate(tally.tried) if each.kind == kind]
        even, odd = halves[:, chosen].nanmean(1) / rates
        scores[kind] = _score(local[chosen].nanmean(0) / rates, even, odd, tested[:, chosen].sum((0, 1)), best)
        curve[kind] = {
            size: float(local[[n for n in chosen if tally.tried[n].magnitude == size]].nanmean(0).nanmean())
            for size in dict.fromkeys(tally.tried[number].magnitude for number in chosen)
        }
    return LayerInvariance(
        layer=layer,
        activation=activation,
        units=len(firing),
        silent=int((~firing).sum()),
        sparse=int((firing & (tally.thresholds == 0)).sum()),
        rate=float(rates.mean()),
        scores=scores,
        curve=curve,
    )


def _score(score: torch.Tensor, even: torch.Tensor, odd: torch.Tensor, trials: torch.Tensor, best: float) -> Score:
    """The score of a kind of transformation from each unit's on all images, on the even ones and on the odd ones.

    ``trials`` : how often each unit was tested. All are as many numbers as there are units that fire.
    """
    top = _best(score, best)
    return Score(
        best=float(score[top].mean()),
        deviation=float((score[top] - score[top].mean()).square().mean().sqrt()),
        mean=float(score.nanmean()),
        held_out=_mean([float(second[_best(first, best)].nanmean()) for first, second in ((even, odd), (odd, even))]),
        trials=int(trials.quantile(0.5)) if len(score) else 0,
    )


def _best(scores: torch.Tensor, share: float) -> torch.Tensor:
    """The numbers of the units with the highest scores, NaN aside: a share of them, at least one if there is any."""
    known = int((~scores.isnan()).sum())
    count = min(known, max(1, round(share * known)))
    # Stable: of equal scores, which are common, the first units are taken on every device.
    return scores.nan_to_num(-1.0).sort(descending=True, stable=True).indices[:count]


def _mean(values: Sequence[float]) -> float:
    """The mean of those values that are known; NaN if none is."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _plain(value: float) -> float | None:
    """The value as JSON has it: None for NaN."""
    return None if math.isnan(value) else value
