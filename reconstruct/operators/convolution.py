"""A strided convolution as a linear operator: apply, adjoint, symbol, frame bounds. It knows no solver.

The operator is that of the real layer, zero padding and borders included. On a torus, where there are no borders,
a stride-s convolution of C channels is one small matrix per frequency: split the input into its s x s polyphase
components (C s^2 channels on a grid s times coarser) and the FFT diagonalises it. That matrix, the *symbol*
M(w), K x C s^2, gives frame bounds and rank, and its Gram matrix gives solvers their preconditioner.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy
import torch
from torch.nn.functional import conv2d, conv_transpose2d, pad

from reconstruct.errors import CallError
from reconstruct.network.architecture import Layer, Sides, Size
from reconstruct.network.dense_filters import spread_taps
from reconstruct.operators import arrays, torus
from reconstruct.operators.polyphase import polyphase, unpolyphase

if TYPE_CHECKING:
    from reconstruct.operators.arrays import Array

Side = Literal["inputs", "responses"]
"""Which of the two Gram matrices: A^T A acts on inputs, A A^T on responses."""


class Convolution:
    """The linear operator x -> W * x of one layer, without its bias.

    Arrays are NumPy or CuPy, N x C x H x W, images of a batch independent, all on the weight's device and all in
    ``dtype``: float64 by default, because a trained first layer has a condition number in the thousands and the
    normal equations square it.

    Parameters
    ----------
    weight : K x C / groups x kh x kw.
    stride, padding : as in the layer, the same in both directions; or the padding of each side.
    size : height and width of the input.
    groups : how many parts of the filters see as many parts of the channels, each its own. The symbol is then
        block-diagonal, and so are its Gram matrices, of which only the blocks are kept.
    dilation : how many positions the kernel's taps are apart.

    Examples
    --------
    >>> import numpy, reconstruct, torch
    >>> operator = reconstruct.Convolution(torch.ones(1, 1, 2, 2), stride=1, padding=0, size=(3, 3))
    >>> operator.apply(numpy.ones((1, 1, 3, 3)))
    array([[[[4., 4.],
             [4., 4.]]]])
    >>> operator.adjoint(numpy.ones((1, 1, 2, 2)))
    array([[[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]]])
    """

    def __init__(
        self,
        weight: torch.Tensor,
        stride: int,
        padding: int | Sides,
        size: Size,
        dtype: torch.dtype = torch.float64,
        groups: int = 1,
        dilation: int = 1,
    ) -> None:
        self.weight = weight.detach().to(dtype)
        self.stride = stride
        self.padding = padding
        sides = (padding,) * 4 if isinstance(padding, int) else padding
        self.before, self.after = (sides[0], sides[1]), (sides[2], sides[3])
        self.groups = groups
        self.dilation = dilation
        filters, channels = len(self.weight), self.weight.shape[1] * groups
        if filters % groups:
            raise CallError(f"{filters} filters are not {groups} groups of the same size")
        # Of the whole window, what lies between the taps included.
        kernel = [dilation * (side - 1) + 1 for side in self.weight.shape[2:]]
        self.kernel: Size = (kernel[0], kernel[1])
        around = [side + first + last for side, first, last in zip(size, self.before, self.after, strict=True)]
        height, width = ((side - k) // stride + 1 for side, k in zip(around, self.kernel, strict=True))
        if height < 1 or width < 1:
            raise CallError(f"a kernel of {kernel[0]} x {kernel[1]} does not fit an input of {size[0]} x {size[1]}")
        self.input_shape = (channels, *size)
        self.output_shape = (filters, height, width)

    @property
    def columns(self) -> int:
        """Numbers in one input."""
        return math.prod(self.input_shape)

    @property
    def rows(self) -> int:
        """Numbers in one set of responses."""
        return math.prod(self.output_shape)

    @property
    def multiplications(self) -> int:
        """Multiplications of one forward pass of this layer on one image."""
        return self.rows * math.prod(self.weight.shape[1:])

    def apply(self, inputs: Array) -> Array:
        """A x: N x C x H x W to N x K x h x w."""
        return arrays.array_of(self.convolve(arrays.to_torch(inputs)))

    def adjoint(self, responses: Array) -> Array:
        """A^T z: N x K x h x w to N x C x H x W."""
        return arrays.array_of(self.transpose(arrays.to_torch(responses)))

    def convolve(self, images: torch.Tensor) -> torch.Tensor:
        """``apply`` for torch tensors."""
        if not isinstance(self.padding, int):
            (top, left), (bottom, right) = self.before, self.after
            images = pad(images, (left, right, top, bottom))
            return conv2d(images, self.weight, None, self.stride, 0, self.dilation, self.groups)
        return conv2d(images, self.weight, None, self.stride, self.padding, self.dilation, self.groups)

    def transpose(self, values: torch.Tensor) -> torch.Tensor:
        """``adjoint`` for torch tensors."""
        if self._by_parts:
            return self._join(conv_transpose2d(values, self._parts_weight, groups=self.groups))
        return self._transposed(values, self.weight, self.groups)

    @property
    def _by_parts(self) -> bool:
        """Whether the adjoint works on polyphase components: for an image of three channels in a third of the time that
        torch's own takes, which leaves vector units idle, and slower for many channels."""
        return self.stride > 1 and self.dilation == 1 and self.input_shape[0] <= 4

    @cached_property
    def _parts_weight(self) -> torch.Tensor:
        return arrays.to_torch(self.blocks).permute(2, 3, 0, 1).contiguous()

    def _split(self, images: torch.Tensor, grid: Size) -> torch.Tensor:
        """N x C x H x W to polyphase components, N x C s^2 x grid, zero-padded or cropped to the grid."""
        _, height, width = self.input_shape
        step, (top, left) = self.stride, self.before
        return polyphase(pad(images, (left, grid[1] * step - width - left, top, grid[0] * step - height - top)), step)

    def _join(self, parts: torch.Tensor) -> torch.Tensor:
        """The adjoint of ``_split``."""
        _, height, width = self.input_shape
        step, (top, left) = self.stride, self.before
        rows, columns = parts.shape[2:]
        return pad(unpolyphase(parts, step), (-left, width + left - columns * step, -top, height + top - rows * step))

    def _transposed(self, responses: torch.Tensor, weight: torch.Tensor, groups: int) -> torch.Tensor:
        if not isinstance(self.padding, int):
            spread = conv_transpose2d(responses, weight, None, self.stride, 0, 0, groups, self.dilation)
            (height, width), (top, left) = self.input_shape[1:], self.before
            return pad(spread, (-left, width + left - spread.shape[3], -top, height + top - spread.shape[2]))
        # ``slack`` rows and columns on the right and below are seen by no window; there are fewer than a stride
        # of them, which conv_transpose2d takes as its output_padding.
        slack = [
            side + 2 * self.padding - k - self.stride * (out - 1)
            for side, k, out in zip(self.input_shape[1:], self.kernel, self.output_shape[1:], strict=True)
        ]
        return conv_transpose2d(responses, weight, None, self.stride, self.padding, tuple(slack), groups, self.dilation)

    def overlap_add(self, responses: Array, patches: Array) -> Array:
        """Sum, over all positions, of ``patches`` weighted by the responses: the adjoint with other filters.

        ``patches`` has the weight's shape.
        """
        return arrays.array_of(self._transposed(arrays.to_torch(responses), arrays.to_torch(patches), self.groups))

    @cached_property
    def coverage(self) -> Array:
        """How many windows see each pixel: 1 x 1 x H x W."""
        ones = self.weight.new_ones(1, 1, *self.output_shape[1:])
        return arrays.array_of(self._transposed(ones, self.weight.new_ones(1, 1, *self.weight.shape[2:]), 1))

    @cached_property
    def column_energy(self) -> Array:
        """Squared norm of every column of A, 1 x C x H x W: 0 for a pixel that no response depends on."""
        ones = self.weight.new_ones(1, *self.output_shape)
        return arrays.array_of(self._transposed(ones, self.weight**2, self.groups))

    @property
    def overlaps(self) -> bool:
        """Whether neighbouring windows share pixels. If not, the layer is a single small matrix."""
        return max(self.kernel) > self.stride

    @cached_property
    def grid(self) -> Size:
        """Grid of the torus, in strides: large enough that the layer does not wrap round, and quick to transform."""
        height, width = (
            torus.quick_length(math.ceil((side + max(first + last, k - 1)) / self.stride))
            for side, first, last, k in zip(self.input_shape[1:], self.before, self.after, self.kernel, strict=True)
        )
        return height, width

    @property
    def frequencies(self) -> Size:
        """How many frequencies of the torus the symbol is taken at: one where it is the same at all of them."""
        return self.grid if self.overlaps else (1, 1)

    @cached_property
    def blocks(self) -> Array:
        """The kernel on the polyphase grid: a x b x K x C s^2 / groups, the kernel padded to whole strides."""
        weight = spread_taps(self.weight, self.dilation)
        filters, channels, height, width = weight.shape
        step = self.stride
        rows, columns = math.ceil(height / step), math.ceil(width / step)
        padded = pad(weight, (0, columns * step - width, 0, rows * step - height))
        parts = padded.reshape(filters, channels, rows, step, columns, step).permute(2, 4, 0, 1, 3, 5)
        return arrays.array_of(parts.reshape(rows, columns, filters, channels * step**2).contiguous())

    @property
    def symbol_shape(self) -> tuple[int, int]:
        """Rows and columns of the symbol, K x C s^2; with groups, of one of its blocks."""
        _, _, filters, unknowns = self.blocks.shape
        return filters // self.groups, unknowns

    def smaller_side(self) -> Side:
        """The side on which the symbol's Gram matrix is smaller."""
        filters, unknowns = self.symbol_shape
        return "inputs" if unknowns <= filters else "responses"

    def gram(self, side: Side, single: bool = False) -> Array:
        """Gram matrices of the symbol over half the torus: g x (g/2 + 1) x n x n, complex Hermitian.

        1 x 1 x n x n where windows do not overlap and the symbol is the same at every frequency. With groups the
        matrices are block-diagonal, and g x (g/2 + 1) x groups x n x n are their blocks.

        ``inputs``: M(w)^H M(w), n = C s^2 / groups. ``responses``: M(w) M(w)^H, n = K / groups. The other half of the
        frequencies holds the complex conjugates. Summed over lags of the kernel with itself, so that M, which can be
        very wide, is never formed. ``single`` gives complex64, enough for a preconditioner, in half the time.
        """
        height, width = self.frequencies
        frequencies = [(down, right) for down in range(height) for right in range(width // 2 + 1)]
        spectra = self._gram_at(side, frequencies, "complex64" if single else "complex128")
        return spectra.reshape(height, width // 2 + 1, *spectra.shape[1:])

    def gram_sample(self, side: Side) -> Array:
        """Gram matrices at up to 16 frequencies, f x n x n (f x groups x n x n): the four corners of the half torus and
        others between."""
        height, width = self.frequencies
        rows = sorted({0, height // 4, height // 3, height // 2})
        columns = sorted({0, width // 5, width // 3, width // 2})
        return self._gram_at(side, [(down, right) for down in rows for right in columns], "complex128")

    def _gram_at(self, side: Side, frequencies: list[Size], dtype: str) -> Array:
        xp = arrays.namespace(self.blocks)
        tall, wide = self.blocks.shape[:2]
        # groups x a x b x K x C s^2 of each group.
        blocks = xp.moveaxis(self.blocks.reshape(tall, wide, self.groups, *self.symbol_shape), 2, 0)
        if side == "responses":
            blocks = xp.flip(blocks, axis=(1, 2)).swapaxes(3, 4)
        n = blocks.shape[-1]
        lags, terms = [], []
        for down in range(1 - tall, tall):
            for right in range(1 - wide, wide):
                left = blocks[:, max(0, -down) : tall - max(0, down), max(0, -right) : wide - max(0, right)]
                shifted = blocks[:, max(0, down) : tall - max(0, -down), max(0, right) : wide - max(0, -right)]
                lags.append((down, right))
                terms.append(left.reshape(self.groups, -1, n).swapaxes(1, 2) @ shifted.reshape(self.groups, -1, n))
        angles = 2 * math.pi * xp.asarray(frequencies) / xp.asarray(self.frequencies)
        waves = xp.exp(1j * (angles @ xp.asarray(lags).T)).astype(dtype)
        spectra: Array = waves @ xp.stack(terms).reshape(len(lags), self.groups * n * n).astype(dtype)
        return spectra.reshape(-1, *((self.groups,) if self.groups > 1 else ()), n, n)

    def torus_inverse(self, side: Side, gram: Array, shift: float) -> Callable[[Array], Array]:
        """The map (G + shift I)^-1 on a torus that holds the layer, cut to the layer's inputs or responses.

        ``gram`` is ``self.gram(side)``. Symmetric positive definite for shift > 0: a preconditioner. The
        Fourier work is in single precision, whose rounding a preconditioner does not feel.
        """
        # In torch from end to end: on 2 cores its Fourier transforms are six times as fast as NumPy's and its
        # inverses of a batch of small matrices almost four times.
        on_torus = torus.inverse(arrays.to_torch(gram).to(torch.complex64), shift)
        height, width = self.grid

        def solve(values: Array) -> Array:
            given = arrays.to_torch(values)
            tall, wide = given.shape[2:]
            if side == "inputs":
                whole = self._split(given.float(), self.grid)
            else:
                whole = pad(given.float(), (0, width - wide, 0, height - tall))
            whole = on_torus(whole).to(given.dtype)
            return arrays.array_of(self._join(whole) if side == "inputs" else whole[:, :, :tall, :wide])

        return solve


def convolution_of(layer: Layer, weight: torch.Tensor, size: Size, dtype: torch.dtype = torch.float64) -> Convolution:
    """The operator of a convolution's layer, with its weight, for inputs of this height and width."""
    return Convolution(weight, layer.stride, layer.sides or layer.padding, size, dtype, layer.groups, layer.dilation)


class PeriodicConvolution:
    """The layer on a torus: inputs N x C x H x W repeat in both directions; H and W are multiples of the stride.

    Arguments as of ``Convolution``; arrays are torch tensors.
    """

    def __init__(
        self, weight: torch.Tensor, stride: int, padding: int, size: Size, groups: int = 1, dilation: int = 1
    ) -> None:
        self.weight = weight.detach()
        self.stride = stride
        self.padding = padding
        self.size = size
        self.groups = groups
        self.dilation = dilation
        self.kernel = tuple(dilation * (side - 1) + 1 for side in weight.shape[2:])
        self.grid = (size[0] // stride, size[1] // stride)
        if any(side % stride for side in size) or any(k > side for k, side in zip(self.kernel, size, strict=True)):
            raise CallError(f"a torus of {size[0]} x {size[1]} does not hold a {self.kernel} kernel of stride {stride}")

    def convolve(self, images: torch.Tensor) -> torch.Tensor:
        """N x C x H x W to N x K x H/stride x W/stride."""
        rolled = torch.roll(images, (self.padding, self.padding), (2, 3))
        height, width = (
            (grid - 1) * self.stride + k - side for grid, k, side in zip(self.grid, self.kernel, self.size, strict=True)
        )
        rolled = torch.cat((rolled, rolled[:, :, : max(0, height)]), 2)
        rolled = torch.cat((rolled, rolled[:, :, :, : max(0, width)]), 3)
        return conv2d(rolled, self.weight, None, self.stride, 0, self.dilation, self.groups)

    def transpose(self, values: torch.Tensor) -> torch.Tensor:
        """The adjoint: N x K x H/stride x W/stride to N x C x H x W."""
        spread = conv_transpose2d(values, self.weight, None, self.stride, 0, 0, self.groups, self.dilation)
        height, width = self.size
        tall, wide = (max(0, side - own) for side, own in zip(spread.shape[2:], self.size, strict=True))
        spread = pad(spread, (0, max(0, width - spread.shape[3]), 0, max(0, height - spread.shape[2])))
        down = spread[:, :, :height].clone()
        down[:, :, :tall] += spread[:, :, height:]
        folded = down[:, :, :, :width].clone()
        folded[:, :, :, :wide] += down[:, :, :, width:]
        return torch.roll(folded, (-self.padding, -self.padding), (2, 3))


@dataclass(frozen=True)
class Frame:
    """What the symbol of a layer says: how much of its input survives, and how evenly.

    ``lower`` and ``upper`` are the smallest non-zero and the largest eigenvalue of M(w)^H M(w) over all
    frequencies. ``rank`` is the mean rank of M(w) and ``unknowns`` its number of columns: 1 - rank / unknowns
    is the share of input dimensions that the layer loses. Torus values: of the real layer, with its borders,
    they bound only the largest eigenvalue. Of a layer without any weight but 0 both bounds and the rank are 0.
    """

    lower: float
    upper: float
    rank: float
    unknowns: int

    @property
    def condition_number(self) -> float:
        """Largest by smallest non-zero singular value; NaN where there is none."""
        return math.sqrt(self.upper / self.lower) if self.lower else math.nan

    @property
    def lost(self) -> float:
        """Share of input dimensions that the responses do not determine."""
        return 1 - self.rank / self.unknowns


def upper_bound(gram: Array) -> float:
    """Largest eigenvalue over all frequencies of a Gram matrix.

    No eigenvalue exceeds its matrix's Frobenius norm, so frequencies are taken in falling order of that norm
    until no norm left exceeds the largest eigenvalue found: exact, and mostly a handful of frequencies.
    """
    xp = arrays.namespace(gram)
    matrices = gram.reshape(-1, *gram.shape[-2:])
    norms = xp.sqrt((abs(matrices) ** 2).sum(axis=(1, 2)))
    order = xp.argsort(-norms)
    falling: list[float] = norms[order].tolist()
    largest, start, count = 0.0, 0, 8
    while start < len(falling) and falling[start] > largest:
        largest = max(largest, float(xp.linalg.eigvalsh(matrices[order[start : start + count]]).max()))
        start += count
    return largest


def frame(operator: Convolution) -> Frame:
    """Frame bounds and rank of a layer from its symbol.

    An eigenvalue counts as zero below n eps of the largest: what rounding alone can make of it.

    Examples
    --------
    A filter and its mirror image of equal energy, which share all frequencies between them:

    >>> import reconstruct, torch
    >>> haar = torch.tensor([[[[1.0, 1.0]]], [[[1.0, -1.0]]]])
    >>> bounds = reconstruct.frame(reconstruct.Convolution(haar, stride=1, padding=0, size=(8, 8)))
    >>> round(bounds.lower, 6), round(bounds.upper, 6), bounds.lost
    (4.0, 4.0, 0.0)
    """
    gram = operator.gram(operator.smaller_side())
    xp = arrays.namespace(gram)
    # torch takes half the time of NumPy for a batch of small matrices.
    values = arrays.array_of(torch.linalg.eigvalsh(arrays.to_torch(gram)))
    upper = float(values.max())
    nonzero = values > upper * gram.shape[-1] * numpy.finfo(numpy.float64).eps
    # Frequencies strictly between 0 and the highest stand for their conjugates too.
    width = operator.frequencies[1]
    weights = xp.asarray([1 if w in (0, width / 2) else 2 for w in range(width // 2 + 1)])
    # Of all groups' blocks at a frequency together.
    counts = nonzero.reshape(*nonzero.shape[:2], -1).sum(axis=-1)
    rank = float((counts * weights).sum()) / math.prod(operator.frequencies)
    lower = float(values[nonzero].min()) if nonzero.any() else 0.0
    return Frame(lower, upper, rank, operator.groups * operator.symbol_shape[1])
