"""Stationary covariances of a network under the image prior, estimated once a model and layer, without any image.

On a torus the covariance of what a network makes of random images depends only on the distance of two positions, its
*lag*. A few lags say enough: held by them and tapered (``lags``), a covariance is small, positive semi-definite,
denoised, and gives one Hermitian matrix per frequency on any grid, so it serves every image size.

``response_covariance``: E[J P J^T] of a layer's responses, P the prior's covariance, J the Jacobian at random prior
images. ``image_gram``: E[J^T J] on the image's polyphase components. ``smoothing``: how uncertain responses are that
nothing is known of, and how far a smoothed network is from the true one. ``mean_field``: the affine map that fits the
network best on average.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from reconstruct.network.activations import activate, phases
from reconstruct.network.kept import kept_or_made
from reconstruct.network.network import Network
from reconstruct.network.protocol import AnyNetwork
from reconstruct.operators.autodiff import Differentiation
from reconstruct.operators.jacobian import Jacobian
from reconstruct.operators.layer_stack import LayerStack
from reconstruct.operators.polyphase import polyphase, unpolyphase
from reconstruct.prior.disk_cache import cached
from reconstruct.prior.gaussian import AXES, EXPONENT, MARGIN, SLOWEST, SPREAD, VARIANCE, Prior
from reconstruct.prior.lags import lag_products, taper, torus_lags

SIDE = 96
"""The side of the torus, in pixels, at least; for small models twice their images' side, at a fifth of the time."""
IMAGES = 32
BATCH = 8
TAUS = (1.0, 0.5, 0.2, 0.08, 0.03)
"""Where the errors of smoothed networks are measured, falling (``Smoothing``)."""
REACH = {"response_covariance": 2, "image_gram": 4}
"""Lags up to this distance are kept. More of them resolve sharper spectra and carry more noise."""
WEAK = 0.01
"""The share of the mean variance that every direction counts with where nothing tells them apart: behind two fully
connected layers, of 256 and of 1,024, it is within 0.1 dB of the whole covariance or better, and for 1,024 takes less
than half the time; 1 in its place is up to 1.2 dB worse."""
VERSION = 1
PREPARING = logging.getLogger("reconstruct.preparing")
"""Tells how far an estimate is that had to be made: each message has ``done`` of a ``total``, and what it is of."""


def response_covariance(net: AnyNetwork, layer: str, *, seed: int = 0) -> tuple[torch.Tensor, float]:
    """E[J P J^T] by lags, (2r + 1) x (2r + 1) x K x K, and what it cost in forward passes of the model's own size.

    An independent draw of the prior is pushed through the Jacobian at each of 32 random prior images. The estimate of a
    chain of layers is cached in the user's cache folder (RECONSTRUCT_CACHE names another), that of another network is
    kept in memory; it costs 0 where it was there.
    """
    stack = net.as_chain(layer)
    if stack is None:
        lags, made = kept_or_made(net, ("response_covariance", layer, seed), lambda: _without_torus(net, layer, seed))
        return lags, 3.0 * IMAGES if made else 0.0

    def sample(stack: LayerStack, prior: Prior, generator: torch.Generator) -> torch.Tensor:
        at = stack.linearise(prior.image(prior.draw(BATCH, generator)))
        return stack.product(at, prior.field(prior.draw(BATCH, generator)))

    return _lags_of(stack, layer, "response_covariance", seed, sample)


def _without_torus(net: AnyNetwork, layer: str, seed: int) -> torch.Tensor:
    """The same of a network that pads its images itself: on images of its own size, borders and all, and no torus.

    Sums over the pairs of positions that there are, divided by all positions: positive semi-definite, as a sum of
    products, and a taper already (``_products``).
    """
    size = net.input_area
    operator, prior = Differentiation(net, layer, size), Prior(size, net.channels, device=net.mean.device)
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros((), device=net.mean.device)
    for _ in _rounds(net, layer):
        at = operator.linearise(prior.image(prior.draw(BATCH, generator)))
        values = operator.product(at, prior.crop(prior.field(prior.draw(BATCH, generator))))
        total = total + _products(values)
    return taper(total / (IMAGES * math.prod(operator.grid)))


def _products(values: torch.Tensor) -> torch.Tensor:
    """``lag_products`` of responses N x K x h x w, of which there are ``IMAGES`` in all.

    Where those have fewer positions in all than there are channels, as for the vectors of fully connected layers, they
    do not tell which directions are the weak ones: 1 x 1 x 1 x 1, a share of the mean variance, which stands for that
    multiple of the identity.
    """
    positions = values.shape[2] * values.shape[3]
    if IMAGES * positions < values.shape[1]:
        return WEAK * values.square().sum().view(1, 1, 1, 1) / values.shape[1]
    return lag_products(values, REACH["response_covariance"])


