"""What a method hands back to ``invert``, and what ``invert`` makes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from reconstruct.errors import CallError

STATUSES = {"budget": "budget spent"}
"""Statuses that people read in other words than files have them."""

Watch = Callable[[float, torch.Tensor], None]
"""Called as an iteration goes on, with the forward passes so far and the images, N x 3 x H x W, not clipped."""


def in_words(status: str) -> str:
    """A status as people read it: ``budget spent`` for ``budget``, which files keep; any other is itself."""
    return STATUSES.get(status, status)


@dataclass(frozen=True)
class Inverted:
    """Images in [0, 1] as the network takes them, not clipped, and what they cost; see ``Result``.

    Examples
    --------
    A method of your own may return one, and its counts are then believed:

    >>> import reconstruct, torch
    >>> def grey(problem):
    ...     images = torch.full((len(problem), 3, *problem.size), 0.5)
    ...     count = len(problem)
    ...     return reconstruct.Inverted(images, ["ended"] * count, [0] * count, [0.0] * count, 0.0, 0.0)
    >>> net = reconstruct.load_model("crelu_conv1_4")
    >>> features = net.features(torch.rand(1, 3, 63, 63), "conv1")
    >>> reconstruct.invert(net, features, "conv1", grey, size=63).status
    ['ended']
    """

    images: torch.Tensor
    status: list[str]
    iterations: list[int]
    forward_passes: list[float]
    prepare_seconds: float
    prepare_passes: float


@dataclass(frozen=True)
class Result:
    """Reconstructions and what they cost; lists hold one entry an image.

    Attributes
    ----------
    image : N x 3 x H x W, float32, in the image's scale but not clipped to [0, 1].
    feature_residual : |f(x') - z| / |z|, at the layer's linear responses where the activation keeps them (CReLU),
        at its features otherwise, those of a pooling included.
    status : ``converged``, ``budget`` (stopped by the budget) or ``stagnated`` (no step improves any more); of a
        method of the user's what it says, or ``ended`` where it says nothing and has not converged.
    iterations : of all solves together; evaluations and conjugate-gradient iterations alike.
    forward_passes : work in forward passes through the layer: forward = 1, forward and backward = 3, an operator
        and its adjoint = 2; a solve at one layer of a chain counts by its share of the multiplications.
    seconds : for the whole batch, preparation left out.
    prepare_seconds, prepare_passes : once a model, layer and size; 0 passes where it was cached.
    expected_error : N x 1 x H x W, in the image's scale: nine of ten pixels are expected to be no farther from the
        original, in any channel (``confidence``). None where it was not asked for; what it cost is not counted above.
    tiles : how many tiles each image was inverted in (``tiles``); 1 where it was inverted as a whole.

    Examples
    --------
    >>> import reconstruct
    >>> net = reconstruct.load_model("crelu_conv1_4")
    >>> image = reconstruct.load_image("samples/coffee.jpg", 63)[None]
    >>> features = net.features(image, "conv1")
    >>> result = reconstruct.invert(net, features, "conv1", "linear", size=63)
    >>> result.image.shape, result.status, len(result.feature_residual)
    (torch.Size([1, 3, 63, 63]), ['budget'], 1)
    >>> str(result)[:41]
    'Result(1 image of 63 x 63, budget spent, '

    ``result.save("back.png")`` writes the picture.
    """

    image: torch.Tensor
    feature_residual: list[float]
    status: list[str]
    iterations: list[int]
    forward_passes: list[float]
    seconds: float
    prepare_seconds: float
    prepare_passes: float
    expected_error: torch.Tensor | None = None
    tiles: int = 1

    def __repr__(self) -> str:
        """Say on one line what came back and what it cost, without the numbers of the images."""
        count, _, height, width = self.image.shape
        ended = Counter(map(in_words, self.status))
        said = [f"{number} {word}" if len(ended) > 1 else word for word, number in ended.items()]
        if count:
            said.append(f"feature residual {_range(self.feature_residual, '.2g')}")
            said.append(f"{_range(self.forward_passes, '.0f')} passes")
        said.append(f"{self.seconds + self.prepare_seconds:.1f} s")
        return f"Result({count} image{'s' * (count != 1)} of {height} x {width}, {', '.join(said)})"

    def save(self, path: str | Path) -> list[Path]:
        """Write the images, clipped to [0, 1], as PNG files: ``back.png``, or ``back-1.png`` and so on of several.

        Returns
        -------
        The files' paths.

        Raises
        ------
        CallError : the name ends in something else than ``.png``.
        OSError : a file cannot be written.
        """
        from reconstruct.images.files import save_image

        given = Path(path)
        if given.suffix not in ("", ".png"):
            raise CallError(f"images are saved as PNG: name the file {given.stem}.png, not {given.name}")
        ends = [""] if len(self.image) == 1 else [f"-{number}" for number in range(1, len(self.image) + 1)]
        paths = [given.with_name(f"{given.stem}{end}.png") for end in ends]
        for image, target in zip(self.image, paths, strict=True):
            save_image(image, target)
        return paths


def _range(values: list[float], form: str) -> str:
    """One number, or the smallest and the largest where they differ."""
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"
