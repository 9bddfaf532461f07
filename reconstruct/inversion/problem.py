"""What a method of the user's is given: the features, the network as functions and operators, the prior, the limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch

from reconstruct.inversion.residual import relative
from reconstruct.inversion.result import Watch
from reconstruct.network.architecture import Size
from reconstruct.network.protocol import AnyNetwork
from reconstruct.operators.autodiff import Differentiation
from reconstruct.operators.forward import Forward, Reached
from reconstruct.operators.layer_stack import LayerStack
from reconstruct.prior.gaussian import Prior

BUDGET = 450.0
TOLERANCE = 1e-4


@dataclass
class Work:
    """What has been done, in image passes (one image forward through the layer), and in evaluations of f or J."""

    passes: float = 0.0
    evaluations: int = 0


@dataclass(frozen=True)
class Problem:
    """Find images whose features these are.

    Work counts itself, in forward passes of an image through the layer: ``forward`` 1 and 2 more for a gradient back
    through it, ``linearise`` 1, ``product`` 1, ``transposed`` 1, ``residual`` 1; ``misfit`` and the prior nothing. What
    a method does with ``net``, ``f`` or ``chain`` itself it adds by ``spend``.

    Attributes
    ----------
    net, layer : the network, and the layer's name.
    size : height and width of the images.
    features : N x C x h x w, as they came.
    noise : of the features, its norm as a share of theirs; 0 where they are exact.
    tolerance : relative residual at which an image has converged.
    budget : work of an image at which to stop, in forward passes.
    seed : of whatever is random.
    watch : whoever looks on; ``show`` tells it.

    Examples
    --------
    A method is a function of one. This takes a step down the gradient of the residual's square:

    >>> import reconstruct, torch
    >>> def one_step(problem):
    ...     images = problem.prior.mean.expand(len(problem), -1, *problem.size)
    ...     at = problem.linearise(images)
    ...     slope = problem.transposed(at, problem.target - at.values)
    ...     change = problem.product(at, slope)
    ...     return images + slope * (slope**2).sum() / (change**2).sum()
    >>> net = reconstruct.load_model("crelu_conv1_4")
    >>> features = net.features(torch.rand(1, 3, 63, 63), "conv1")
    >>> result = reconstruct.invert(net, features, "conv1", one_step, size=63)
    >>> result.forward_passes, result.feature_residual[0] < 1
    ([3.0], True)
    """

    net: AnyNetwork
    layer: str
    size: Size
    features: torch.Tensor
    noise: float = 0.0
    tolerance: float = TOLERANCE
    budget: float = BUDGET
    seed: int = 0
    watch: Watch | None = None
    work: Work = field(default_factory=Work, repr=False)

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.features)

    # Each of these is made when it is first asked for: a network that is no chain of layers has all but the chain.
    @cached_property
    def f(self) -> Forward:
        """The forward map, uncounted."""
        return Forward(self.net, self.layer)

    @cached_property
    def target(self) -> torch.Tensor:
        """N x K x h x w: linear responses where the activation keeps them (CReLU), else the features."""
        return self.f.target(self.features)

    @cached_property
    def chain(self) -> LayerStack | Differentiation:
        """The layers; ``chain.operators`` has ``convolve`` and ``transpose`` of each, without normalisation or bias.

        A module that is no chain has none of them, and J by differentiation.
        """
        return self.f.chain(self.size)

    @cached_property
    def prior(self) -> Prior:
        """The Gaussian prior of natural images of this size: ``image``, ``field``, ``whiten``, ``draw``, ``mean``."""
        return Prior(self.size, self.net.channels, device=self.features.device)

    @property
    def passes(self) -> float:
        """Work so far on an image, the mean over the batch; to compare with ``budget``."""
        return self.work.passes / max(1, len(self))

    def spend(self, passes: float, images: int) -> None:
        """Count further work: so many forward passes on each of so many images."""
        self.work.passes += passes * images

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """f(x), N x K x h x w as ``target``; differentiable by autograd where the images require gradients."""
        self.spend(1, len(images))
        self.work.evaluations += 1
        with torch.set_grad_enabled(torch.is_grad_enabled() and images.requires_grad):
            reached = self.f(images)
        if reached.requires_grad:
            reached.register_hook(self._backward)
        return reached

    def residual(self, images: torch.Tensor) -> torch.Tensor:
        """|f(x) - z| / |z| of each image, N: what ``Result.feature_residual`` says."""
        with torch.no_grad():
            return self.misfit(self.forward(images))

    def misfit(self, reached: torch.Tensor) -> torch.Tensor:
        """The residual, N, of what ``forward`` or ``linearise`` gave of all images."""
        return relative(reached, self.target)

    def linearise(self, images: torch.Tensor) -> Reached:
        """f at images, ``.values``, and what ``product`` and ``transposed`` take for its Jacobian there."""
        self.spend(1, len(images))
        self.work.evaluations += 1
        return self.f.linearise(images)

    def product(self, at: Reached, images: torch.Tensor) -> torch.Tensor:
        """J v, N x K x h x w: the change of f for a change of the images, N x 3 x H x W."""
        self.spend(1, len(images))
        self.work.evaluations += 1
        return self.f.product(at, images)

    def transposed(self, at: Reached, values: torch.Tensor) -> torch.Tensor:
        """J^T u: N x K x h x w to N x 3 x H x W."""
        self.spend(1, len(values))
        return self.f.transposed(at, values, self.size)

    def show(self, images: torch.Tensor) -> None:
        """Tell whoever watches how far it is."""
        if self.watch is not None:
            self.watch(self.passes, images)

    def _backward(self, gradient: torch.Tensor) -> None:
        self.spend(2, len(gradient))


CustomMethod = Callable[[Problem], object]
"""A method of the user's; ``custom.invert_custom`` says what it may return."""
