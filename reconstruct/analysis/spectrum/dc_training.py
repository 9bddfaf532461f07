"""Does a network learn tones' frequencies without a DC? Three small models (Kechris et al. 2024, V-C, Figure 4).

Two causal convolutions (32 filters, 3 taps, no bias), the mean over time, 32 dense units with ReLU, 3 outputs:

- ``relu``: ReLU after each convolution; the cosines as they are;
- ``linear``: nothing after the convolutions, so what the mean passes on is the cosines' mean, about 0;
- ``linear_dc``: the same of cosines with a DC by class, given by hand: sqrt(2) / 4 times 1, 5 and 19.

The paper repeats it 100 times; its authors' code trains 60 epochs on 1,024 cosines a class. Optimiser (Adam, 1e-3),
loss (cross-entropy), batch (64) and start (Glorot uniform, biases 0) are theirs; the sizes are arguments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import conv1d, cross_entropy, pad

from reconstruct.analysis.spectrum.dc_features import FREQUENCIES, cosines, glorot_uniform
from reconstruct.errors import CallError

MODELS = ("relu", "linear", "linear_dc")
FILTERS, TAPS, BATCH, RATE = 32, 3, 64, 1e-3
CURVES = ("loss", "accuracy", "distance1", "distance2")
GIVEN_DC = tuple(math.sqrt(2) / 4 * multiple for multiple in (1, 5, 19))


@dataclass(frozen=True)
class DcTraining:
    """One model's training from several seeds; ``mean_and_deviation`` gives a field's curve and band.

    Attributes
    ----------
    model : one of ``MODELS``.
    loss, accuracy : epochs x S, means over an epoch's batches as they are trained on, as Keras reports them.
    distance1, distance2 : epochs x S, how far the weights of the first and the second convolution are from their start
        after the epoch, Euclidean.
    start1, start2 : S, the norms of those weights at the start.
    """

    model: str
    loss: torch.Tensor
    accuracy: torch.Tensor
    distance1: torch.Tensor
    distance2: torch.Tensor
    start1: torch.Tensor
    start2: torch.Tensor

    def record(self) -> dict[str, Any]:
        """Plain numbers, for JSON: mean and standard deviation over the seeds, epoch by epoch."""
        record: dict[str, Any] = {"network": self.model}
        for name in CURVES:
            mean, deviation = mean_and_deviation(getattr(self, name))
            record[name], record[f"{name}_std"] = mean.tolist(), deviation.tolist()
        return record | {"start1": float(self.start1.mean()), "start2": float(self.start2.mean())}


def mean_and_deviation(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean and the standard deviation over the seeds of epochs x S, per epoch; with one seed the deviation is 0."""
    return values.mean(1), values.std(1) if values.shape[1] > 1 else torch.zeros(len(values))


def train_dc_models(
    seeds: int = 5,
    epochs: int = 60,
    count: int = 256,
    seed: int = 0,
    models: tuple[str, ...] = MODELS,
    random_phases: bool = False,
) -> list[DcTraining]:
    """Train the models, every seed with its own cosines and start, which its models share.

    Parameters
    ----------
    seeds : repetitions, trained side by side.
    epochs : how often every cosine is seen.
    count : cosines a class.
    seed : of the first repetition; the others follow it.
    models : names out of ``MODELS``.
    random_phases : as in ``cosines``. The linear model is not quite blind: of the paper's cosines, all of phase 0, it
        can learn the small means that 8 s leave, by weights that grow far beyond their start.

    Raises
    ------
    CallError : an unknown model, or fewer than 1 seed or epoch.
    """
    for model in models:
        if model not in MODELS:
            raise CallError(f"there is no model '{model}'; there are {', '.join(MODELS)}")
    if min(seeds, epochs) < 1:
        raise CallError(f"seeds and epochs are at least 1, not {seeds} and {epochs}")
    data = [cosines(count, seed + number, random_phases) for number in range(seeds)]
    waves = torch.stack([each.waves for each in data])
    return [_train(model, waves, data[0].classes, epochs, seed) for model in models]