def image_gram(net: Network, layer: str, *, seed: int = 0) -> tuple[torch.Tensor, float]:
    """E[J^T J] by lags of the first layer's stride s: (2r + 1) x (2r + 1) x C s^2 x C s^2. Otherwise as above.

    White noise is pulled back through J^T at random prior images: its covariance is J^T J.
    """
    step = net.layers[0].stride

    def sample(stack: LayerStack, prior: Prior, generator: torch.Generator) -> torch.Tensor:
        at = stack.linearise(prior.image(prior.draw(BATCH, generator)))
        noise = torch.randn(at.responses.shape, generator=generator).to(at.responses.device)
        return polyphase(stack.transposed(at, noise), step)

    return _lags_of(net, layer, "image_gram", seed, sample)


def exact_image_gram(net: Network, layer: str) -> torch.Tensor:
    """J^T J of a network's first layer, whose Jacobian is the same for every image: all its lags, as ``image_gram``."""
    first = net.layers[0]
    step = first.stride
    # Padding that is no multiple of the stride shifts the kernel against the blocks.
    reach = math.ceil((first.extent + -first.padding % step) / step) - 1
    channels = net.channels * step**2
    grid = 2 * reach + 1
    stack = LayerStack(net, layer, (grid * step, grid * step), periodic=True)
    device = net.mean.device
    impulses = torch.zeros(channels, channels, grid, grid, device=device)
    impulses[range(channels), range(channels), reach, reach] = 1
    images = unpolyphase(impulses, step)
    at = stack.linearise(images)
    columns = polyphase(stack.transposed(at, stack.product(at, images)), step)
    return columns.permute(2, 3, 1, 0)


@dataclass(frozen=True)
class Smoothing:
    """What it takes to smooth a network up to a layer, and what that costs in truth.

    f_tau is the network with every activation replaced by its mean over responses that are uncertain by tau times their
    standard deviation under the prior: at tau = 0 the network itself, at tau = 1 the mean-field one, of whose responses
    nothing is known but the prior.

    Attributes
    ----------
    spreads : the standard deviations, as ``linearise`` takes them.
    errors : by tau, one of ``TAUS``: N(tau), the covariance by lags of f(x) - f_tau(x) over prior images x.
    """

    spreads: list[torch.Tensor | None]
    errors: dict[float, torch.Tensor]

    def error(self, tau: float) -> torch.Tensor:
        """N at a tau in between, linear in its logarithm: a mean of two covariances is one. N of the least below it."""
        above = min((each for each in self.errors if each >= tau), default=max(self.errors))
        below = max((each for each in self.errors if each <= tau), default=min(self.errors))
        if above <= below:
            return self.errors[above]
        share = math.log(tau / below) / math.log(above / below)
        return share * self.errors[above] + (1 - share) * self.errors[below]

    def spread(self, tau: float) -> list[torch.Tensor | None] | None:
        """The deviations times tau; None, which is the network itself, at 0."""
        return [None if each is None else tau * each for each in self.spreads] if tau else None


def smoothing(net: AnyNetwork, layer: str, *, seed: int = 0) -> tuple[Smoothing, float]:
    """The deviations and the errors, measured on 32 random prior images, and what that cost; as
    ``response_covariance``."""
    stack = net.as_chain(layer)
    work = (len(TAUS) + 2) / 2
    if stack is None:

        def make() -> Smoothing:
            size = net.input_area
            operator, prior = Differentiation(net, layer, size), Prior(size, net.channels, device=net.mean.device)
            return _smoothing(
                operator,
                prior,
                seed,
                _rounds(net, layer),
                lambda values: taper(_products(values)) / (len(values) * math.prod(operator.grid)),
            )

        found, made = kept_or_made(net, ("smoothing", layer, seed), make)
        return found, 2.0 * work * IMAGES if made else 0.0

    def estimate() -> dict[str, torch.Tensor]:
        operator, prior = _torus(stack, layer)
        reach = REACH["response_covariance"]
        measured = _smoothing(
            operator, prior, seed, _rounds(stack, layer), lambda values: torus_lags(values, reach) / len(values)
        )
        spreads = {f"spread{i}": each for i, each in enumerate(measured.spreads) if each is not None}
        return spreads | {f"error{tau}": each for tau, each in measured.errors.items()}

    tensors, cost = _cached(stack, layer, "smoothing", seed, estimate)
    spreads = [tensors.get(f"spread{i}") for i in range(len(stack.up_to(layer)) - 1)]
    return Smoothing(spreads, {tau: tensors[f"error{tau}"] for tau in TAUS}), cost * work


