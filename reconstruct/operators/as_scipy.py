"""A layer's Jacobian as a ``scipy.sparse.linalg.LinearOperator``: SciPy's solvers and decompositions run on it."""

from __future__ import annotations

import math

import numpy
import torch
from scipy.sparse.linalg import LinearOperator

from reconstruct.network.architecture import Size
from reconstruct.network.protocol import AnyNetwork
from reconstruct.network.read_points import point
from reconstruct.operators.tangent import Tangent


class LayerOperator(LinearOperator):  # type: ignore[misc]  # SciPy has no types
    """J of a layer's linear responses at an image: shape (responses, pixels), each counted as ``ravel`` counts them.

    Attributes
    ----------
    image_shape, response_shape : 3 x H x W and K x h x w.
    offset : the responses' affine part, 1-D: near the image they are ``J @ x + offset``, exactly so for a first layer.
    """

    def __init__(self, tangent: Tangent) -> None:
        self.tangent = tangent
        self.image_shape = tangent.shape
        self.response_shape = tuple(tangent.offset.shape[1:])
        self.offset: numpy.ndarray = tangent.offset.flatten().cpu().numpy()
        super().__init__(self.offset.dtype, (math.prod(self.response_shape), math.prod(self.image_shape)))

    def _matmat(self, columns: numpy.ndarray) -> numpy.ndarray:
        return _columns(self.tangent.product(self._batch(columns, self.image_shape)))

    def _rmatmat(self, columns: numpy.ndarray) -> numpy.ndarray:
        return _columns(self.tangent.transposed(self._batch(columns, self.response_shape)))

    def _matvec(self, vector: numpy.ndarray) -> numpy.ndarray:
        return self._matmat(vector.reshape(-1, 1)).ravel()

    def _rmatvec(self, vector: numpy.ndarray) -> numpy.ndarray:
        return self._rmatmat(vector.reshape(-1, 1)).ravel()

    def _batch(self, columns: numpy.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
        """Columns, n x N, as N x shape on the network's device."""
        rows = torch.from_numpy(numpy.ascontiguousarray(columns.T, dtype=self.dtype))
        return rows.to(self.tangent.offset.device).reshape(-1, *shape)


def linear_operator(
    net: AnyNetwork,
    layer: str,
    size: Size | int,
    *,
    at: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float64,
) -> LayerOperator:
    """J of a layer's linear responses, before its activation, as SciPy takes it; of a pooling, of what it gives.

    Parameters
    ----------
    size : height and width of the images (an int: square).
    at : the image, 3 x H x W in [0, 1], at which J is taken; None for a first layer, which is affine.
    dtype : of all vectors and of the arithmetic: float64, or float32 at half the memory, whose products of J and its
        transpose agree to some 1e-6.

    Returns
    -------
    A ``LinearOperator``; J v costs a forward pass and J^T u another. Several columns at once (``matmat``) are a batch.

    Raises
    ------
    CallError : no image for a layer that is not affine, one of another size, or an image too small for the layer.

    Examples
    --------
    >>> import numpy, reconstruct
    >>> net = reconstruct.load_model("crelu_conv1_4")
    >>> jacobian = reconstruct.linear_operator(net, "conv1", 31)
    >>> jacobian.shape
    (3456, 2883)
    >>> x, u = numpy.ones(2883), numpy.ones(3456)
    >>> bool(numpy.isclose(u @ (jacobian @ x), x @ (jacobian.T @ u)))
    True
    """
    area = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    read = point(net, layer)
    return LayerOperator(Tangent(read.net, read.layer, area, at=at, dtype=dtype))


def _columns(batch: torch.Tensor) -> numpy.ndarray:
    found: numpy.ndarray = batch.flatten(1).cpu().numpy().T
    return found
