"""Statistics of batch normalisation for a network that no longer drops anything.

Dropout adds to the variance of what a layer takes in, and in training the running statistics are those of such inputs.
Without dropout every normalised response is then too small, each layer's by more than the last one's: Li et al. 2019,
"Understanding the disharmony between dropout and batch normalization by variance shift", who measure the statistics
once more when training is done.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from reconstruct.network.architecture import Architecture
from reconstruct.network.network import Network

BATCHES = 20
"""Over how many batches of a training run statistics are measured."""


def are_disturbed(architecture: Architecture) -> bool:
    """Whether a network has batch normalisation, and dropout that disturbs its statistics."""
    layers = architecture.layers
    drops = architecture.input_dropout > 0 or any(layer.dropout for layer in layers)
    return drops and any(layer.batch_norm for layer in layers)


@torch.no_grad()
def measure_statistics(net: Network, batches: Iterable[torch.Tensor]) -> None:
    """Set the running statistics to the mean over these batches without dropout; else the network is left as it was.

    Parameters
    ----------
    batches : images of each batch, N x 3 x H x W in [0, 1], on the network's device; at least one.
    """
    training = net.training
    parts = [part for part in net.modules() if isinstance(part, nn.BatchNorm2d)]
    momenta = [part.momentum for part in parts]
    net.eval()
    for part in parts:
        part.train().reset_running_stats()
        part.momentum = None  # every batch counts the same
    for images in batches:
        net(images)
    for part, momentum in zip(parts, momenta, strict=True):
        part.momentum = momentum
    net.train(training)