def _smoothing(
    operator: Jacobian,
    prior: Prior,
    seed: int,
    rounds: Iterator[None],
    covariance: Callable[[torch.Tensor], torch.Tensor],
) -> Smoothing:
    """``covariance`` : of N x K x h x w, by lags."""
    generator = torch.Generator().manual_seed(seed)
    batches = [prior.image(prior.draw(BATCH, generator)) for _ in range(IMAGES // BATCH)]
    spreads = operator.spreads(batches[0])
    errors = {tau: torch.zeros((), device=prior.mean.device) for tau in TAUS}
    for _, images in zip(rounds, batches, strict=True):
        exact = operator.linearise(images).responses
        for tau in TAUS:
            missed = exact - operator.linearise(images, Smoothing(spreads, {}).spread(tau)).responses
            errors[tau] = errors[tau] + covariance(missed) / len(batches)
    return Smoothing(spreads, errors)


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
        stack, prior = _torus(net, layer)
        generator = torch.Generator().manual_seed(seed)
        images = prior.image(prior.draw(IMAGES, generator))
        found: dict[str, torch.Tensor] = {}
        values = (images - net.mean) / net.std
        slopes, offsets = [], []
        for i, (each, operator, bias) in enumerate(stack.linear_maps()):
            values = operator.convolve(values)
            if bias is not None:
                values = values + bias
            if i == len(stack.layers) - 1:
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
        error = values - stack.affine(images, slopes, offsets)
        for name, what in (("error", error), ("total", values - values.mean(dim=(0, 2, 3), keepdim=True))):
            found[name] = torus_lags(what, REACH["response_covariance"]) / IMAGES
        return found

    found, cost = _cached(net, layer, "mean_field", seed, estimate)
    below = range(len(net.up_to(layer)) - 1)
    slopes, offsets = ([found[f"{name}{i}"] for i in below] for name in ("slope", "offset"))
    return MeanField(slopes, offsets, found["error"], found["total"]), cost


Sampler = Callable[[LayerStack, Prior, torch.Generator], torch.Tensor]


def _lags_of(net: Network, layer: str, what: str, seed: int, sample: Sampler) -> tuple[torch.Tensor, float]:
    def estimate() -> dict[str, torch.Tensor]:
        stack, prior = _torus(net, layer)
        generator = torch.Generator().manual_seed(seed)
        parts = [torus_lags(sample(stack, prior, generator), REACH[what]) for _ in _rounds(net, layer)]
        return {"lags": torch.stack(parts).sum(0) / IMAGES}

    found, cost = _cached(net, layer, what, seed, estimate)
    return found["lags"], cost


def _rounds(net: AnyNetwork, layer: str) -> Iterator[None]:
    """As many rounds as there are batches of images; ``PREPARING`` is told of each one that begins, and of the end."""
    total = IMAGES // BATCH
    for done in range(total + 1):
        PREPARING.info("preparing %s of %s", layer, net.name, extra={"done": done, "total": total})
        if done < total:
            yield


def _cached(
    net: Network, layer: str, what: str, seed: int, estimate: Callable[[], dict[str, torch.Tensor]]
) -> tuple[dict[str, torch.Tensor], float]:
    """The tensors, from the disk where they are there, and the forward passes that they cost."""
    found, made = cached(f"{what}-{_fingerprint(net, layer, seed)}", net.mean.device, estimate)
    return found, 2 * IMAGES * (_side(net, layer) / net.input_size) ** 2 if made else 0.0


def _torus(net: Network, layer: str) -> tuple[LayerStack, Prior]:
    side = (_side(net, layer),) * 2
    stack = LayerStack(net, layer, side, periodic=True)
    return stack, Prior(side, net.channels, torus=True, device=net.mean.device)


def _side(net: Network, layer: str) -> int:
    """The side of the torus: a multiple of all strides, with room for every kernel and for the lags of both grids."""
    layers = net.up_to(layer)
    jump, room = 1, min(SIDE, 2 * net.input_size)
    for each in layers:
        room = max(room, each.extent * jump)
        jump *= each.stride
    lags = {what: 2 * reach + 1 for what, reach in REACH.items()}
    room = max(room, lags["response_covariance"] * jump, lags["image_gram"] * layers[0].stride)
    return jump * math.ceil(room / jump)


def _fingerprint(net: Network, layer: str, seed: int) -> str:
    """A digest of everything that the estimate depends on."""
    estimate = (VERSION, seed, _side(net, layer), IMAGES, REACH, TAUS)
    prior = (EXPONENT, SLOWEST, MARGIN, AXES, SPREAD, VARIANCE)
    digest = hashlib.sha256(repr((estimate, prior)).encode())
    digest.update(repr([net.mean.flatten().tolist(), net.std.flatten().tolist(), net.up_to(layer)]).encode())
    spread = [(each.groups, each.dilation, each.ceil_mode) for each in net.up_to(layer)]
    if any(each != (1, 1, False) for each in spread):  # which are not in a layer's text
        digest.update(repr(spread).encode())
    # Layers without weights are all in the chain's text above.
    for each in net.up_to(layer):
        if not each.has_weights:
            continue
        convolution = net.convolution(each.name)
        for values in (convolution.weight, convolution.bias):
            if values is not None:
                digest.update(values.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:32]