def pooled_relu(waves: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The mean over time behind two causal convolutions with ReLU: S x N x D.

    Parameters
    ----------
    waves : S x N x 1 x T.
    first : S x C x 1 x k, the first convolution's weights.
    second : S x D x C x k, the second's.
    """
    # A loop: on a CPU one convolution a seed is twice as quick as a grouped one.
    found = []
    for x, one, two in zip(waves, first, second, strict=True):
        h = conv1d(pad(x, (one.shape[2] - 1, 0)), one).relu()
        found.append(conv1d(pad(h, (two.shape[2] - 1, 0)), two).relu().mean(2))
    return torch.stack(found)


def lagged_means(waves: torch.Tensor, lags: int) -> torch.Tensor:
    """The means over time of waves behind 0, 1, ... lags - 1 zeros: ... x lags.

    They are all that a linear model sees: a sum of causal convolutions' outputs over time is a weighted sum of them.

    Parameters
    ----------
    waves : ... x 1 x T.
    """
    length = waves.shape[-1]
    # Of 256 values between -1 and 1 the sum is about 0: float64, so that what is left is not rounding.
    totals = waves[..., 0, :].double().cumsum(-1)
    return (totals[..., length - lags :].flip(-1) / length).to(waves)


def pooled_linear(means: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The same as ``pooled_relu`` without the two ReLUs: S x N x D.

    The two convolutions are one of 2 k - 1 taps, exactly, borders included: training on a few numbers a wave, gradients
    and all, is training on the waves.

    Parameters
    ----------
    means : S x N x (2 k - 1), the ``lagged_means`` of the waves.
    first, second : weights as in ``pooled_relu``.
    """
    taps = first.shape[3]
    products = torch.einsum("sdcb,sca->sdab", second, first[:, :, 0])
    # The last weight of a torch convolution is that of lag 0.
    kernel = [
        sum(products[..., taps - 1 - a, taps - 1 - (lag - a)] for a in range(taps) if 0 <= lag - a < taps)
        for lag in range(2 * taps - 1)
    ]
    return means @ torch.stack([torch.as_tensor(each) for each in kernel], dim=1)


def _train(model: str, waves: torch.Tensor, classes: torch.Tensor, epochs: int, seed: int) -> DcTraining:
    seeds, number = waves.shape[:2]
    if model == "linear_dc":
        waves = waves + torch.tensor(GIVEN_DC)[classes].view(-1, 1, 1)
    inputs = waves if model == "relu" else lagged_means(waves, 2 * TAPS - 1)
    pooled = pooled_relu if model == "relu" else pooled_linear
    generators = [torch.Generator().manual_seed(seed + each) for each in range(seeds)]
    shapes: tuple[tuple[int, ...], ...] = (
        (FILTERS, 1, TAPS),
        (FILTERS, FILTERS, TAPS),
        (FILTERS, FILTERS),
        (len(FREQUENCIES), FILTERS),
    )
    weights = [torch.stack([glorot_uniform(shape, each) for each in generators]) for shape in shapes]
    biases = [torch.zeros(seeds, 1, FILTERS), torch.zeros(seeds, 1, len(FREQUENCIES))]
    start = [each.clone() for each in weights[:2]]
    parameters = [each.requires_grad_() for each in (*weights, *biases)]
    optimiser = torch.optim.Adam(parameters, RATE, eps=1e-7)
    curves: dict[str, list[torch.Tensor]] = {name: [] for name in CURVES}
    which = torch.arange(seeds)[:, None]
    for _ in range(epochs):
        order = torch.stack([torch.randperm(number, generator=each) for each in generators])
        loss, right = torch.zeros(seeds), torch.zeros(seeds)
        for picked in order.split(BATCH, dim=1):
            hidden = pooled(inputs[which, picked], weights[0], weights[1])
            hidden = (hidden @ weights[2].mT + biases[0]).relu()
            scores = hidden @ weights[3].mT + biases[1]
            wanted = classes[picked]
            losses = cross_entropy(scores.mT, wanted, reduction="none").mean(1)
            optimiser.zero_grad()
            # The seeds share no parameter, and Adam works number by number: the sum trains each as if it were alone.
            losses.sum().backward()
            optimiser.step()
            loss += losses.detach() * picked.shape[1]
            right += (scores.argmax(2) == wanted).sum(1)
        distances = [(now.detach() - then).flatten(1).norm(dim=1) for now, then in zip(weights, start, strict=False)]
        for name, value in zip(curves, (loss / number, right / number, *distances), strict=True):
            curves[name].append(value)
    norms = [each.flatten(1).norm(dim=1) for each in start]
    return DcTraining(model, *(torch.stack(each) for each in curves.values()), *norms)
