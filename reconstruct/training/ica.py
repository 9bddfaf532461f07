"""The first layer's filters by independent component analysis of image patches: Gabor-like before training.

Bell and Sejnowski 1997, "The 'independent components' of natural scenes are edge filters": the mixing vectors of
natural image patches are localised, oriented and band-pass, as the first layer of a trained network is.
"""

from __future__ import annotations

import warnings

import numpy
import torch
from torch import nn

from reconstruct.errors import CallError
from reconstruct.extras import install_hint
from reconstruct.network.network import Network
from reconstruct.training.data import Pictures

PATCHES = 100_000
PICTURES = 2_000
ITERATIONS = 200
LEARNING_RATE = 0.1
"""The first layer's learning rate in units of the others': its filters are there already. Filters that start at random
need all of it."""


@torch.no_grad()
def initialise_by_ica(net: Network, pictures: Pictures, seed: int) -> None:
    """Set the first convolution's weights to the mixing vectors of patches of its kernel's size; its biases to 0.

    Patches are normalised as the network does it; each filter is scaled to responses of unit variance on them.

    Raises
    ------
    CallError : there are more filters than a patch has numbers, no picture is as large as a patch, or scikit-learn is
        not installed.
    """
    try:
        from sklearn.decomposition import FastICA
        from sklearn.exceptions import ConvergenceWarning
    except ImportError as error:
        raise CallError(f"ICA needs scikit-learn: {install_hint('train')}") from error
    first = net.layers[0]
    convolution = getattr(net, first.name)
    assert isinstance(convolution, nn.Conv2d)
    if first.groups > 1 or first.dilation > 1:
        raise CallError(f"{first.name} has groups or dilation, and ICA finds filters of whole patches")
    numbers = convolution.weight[0].numel()
    if first.filters > numbers:
        raise CallError(
            f"{first.name} has {first.filters} filters of {numbers} numbers: ICA finds at most as many as numbers"
        )
    patches = _patches(pictures, first.kernel, seed) / 255.0
    patches = (patches - net.mean.cpu().numpy()) / net.std.cpu().numpy()
    flat = patches.reshape(len(patches), -1)
    ica = FastICA(
        first.filters, whiten="unit-variance", max_iter=ITERATIONS, tol=1e-3, random_state=seed, fun="logcosh"
    )
    # Patches keep their mean: filters that were all blind to it would lose an image's mean colour.
    with warnings.catch_warnings():
        # Stopped by the limit on iterations its components are as good a start.
        warnings.simplefilter("ignore", ConvergenceWarning)
        ica.fit(flat)
    filters = ica.mixing_.T
    filters = filters / (flat @ filters.T).std(axis=0)[:, None]
    convolution.weight.copy_(torch.from_numpy(filters).view_as(convolution.weight))
    assert convolution.bias is not None
    convolution.bias.zero_()


def _patches(pictures: Pictures, kernel: int, seed: int) -> numpy.ndarray:
    """Patches at random places, N x 3 x kernel x kernel, the same number from each of up to 2,000 pictures."""
    draw = numpy.random.default_rng(seed)
    chosen = draw.permutation(len(pictures))[:PICTURES]
    each = max(1, PATCHES // len(chosen))
    found = []
    for index in chosen:
        pixels = pictures.pixels(int(index))
        if min(pixels.shape[1:]) < kernel:
            continue
        for _ in range(each):
            top, left = (int(draw.integers(0, length - kernel + 1)) for length in pixels.shape[1:])
            found.append(pixels[:, top : top + kernel, left : left + kernel])
    if not found:
        raise CallError(f"no picture is as large as the first layer's {kernel} x {kernel} kernel")
    return numpy.stack(found).astype(numpy.float64)
