"""The least squares of a strided convolution without iterations: a torus, and one factor for its border.

The windows of a layer without padding are those of a torus of h x w windows but the ones that wrap round, W. On the
torus P^T P + B is one small matrix a frequency (B: a regularisation that the torus diagonalises as well), and
A^T A = P^T P - W^T W. With y = W x, what the windows that wrap would respond, and G = P^T P + B (Woodbury):

    x = G^-1 (A^T z + W^T y),    (I - W G^-1 W^T) y = W G^-1 A^T z.

The second is a dense system with a row for each wrapping window and filter. Read as a prior, N(0, B^-1), B says which
combinations of them an image can respond in at all: about half. The rest is taken to be 0. What is left is factorised
once for all images of a size, and a solve takes the work of some forward passes, where conjugate gradients take
hundreds.

Precision: rounding in W G^-1 A^T z is amplified by up to the condition number of A^T A + B, so the way there is
float64. The factor's triangular solves are float32, for their errors lie where a border's pixels are hardly seen
anyway; an explicit inverse in float32 has no such errors and is useless. The way back is by G^-1 P^T as one matrix,
whose rounding is amplified by the root of that only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from reconstruct.network.architecture import Size
from reconstruct.operators import arrays
from reconstruct.operators.convolution import Convolution
from reconstruct.operators.polyphase import unpolyphase

RUN = 8
"""Windows along the border whose combinations are chosen together: 11 leave 3 % fewer in twice the time."""
VISIBLE = 30.0
"""Variance, in units of the noise in the responses whose prior is N(0, B^-1), below which a combination of wrapping
responses is taken to be 0. On 46 photographs of 131 x 131 pixels, with the B of ``inversion.linear``, 10 has 55.7 dB
and 7 % more unknowns than 30, which has 54.4."""
PANEL = 512
"""Rows of the factor that are eliminated at a time."""
AT_A_TIME = 8
"""Images whose Fourier transforms are taken together."""


def torus_of(operator: Convolution) -> Size:
    """The least torus that holds the layer's windows and those that wrap round it, in windows."""
    tall, wide = operator.blocks.shape[:2]
    return operator.output_shape[1] + tall - 1, operator.output_shape[2] + wide - 1


def serves(operator: Convolution) -> bool:
    """Whether there is a direct solve: of windows that overlap both ways, without padding or groups, on the inputs."""
    plain = operator.padding == 0 and operator.groups == 1 and min(operator.kernel) > operator.stride
    return plain and operator.smaller_side() == "inputs" and operator.columns <= operator.rows


def memory(operator: Convolution) -> float:
    """Bytes that the preparation takes at its peak, about."""
    height, width = torus_of(operator)
    filters, rows, columns = operator.output_shape
    unknowns = 0.6 * filters * (height * width - rows * columns)
    # The dense system and its factor; the symbol, the maps back and the responses' covariances on the torus.
    return 8.0 * (2 * unknowns**2 + 4 * height * width * filters**2)


@dataclass(frozen=True)
class _Runs:
    """Runs of wrapping windows that lie alike, and orthonormal combinations of a run's responses.

    Attributes
    ----------
    below : whether they lie below the layer's windows, and not on their right or in the corner.
    windows : rows and columns of each run's windows, runs x n x 2, along the border first.
    cells : which of the strip of cells (``_strips``) each run sees, runs x c.
    basis : n K x r, float64: the combinations.
    reads : r x the numbers in those cells, float64: from pixels to combinations.
    writes : the basis in float32.
    """

    below: bool
    windows: torch.Tensor
    cells: torch.Tensor
    basis: torch.Tensor
    reads: torch.Tensor
    writes: torch.Tensor


