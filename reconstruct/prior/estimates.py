"""Stationary covariances of a network under the image prior, estimated once a model and layer, without any image.

On a torus the covariance of what a network makes of random images depends only on the distance of two positions, its
*lag*. A few lags say enough: held by them and tapered, a covariance is small, positive semi-definite, denoised, and
gives one Hermitian matrix per frequency on any grid, so it serves every image size.

``response_covariance``: E[J P J^T] of a layer's responses, P the prior's covariance, J the Jacobian at random prior
images. ``image_gram``: E[J^T J] on the image's polyphase components.
"""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from reconstruct.network.activations import activate, phases
from reconstruct.network.module import TorchNetwork
from reconstruct.network.network import Network
from reconstruct.operators.autodiff import AutodiffChain
from reconstruct.operators.layer_stack import Chain
from reconstruct.prior.gaussian import AXES, EXPONENT, MARGIN, SLOWEST, SPREAD, VARIANCE, Prior

SIDE = 96
"""Of the torus, in pixels, at least; for small models twice their images' side, at a fifth of the time."""
IMAGES = 32
BATCH = 8
REACH = {"response_covariance": 2, "image_gram": 4}
"""Lags up to this distance are kept. More of them resolve sharper spectra and carry more noise."""
VERSION = 1


def response_covariance(net: Network, layer: str, *, seed: int = 0) -> tuple[torch.Tensor, float]:
    """E[J P J^T] by lags, (2r + 1) x (2r + 1) x K x K, and what it cost in forward passes of the model's own size.

    An independent draw of the prior is pushed through the Jacobian at each of 32 random prior images. Cached in
    the user's cache folder (RECONSTRUCT_CACHE names another); costs 0 where it was there.
    """

    if isinstance(net, TorchNetwork):
        return _module_covariance(net, layer, seed)

    def sample(chain: Chain, prior: Prior, generator: torch.Generator) -> torch.Tensor:
        at = chain.linearise(prior.image(prior.draw(BATCH, generator)))
        return chain.product(at, prior.field(prior.draw(BATCH, generator)))

    return _lags_of(net, layer, "response_covariance", seed, sample)


