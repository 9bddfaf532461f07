"""What the next layer makes of the two phases of a response (Shang et al. 2016, Table 6).

The outgoing weights of a feature are those that the next convolution gives it: ``weight[:, i]``, L x h x w. Where those
of a response's two phases are opposite the network uses the response as it is, where they are equal its modulus. Small
absolute cosines mean that it uses the phases apart from each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from reconstruct.analysis.crelu.pairing import pairing
from reconstruct.errors import CallError
from reconstruct.network.activations import phases
from reconstruct.network.architecture import KINDS
from reconstruct.network.network import Network
from reconstruct.zoo.paper_cells import Cell, PaperRow, cell

ROWS = 1024
"""Rows of the matrix of all cosines that are worked on at a time: a layer of 4,096 units has 16 million cosines, or 64
million with both phases."""


@dataclass(frozen=True)
class Correlation:
    """Cosines between outgoing weights of a layer; means and deviations are of their absolute values, as in the paper.

    Attributes
    ----------
    layer, activation : its name; its activation.
    above : the convolution whose weights are compared.
    paired : what a pair is: ``phases`` of one response, or for a layer of one phase the ``pairing filters``.
    pair : P, float64, the cosine of each pair with its sign: -1 where the next layer uses the response as it is, 1
        where it uses its modulus.
    non_pair_mean, non_pair_std, non_pairs : over all two features that are no pair, and how many these are.
    non_pair_standard_error : of the mean, by leaving each feature out in turn (jackknife): every feature is in many of
        them, so that they are not as many independent numbers.
    chance : the mean absolute cosine of random directions in as many dimensions.
    """

    layer: str
    above: str
    activation: str
    paired: str
    pair: torch.Tensor
    non_pair_mean: float
    non_pair_std: float
    non_pairs: int
    non_pair_standard_error: float
    chance: float

    @property
    def pair_mean(self) -> float:
        """The mean absolute cosine of the pairs."""
        return float(self.pair.abs().mean())

    @property
    def pair_std(self) -> float:
        """The standard deviation of the pairs' absolute cosines, over all of them."""
        return float(self.pair.abs().std(correction=0))

    @property
    def pair_standard_error(self) -> float:
        """The standard error of the pairs' mean; NaN of one pair."""
        return self.pair_std / math.sqrt(len(self.pair) - 1) if len(self.pair) > 1 else math.nan

    def record(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "layer": self.layer,
            "above": self.above,
            "activation": self.activation,
            "paired": self.paired,
            "pairs": len(self.pair),
            "pair_mean": self.pair_mean,
            "pair_std": self.pair_std,
            "pair_standard_error": self.pair_standard_error,
            "pair_signed_mean": float(self.pair.mean()),
            "non_pair_mean": self.non_pair_mean,
            "non_pair_std": self.non_pair_std,
            "non_pairs": self.non_pairs,
            "non_pair_standard_error": self.non_pair_standard_error,
            "chance": self.chance,
            "pair": self.pair.tolist(),
        }


def outgoing_correlation(net: Network, layer: str) -> Correlation:
    """Cosines of the weights that the next convolution gives to pairs of features, and to others.

    A layer of CReLU has a pair in the two phases of each response, as in the paper. One of ReLU or AVR has no such
    pair: each filter and its pairing filter stand in for it (``pairing.pairing``), which the paper takes for the two
    phases in a ReLU network.

    Raises
    ------
    CallError : no such layer, a pooling, or no convolution with weights above it.
    """
    lower = net.layer(layer)
    reason = lacking(net, layer)
    if reason is not None:
        raise CallError(reason)
    upper = _above(net, layer)
    assert upper is not None
    # Of L x C x h x w the second axis counts the features below; a pooling between keeps them.
    outgoing = net.convolution(upper).weight.detach().transpose(0, 1).flatten(1).double()
    outgoing = outgoing / outgoing.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    if phases(lower.activation) == 2:
        count, paired = lower.filters, "phases"
        pairs = [(i, i + count) for i in range(count)]
    else:
        index, paired = pairing(net.convolution(layer).weight.detach())[0].tolist(), "pairing filters"
        pairs = sorted({(min(i, j), max(i, j)) for i, j in enumerate(index)})
    partners = torch.tensor(pairs, device=outgoing.device)
    pair = outgoing[partners].prod(1).sum(1)
    chance = mean_absolute_cosine(outgoing.shape[1])
    return Correlation(layer, upper, lower.activation, paired, pair, *_others(outgoing, partners, pair), chance)


def table_6(net: Network, rows: Sequence[PaperRow]) -> list[Cell]:
    """The cells of rows of Table 6, each a layer of the network, in the paper's order."""
    cells = []
    for row in rows:
        found = outgoing_correlation(net, row.row)
        pair = found.pair_mean, found.pair_standard_error, len(found.pair), found.pair_std
        others = found.non_pair_mean, found.non_pair_standard_error, found.non_pairs, found.non_pair_std
        cells += [cell(row, "pair", *pair), cell(row, "non_pair", *others)]
    return cells


def lacking(net: Network, layer: str) -> str | None:
    """The reason why a layer has no outgoing weights to compare; None where it has some."""
    each = net.layer(layer)
    if not each.has_weights:
        return f"the {KINDS[each.kind]} {layer} has no responses of its own: name the convolution below it"
    upper = _above(net, layer)
    if upper is None:
        return f"{net.name} has no convolution with weights above {layer}, so {layer} has no outgoing weights"
    grouped = [name for name in (layer, upper) if net.layer(name).groups > 1]
    if grouped:
        return f"{grouped[0]} has groups, and weights are compared only where all filters see the same channels"
    return None


def mean_absolute_cosine(dimensions: int) -> float:
    """The mean absolute cosine of two random directions in so many dimensions n.

    It is Gamma(n / 2) / (sqrt(pi) Gamma((n + 1) / 2)), about sqrt(2 / (pi n)).
    """
    return math.exp(math.lgamma(dimensions / 2) - math.lgamma((dimensions + 1) / 2)) / math.sqrt(math.pi)


def _above(net: Network, layer: str) -> str | None:
    """The next convolution above a layer; None where there is none."""
    above = net.layers[len(net.up_to(layer)) :]
    return next((each.name for each in above if each.has_weights), None)


def _others(unit: torch.Tensor, partners: torch.Tensor, pair: torch.Tensor) -> tuple[float, float, int, float]:
    """Absolute cosines of all two rows but the pairs: mean, standard deviation, number, standard error of the mean.

    Parameters
    ----------
    unit : rows of unit norm.
    partners, pair : the two rows of each pair, P x 2, and their cosine, P.
    """
    sums, squares = [], 0.0
    for rows in unit.split(ROWS):
        cosines = (rows @ unit.T).abs()
        sums.append(cosines.sum(1))
        squares += float(cosines.square().sum())
    # Of each row with all others, less the row with itself and its pairs.
    itself = unit.square().sum(1)
    twice, weights = partners.T.flatten(), pair.abs().repeat(2)
    own = (torch.cat(sums) - itself).index_add(0, twice, -weights)
    counts = torch.full_like(own, len(unit) - 1).index_add(0, twice, -torch.ones_like(weights))
    total, count = own.sum(), counts.sum()
    if not count:
        return math.nan, math.nan, 0, math.nan
    mean = float(total / count)
    square = (squares - float(itself.square().sum()) - 2 * float(pair.square().sum())) / float(count)
    without = (total - 2 * own) / (count - 2 * counts)
    error = math.sqrt((len(unit) - 1) * float(without.var(correction=0)))
    return mean, math.sqrt(max(0.0, square - mean**2)), int(count) // 2, error