class DirectInverse:
    """x = (A^T A + B)^-1 A^T z, the minimum of |z - A x|^2 + x^T B x, for a batch of z.

    Exact but for rounding and for ``VISIBLE``, in float32.

    Parameters
    ----------
    operator : a layer that ``serves``.
    regularisation : B at the frequencies of half of ``torus_of(operator)``: h x (w/2 + 1) x C s^2 x C s^2, Hermitian,
        positive definite.
    """

    def __init__(self, operator: Convolution, regularisation: torch.Tensor) -> None:
        self.operator = operator
        self.grid = torus_of(operator)
        self._blocks = arrays.to_torch(operator.blocks).double()
        self._across = (self._blocks.shape[1] - 1, self._blocks.shape[0] - 1)
        symbol = self._symbol()
        green = torch.linalg.inv(symbol.mH @ symbol + regularisation)
        back = (green + green.mH) / 2 @ symbol.mH
        hat = torch.fft.irfft2(symbol @ back, s=self.grid, dim=(0, 1))
        covariance = torch.fft.irfft2(torch.linalg.inv(regularisation), s=self.grid, dim=(0, 1))
        self._runs = self._choose(covariance)
        factor = torch.linalg.cholesky(self._reduced(hat))
        starts = range(0, len(factor), PANEL)
        # float64 for the inverses: a small matrix each, of a factor whose condition number is in the hundreds.
        self._inverses = [_triangular_inverse(factor[at : at + PANEL, at : at + PANEL]).float() for at in starts]
        self._panels = [factor[at + PANEL :, at : at + PANEL].float() for at in starts]
        self._back = back.mT.contiguous()
        self._back_single = self._back.to(torch.complex64)

    @property
    def prepare_multiplications(self) -> float:
        """About: the factor, the dense system of it, and the choice of combinations (an eigendecomposition takes 9)."""
        bases = [runs.basis.shape for runs in self._runs]
        between = sum(len(a.basis) * len(b.basis) * b.basis.shape[1] for a in self._runs for b in self._runs)
        runs = max(len(each.windows) for each in self._runs)
        return self.unknowns**3 / 6 + float(runs * between) + sum(9.0 * rows**3 for rows, _ in bases)

    @property
    def unknowns(self) -> int:
        """Of the dense system."""
        return sum(len(inverse) for inverse in self._inverses)

    @property
    def multiplications(self) -> float:
        """Real multiplications of a solve for one image, without the Fourier transforms' own."""
        frequencies = self._back.shape[0] * self._back.shape[1]
        combinations = sum(len(runs.windows) * (runs.reads.numel() + runs.writes.numel()) for runs in self._runs)
        return 8.0 * frequencies * math.prod(self._back.shape[2:]) + self.unknowns**2 + combinations

    def solve(self, responses: torch.Tensor) -> torch.Tensor:
        """Inputs, N x C x H x W, for responses N x K x h x w, in their precision; pixels that no window sees are 0."""
        # A few images at a time: larger arrays than the caches hold are slower than the arithmetic on them.
        spectra, strips = [], []
        for few in responses.split(AT_A_TIME):
            spectrum = torch.fft.rfft2(few.double(), s=self.grid).flatten(2).flatten(0, 1).T.contiguous()
            spectrum = spectrum.view(*self._back.shape[:2], *few.shape[:2])
            strips.append(self._strips(spectrum @ self._back))
            spectra.append(spectrum.to(torch.complex64))
        combined = self._solved(self._read(*(torch.cat(each, dim=-1) for each in zip(*strips, strict=True))))
        right, below = self._write(combined)
        parts = zip(spectra, right.split(AT_A_TIME, dim=2), below.split(AT_A_TIME, dim=2), strict=True)
        found = torch.cat([self._back_to_inputs(spectrum + self._filled(*each)) for spectrum, *each in parts])
        seen = arrays.to_torch(self.operator.column_energy) > 0
        return (found * seen).to(responses.dtype)

    def _symbol(self) -> torch.Tensor:
        """P on the torus: h x (w/2 + 1) x K x C s^2."""
        tall, wide = self._blocks.shape[:2]
        down, right = self._waves(range(tall), 0), self._waves(range(wide), 1)
        return torch.einsum("ya,xb,abkc->yxkc", down, right, self._blocks.to(torch.complex128))

    def _waves(self, places: Iterable[int], axis: int) -> torch.Tensor:
        """exp(2 pi i f p / side) for all frequencies of an axis, of the second half of them, and these places."""
        side = self.grid[axis]
        device = self._blocks.device
        frequencies = torch.arange(side if axis == 0 else side // 2 + 1, device=device)
        angles = frequencies[:, None] * torch.tensor(list(places), device=device) % side
        return torch.exp(2j * math.pi * angles.double() / side)

    def _choose(self, covariance: torch.Tensor) -> list[_Runs]:
        """The runs of wrapping windows: right of the layer's, below them, and the corner, which is left whole."""
        filters, rows, columns = self.operator.output_shape
        device = covariance.device
        found = []
        sides = [(covariance, self._blocks, rows), (covariance.transpose(0, 1), self._blocks.transpose(0, 1), columns)]
        for below, (lags, blocks, length) in enumerate(sides):
            across = torch.arange((columns, rows)[below], self.grid[1 - below], device=device)
            whole, rest = length // RUN, length % RUN
            for first, count, along in ((0, whole, RUN), (whole * RUN, int(rest > 0), rest)):
                if not count:
                    continue
                starts = first + along * torch.arange(count, device=device)
                windows = torch.cartesian_prod(torch.arange(along, device=device), across)
                windows = windows + torch.stack([starts, torch.zeros_like(starts)], dim=1)[:, None]
                cells = starts[:, None] + torch.arange(along + len(blocks) - 1, device=device)
                seen = _windows(blocks, along, len(across))
                basis = _visible(lags, seen)
                reads = basis.mT @ seen.flatten(0, 2).flatten(1)
                turned = windows.flip(2) if below else windows
                found.append(_Runs(bool(below), turned, cells, basis, reads, basis.float()))
        tall, wide = self.grid[0] - rows, self.grid[1] - columns
        places = torch.arange(rows, self.grid[0], device=device), torch.arange(columns, self.grid[1], device=device)
        basis = torch.eye(tall * wide * filters, dtype=torch.float64, device=device)
        reads = _windows(self._blocks, tall, wide).flatten(0, 2).flatten(1)
        cells = torch.arange(rows, rows + 2 * tall, device=device) % self.grid[0]
        found.append(_Runs(False, torch.cartesian_prod(*places)[None], cells[None], basis, reads, basis.float()))
        return [runs for runs in found if runs.basis.shape[1]]

    def _reduced(self, hat: torch.Tensor) -> torch.Tensor:
        """I - W G^-1 W^T between the combinations of all runs: its lower triangle, by blocks."""
        each = [(runs, windows) for runs in self._runs for windows in runs.windows]
        sizes = [runs.basis.shape[1] for runs, _ in each]
        starts = [sum(sizes[:number]) for number in range(len(sizes))]
        system = torch.eye(sum(sizes), dtype=torch.float64, device=hat.device)
        made: dict[tuple[int, ...], torch.Tensor] = {}
        height, width = self.grid
        for i, (runs, windows) in enumerate(each):
            for j, (others, far) in enumerate(each[: i + 1]):
                # Two pairs of runs that lie alike have the same block.
                key = (id(runs), id(others), *(windows[0] - far[0]).tolist())
                if key not in made:
                    apart = windows[:, None] - far[None]
                    between = hat[apart[..., 0] % height, apart[..., 1] % width].permute(0, 2, 1, 3)
                    between = between.reshape(len(runs.basis), len(others.basis))
                    made[key] = runs.basis.mT @ between @ others.basis
                system[starts[i] : starts[i] + sizes[i], starts[j] : starts[j] + sizes[j]] -= made[key]
        return system

    def _read(self, right: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
        """What the windows that wrap respond to the cells of both strips: m combinations x N, float32."""
        count = right.shape[-1]
        found = []
        for runs in self._runs:
            # Runs and images beside each other: one product for all runs that lie alike.
            seen = (below if runs.below else right)[runs.cells].flatten(1, 3)
            read = runs.reads @ seen.transpose(0, 1).reshape(seen.shape[1], -1)
            found.append(read.view(len(read), -1, count).transpose(0, 1).reshape(-1, count).float())
        return torch.cat(found)

    def _write(self, combined: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Responses of the windows that wrap: on the right h x q x N x K, below w' x q x N x K."""
        (height, _), (wide, tall) = self.grid, self._across
        filters, rows, columns = self.operator.output_shape
        count = combined.shape[1]
        right = combined.new_zeros(height, wide, count, filters)
        below = combined.new_zeros(columns, tall, count, filters)
        sizes = [len(runs.windows) * runs.basis.shape[1] for runs in self._runs]
        for runs, part in zip(self._runs, combined.split(sizes), strict=True):
            known = part.view(len(runs.windows), -1, count).transpose(0, 1).reshape(-1, len(runs.windows) * count)
            values = (runs.writes @ known).view(-1, filters, len(runs.windows), count).permute(2, 0, 3, 1)
            down, across = runs.windows.unbind(-1)
            if runs.below:
                below[across, down - rows] = values
            else:
                right[down, across - columns] = values
        return right, below

    def _solved(self, values: torch.Tensor) -> torch.Tensor:
        """The dense system's solution by both triangular solves, all products of matrices: m x N."""
        ends = [0]
        for inverse in self._inverses:
            ends.append(ends[-1] + len(inverse))
        for start, end, panel, inverse in zip(ends, ends[1:], self._panels, self._inverses, strict=False):
            values[start:end] = inverse @ values[start:end]
            values[end:] -= panel @ values[start:end]
        backwards = zip(ends[-2::-1], ends[:0:-1], reversed(self._panels), reversed(self._inverses), strict=True)
        for start, end, panel, inverse in backwards:
            values[start:end] -= panel.mT @ values[end:]
            values[start:end] = inverse.mT @ values[start:end]
        return values

    def _strips(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The cells that wrapping windows see, of inputs at all frequencies, h x (w/2 + 1) x N x C s^2.

        Along the right border, h x 2 q x C s^2 x N, the last q columns and then the first; along the lower one in the
        same way, w x 2 q x C s^2 x N.
        """
        (height, width), (wide, tall) = self.grid, self._across
        count, parts = inputs.shape[2:]
        halves = inputs.shape[1]
        columns = self._waves([*range(width - wide, width), *range(wide)], 1).mT
        # Of each pair of conjugate frequencies there is one, but of 0 and of the highest of an even number.
        doubled = torch.full((halves,), 2.0, dtype=torch.float64, device=inputs.device)
        doubled[0] = 1
        if width % 2 == 0:
            doubled[-1] = 1
        along = (doubled * columns / width).to(inputs.dtype) @ inputs.view(height, halves, -1)
        right = torch.fft.ifft(along, dim=0).real
        rows = self._waves([*range(height - tall, height), *range(tall)], 0).mT / height
        lines = (rows.to(inputs.dtype) @ inputs.view(height, -1)).view(2 * tall, halves, -1)
        below = torch.fft.irfft(lines, n=width, dim=1).transpose(0, 1)
        first, second = (
            each.reshape(*each.shape[:2], count, parts).transpose(2, 3).contiguous() for each in (right, below)
        )
        return first, second

    def _filled(self, right: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
        """Responses of the windows that wrap at all frequencies: h x (w/2 + 1) x N x K."""
        (height, width), (_, rows, columns) = self.grid, self.operator.output_shape
        across = self._waves(range(columns, width), 1).conj().to(torch.complex64)
        down = self._waves(range(rows, height), 0).conj().to(torch.complex64)
        spectrum = across @ torch.fft.fft(right, dim=0).flatten(2)
        lines = torch.fft.rfft(below, n=width, dim=0).transpose(0, 1).flatten(1)
        spectrum.view(height, -1).addmm_(down, lines)
        return spectrum.view(*spectrum.shape[:2], *right.shape[2:])

    def _back_to_inputs(self, spectrum: torch.Tensor) -> torch.Tensor:
        """G^-1 P^T of responses at all frequencies: N x C x H x W."""
        parts = (spectrum @ self._back_single).flatten(2).flatten(0, 1).T
        parts = parts.reshape(spectrum.shape[2], -1, *self._back.shape[:2])
        whole = unpolyphase(torch.fft.irfft2(parts, s=self.grid), self.operator.stride)
        height, width = self.operator.input_shape[1:]
        return pad(whole, (0, width - whole.shape[3], 0, height - whole.shape[2]))


def _windows(blocks: torch.Tensor, length: int, across: int) -> torch.Tensor:
    """What wrapping windows see: length x across x K x (rows of cells) x (2 x across cells) x C s^2."""
    tall, wide, filters, parts = blocks.shape
    windows = blocks.new_zeros(length, across, filters, length + tall - 1, 2 * across, parts)
    for down in range(length):
        for right in range(across):
            windows[down, right, :, down : down + tall, right : right + wide] = blocks.permute(2, 0, 1, 3)
    return windows


def _visible(covariance: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
    """Combinations of the responses of wrapping windows that images can have: (windows x K) by r, orthonormal.

    Eigenvectors of the responses' covariance. A window that wraps sees pixels at both ends of the image, which know
    nothing of each other.
    """
    across, filters, rows = windows.shape[1:4]
    count = len(windows) * across * filters
    places = torch.arange(rows, device=windows.device), torch.arange(across, device=windows.device)
    cells = torch.cartesian_prod(*places).view(-1, 2)
    apart = cells[:, None] - cells[None]
    pixels = covariance[apart[..., 0] % len(covariance), apart[..., 1] % covariance.shape[1]].permute(0, 2, 1, 3)
    pixels = pixels.reshape(len(cells) * windows.shape[-1], -1)
    total = windows.new_zeros(count, count)
    for end in (windows[..., :across, :], windows[..., across:, :]):
        seen = end.reshape(count, -1)
        total += seen @ pixels @ seen.mT
    values, vectors = torch.linalg.eigh(total)
    return vectors[:, values > VISIBLE]


def _triangular_inverse(factor: torch.Tensor) -> torch.Tensor:
    eye = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
    return torch.linalg.solve_triangular(factor, eye, upper=False)
