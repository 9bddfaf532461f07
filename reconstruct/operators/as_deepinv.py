"""Layers as forward operators of deepinv (https://deepinv.github.io), for its priors and solvers.

Needs the extra ``deepinv``. Images are deepinv's: B x 3 x H x W in [0, 1]; the network normalises them itself.
"""

from __future__ import annotations

from typing import Any

import torch

from reconstruct.errors import CallError
from reconstruct.extras import install_hint
from reconstruct.network.architecture import Size
from reconstruct.network.protocol import AnyNetwork
from reconstruct.network.read_points import point
from reconstruct.operators.forward import Forward
from reconstruct.operators.tangent import Tangent

try:
    from deepinv.physics import LinearPhysics, Physics
except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that was built for another torch
    raise CallError(f"deepinv cannot be imported ({install_hint('deepinv')}): {error}") from error


class LayerPhysics(Physics):  # type: ignore[misc]  # not followed: optional
    """The forward map of a layer: images of any size that reaches it to linear responses, or else features.

    Linear responses where the activation keeps them (CReLU), features elsewhere (ReLU, AVR): ``target`` gives the
    measurements of either. It stays on the network's device and takes its precision.

    Parameters
    ----------
    options : of ``deepinv.physics.Physics``: ``noise_model``, ``max_iter`` and so on.
    """

    def __init__(self, net: AnyNetwork, layer: str, **options: Any) -> None:
        read = point(net, layer)
        self._f = Forward(read.net, read.layer)
        super().__init__(A=lambda images, **_: self._f(images), **options)

    def target(self, features: torch.Tensor) -> torch.Tensor:
        """The measurements, B x K x h x w, of a layer's features."""
        return self._f.target(features)

    def A_vjp(self, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:  # noqa: N802 - deepinv's name
        """J(x)^T v: 2 forward passes, without recording a graph."""
        with torch.no_grad():
            return self._f.transposed(self._f.linearise(x), v, (x.shape[2], x.shape[3]))

    def A_jvp(self, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:  # noqa: N802 - deepinv's name
        """J(x) v, which ``compute_norm`` asks for."""
        with torch.no_grad():
            return self._f.product(self._f.linearise(x), v)


class TangentPhysics(LinearPhysics):  # type: ignore[misc]
    """The linear part of a layer's responses at an image, A = J; of a first layer at any.

    Linear responses z are J x + offset, so that the measurements are z - offset: ``target`` gives them.

    Parameters
    ----------
    size : height and width of the images.
    at : the image, 3 x H x W in [0, 1], the same for a whole batch; None for a first layer.
    options : of ``deepinv.physics.LinearPhysics``: ``noise_model``, ``max_iter``, ``solver`` and so on. Least squares
        are solved as asked, without the ridge of 1e-8 that ``implicit_backward_solver`` would add.
    """

    def __init__(
        self,
        net: AnyNetwork,
        layer: str,
        size: Size,
        *,
        at: torch.Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> None:
        read = point(net, layer)
        self._f = Forward(read.net, read.layer)
        self._tangent = Tangent(read.net, read.layer, size, at=at, dtype=dtype)
        super().__init__(
            A=lambda images, **_: self._tangent.product(images),
            A_adjoint=lambda values, **_: self._tangent.transposed(values),
            img_size=self._tangent.shape,
            device=net.mean.device,
            **{"implicit_backward_solver": False, **options},
        )

    def target(self, features: torch.Tensor) -> torch.Tensor:
        """The measurements, B x K x h x w, of a layer's features, whose activation must keep the responses.

        Raises
        ------
        CallError : it does not.
        """
        if not self._f.linear:
            raise CallError(f"{self._f.layer.activation} does not keep the linear responses: take LayerPhysics")
        return self._f.target(features).to(self._tangent.dtype) - self._tangent.offset