def _module_covariance(net: TorchNetwork, layer: str, seed: int) -> tuple[torch.Tensor, float]:
    """The same of a module, which pads its images itself: on images of its own size, borders and all, and no torus.

    Sums over the pairs of positions that there are, divided by all positions: positive semi-definite, as a sum of
    products, and a taper already. Kept with the network, since nothing tells whether its code has changed.
    """
    key, cost = (layer, "response_covariance", seed), 0.0
    if key not in net.estimates:
        size = (net.input_size, net.input_size)
        chain = AutodiffChain(net, layer, size)
        prior = Prior(size, len(net.architecture.mean), device=net.mean.device)
        generator = torch.Generator().manual_seed(seed)
        reach = REACH["response_covariance"]
        total = torch.zeros(2 * reach + 1, 2 * reach + 1, chain.filters, chain.filters, device=net.mean.device)
        for _ in range(IMAGES // BATCH):
            at = chain.linearise(prior.image(prior.draw(BATCH, generator)))
            values = chain.product(at, prior.crop(prior.field(prior.draw(BATCH, generator))))
            total += _lag_products(values, reach)
        lags = total / (IMAGES * math.prod(chain.grid))
        distances = torch.arange(-reach, reach + 1, device=lags.device)
        window = 1 - distances.abs() / (reach + 1)
        net.estimates[key] = lags * (window[:, None] * window[None, :])[:, :, None, None]
        cost = 3.0 * IMAGES
    return net.estimates[key], cost


def _lag_products(values: torch.Tensor, reach: int) -> torch.Tensor:
    """Sums of z(p) z(p - lag)^T over images and positions p: N x K x h x w to (2r + 1) x (2r + 1) x K x K."""
    _, channels, height, width = values.shape
    found = values.new_zeros(2 * reach + 1, 2 * reach + 1, channels, channels)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            if abs(down) >= height or abs(right) >= width:
                continue
            rows, columns = slice(max(0, down), height + min(0, down)), slice(max(0, right), width + min(0, right))
            earlier = slice(max(0, -down), height + min(0, -down)), slice(max(0, -right), width + min(0, -right))
            here, there = values[:, :, rows, columns], values[:, :, earlier[0], earlier[1]]
            found[reach + down, reach + right] = torch.einsum("nkhw,nlhw->kl", here, there)
    return found


def image_gram(net: Network, layer: str, *, seed: int = 0) -> tuple[torch.Tensor, float]:
    """E[J^T J] by lags of the first layer's stride s: (2r + 1) x (2r + 1) x C s^2 x C s^2. Otherwise as above.

    White noise is pulled back through J^T at random prior images: its covariance is J^T J.
    """
    step = net.layers[0].stride

    def sample(chain: Chain, prior: Prior, generator: torch.Generator) -> torch.Tensor:
        at = chain.linearise(prior.image(prior.draw(BATCH, generator)))
        noise = torch.randn(at.responses.shape, generator=generator).to(at.responses.device)
        return polyphase(chain.transposed(at, noise), step)

    return _lags_of(net, layer, "image_gram", seed, sample)


def exact_image_gram(net: Network, layer: str) -> torch.Tensor:
    """J^T J of a network's first layer, whose Jacobian is the same for every image: all its lags, as ``image_gram``."""
    first = net.layers[0]
    step = first.stride
    # Padding that is no multiple of the stride shifts the kernel against the blocks.
    reach = math.ceil((first.kernel + -first.padding % step) / step) - 1
    channels = len(net.architecture.mean) * step**2
    grid = 2 * reach + 1
    chain = Chain(net, layer, (grid * step, grid * step), periodic=True)
    device = net.mean.device
    impulses = torch.zeros(channels, channels, grid, grid, device=device)
    impulses[range(channels), range(channels), reach, reach] = 1
    images = unpolyphase(impulses, step)
    at = chain.linearise(images)
    columns = polyphase(chain.transposed(at, chain.product(at, images)), step)
    return columns.permute(2, 3, 1, 0)


@dataclass(frozen=True)
class MeanField:
    """A network as the affine map that fits it best on average over prior images, and what that map misses.

    Attributes
    ----------
    slopes, offsets : of the features of each layer below, lowest first, 1 x C x 1 x 1: the regression of a feature on
        its response. For CReLU on a symmetric response the slopes are 1/2 and -1/2 and both offsets E|z|/2.
    error : covariance by lags of the responses minus the affine map's.
    total : covariance by lags of the responses.
    """

    slopes: list[torch.Tensor]
    offsets: list[torch.Tensor]
    error: torch.Tensor
    total: torch.Tensor


def mean_field(net: Network, layer: str, *, seed: int = 0) -> tuple[MeanField, float]:
    """The best affine map, measured on 32 random prior images, cached, and its cost; as ``response_covariance``.

    Raises
    ------
    CallError : there is a max-pooling on the way.
    """

    def estimate() -> dict[str, torch.Tensor]:
        chain, prior = _torus(net, layer)
        generator = torch.Generator().manual_seed(seed)
        images = prior.image(prior.draw(IMAGES, generator))
        found: dict[str, torch.Tensor] = {}
        values = (images - net.mean) / net.std
        slopes, offsets = [], []
        for i, (each, operator, bias) in enumerate(chain.linear_maps()):
            values = operator.convolve(values)
            if bias is not None:
                values = values + bias
            if i == len(chain.layers) - 1:
                break
            features = activate(values, each.activation, each.slope)
            given = torch.cat((values, values), 1) if phases(each.activation) == 2 else values
            centre, level = given.mean(dim=(0, 2, 3), keepdim=True), features.mean(dim=(0, 2, 3), keepdim=True)
            spread = (given - centre).square().mean(dim=(0, 2, 3), keepdim=True)
            slope = ((given - centre) * features).mean(dim=(0, 2, 3), keepdim=True) / spread.clamp_min(1e-30)
            slopes.append(slope)
            offsets.append(level - slope * centre)
            found[f"slope{i}"], found[f"offset{i}"] = slopes[-1], offsets[-1]
            values = features
        error = values - chain.affine(images, slopes, offsets)
        for name, what in (("error", error), ("total", values - values.mean(dim=(0, 2, 3), keepdim=True))):
            found[name] = _taper(_cross(what) / IMAGES, REACH["response_covariance"])
        return found

    found, cost = _cached(net, layer, "mean_field", seed, estimate)
    below = range(len(net.chain(layer)) - 1)
    slopes, offsets = ([found[f"{name}{i}"] for i in below] for name in ("slope", "offset"))
    return MeanField(slopes, offsets, found["error"], found["total"]), cost


def spectrum(lags: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """The matrices at every frequency of half a torus: g x (g/2 + 1) x K x K, complex64, Hermitian, >= 0."""
    reach = len(lags) // 2
    distances = torch.arange(-reach, reach + 1, device=lags.device)
    down = torch.arange(grid[0], device=lags.device)[:, None] * distances / grid[0]
    right = torch.arange(grid[1] // 2 + 1, device=lags.device)[:, None] * distances / grid[1]
    columns = torch.einsum("fd,edkl->efkl", _wave(right), lags.to(torch.complex64))
    return torch.einsum("fe,egkl->fgkl", _wave(down), columns)


def inverse(matrices: torch.Tensor, shift: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """The map (M + shift I)^-1 on a torus of the matrices' grid: N x K x g x g' to the same."""
    eye = torch.eye(matrices.shape[-1], device=matrices.device)
    # By Cholesky, as in ``Convolution.torus_inverse``.
    inverses = torch.cholesky_inverse(torch.linalg.cholesky(matrices + shift * eye))

    def solve(values: torch.Tensor) -> torch.Tensor:
        if not len(values):  # which MKL's Fourier transform refuses
            return values
        waves = inverses @ torch.fft.rfft2(values).permute(2, 3, 1, 0)
        return torch.fft.irfft2(waves.permute(3, 2, 0, 1), s=values.shape[2:])

    return solve


def polyphase(images: torch.Tensor, step: int) -> torch.Tensor:
    """N x C x H x W to N x C s^2 x H/s x W/s."""
    count, channels, height, width = images.shape
    parts = images.reshape(count, channels, height // step, step, width // step, step)
    return parts.permute(0, 1, 3, 5, 2, 4).reshape(count, channels * step**2, height // step, width // step)


def unpolyphase(parts: torch.Tensor, step: int) -> torch.Tensor:
    """The inverse of ``polyphase``."""
    count, channels, height, width = parts.shape
    images = parts.reshape(count, channels // step**2, step, step, height, width)
    return images.permute(0, 1, 4, 2, 5, 3).reshape(count, channels // step**2, height * step, width * step)


Sampler = Callable[[Chain, Prior, torch.Generator], torch.Tensor]


def _lags_of(net: Network, layer: str, what: str, seed: int, sample: Sampler) -> tuple[torch.Tensor, float]:
    def estimate() -> dict[str, torch.Tensor]:
        chain, prior = _torus(net, layer)
        generator = torch.Generator().manual_seed(seed)
        total = sum((_cross(sample(chain, prior, generator)) for _ in range(IMAGES // BATCH)), torch.zeros(()))
        return {"lags": _taper(total / IMAGES, REACH[what])}

    found, cost = _cached(net, layer, what, seed, estimate)
    return found["lags"], cost


def _cached(
    net: Network, layer: str, what: str, seed: int, estimate: Callable[[], dict[str, torch.Tensor]]
) -> tuple[dict[str, torch.Tensor], float]:
    path = _folder() / f"{what}-{_fingerprint(net, layer, seed)}.safetensors"
    with suppress(OSError, SafetensorError), safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name).to(net.mean.device) for name in file.keys()}, 0.0  # noqa: SIM118
    found = estimate()
    # A cache that cannot be written is not there the next time: nothing is lost but half a second.
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            written = Path(file.name)
            try:
                file.write(save({name: values.cpu().contiguous() for name, values in found.items()}))
                file.close()
                os.replace(written, path)
            finally:
                written.unlink(missing_ok=True)
    return found, 2 * IMAGES * (_side(net, layer) / net.input_size) ** 2


def _torus(net: Network, layer: str) -> tuple[Chain, Prior]:
    side = (_side(net, layer),) * 2
    return (
        Chain(net, layer, side, periodic=True),
        Prior(side, len(net.architecture.mean), torus=True, device=net.mean.device),
    )


def _cross(values: torch.Tensor) -> torch.Tensor:
    """Sum over images of the cross-spectra of channels, N x K x g x g' to g x (g'/2 + 1) x K x K, by position."""
    waves = torch.fft.rfft2(values).permute(2, 3, 1, 0)
    return waves @ waves.mH / (values.shape[2] * values.shape[3])


def _taper(spectra: torch.Tensor, reach: int) -> torch.Tensor:
    """Spectra on a square torus to lags, tapered."""
    grid = len(spectra)
    lags = torch.fft.irfft2(spectra, s=(grid, grid), dim=(0, 1))
    distances = torch.arange(-reach, reach + 1, device=lags.device)
    # The triangle's transform is non-negative, so the product of the two stays positive semi-definite.
    window = 1 - distances.abs() / (reach + 1)
    chosen = lags[distances % grid][:, distances % grid]
    return chosen * (window[:, None] * window[None, :])[:, :, None, None]


def _side(net: Network, layer: str) -> int:
    """Of the torus: a multiple of all strides, with room for every kernel and for the lags of both grids."""
    chain = net.chain(layer)
    jump, room = 1, min(SIDE, 2 * net.input_size)
    for each in chain:
        room = max(room, each.kernel * jump)
        jump *= each.stride
    lags = {what: 2 * reach + 1 for what, reach in REACH.items()}
    room = max(room, lags["response_covariance"] * jump, lags["image_gram"] * chain[0].stride)
    return jump * math.ceil(room / jump)


def _fingerprint(net: Network, layer: str, seed: int) -> str:
    """Of everything that the estimate depends on."""
    estimate = (VERSION, seed, _side(net, layer), IMAGES, REACH)
    prior = (EXPONENT, SLOWEST, MARGIN, AXES, SPREAD, VARIANCE)
    digest = hashlib.sha256(repr((estimate, prior)).encode())
    digest.update(repr([net.mean.flatten().tolist(), net.std.flatten().tolist(), net.chain(layer)]).encode())
    # Layers without weights are all in the chain's text above.
    for each in net.chain(layer):
        if not each.has_weights:
            continue
        convolution = net.convolution(each.name)
        for values in (convolution.weight, convolution.bias):
            if values is not None:
                digest.update(values.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:32]


def _folder() -> Path:
    named = os.environ.get("RECONSTRUCT_CACHE")
    return Path(named) if named else user_cache_path("reconstruct", appauthor=False)


def _wave(turns: torch.Tensor) -> torch.Tensor:
    # The cross-spectra are of z(p) z(q)^T at q = p - lag.
    return torch.exp(-2j * math.pi * turns).to(torch.complex64)
