"""LPIPS and DISTS beside PSNR and SSIM: how different two pictures look, by features of networks that learned to see.

Both are of torchmetrics, an optional package that ships what they weigh features by. The features are of published
networks of torchvision, whose weights no package ships: they are read from torch's cache, and where they are not there,
a sentence says which file is to be put where. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from reconstruct.errors import CallError, words_of
from reconstruct.extras import install_hint

if TYPE_CHECKING:
    import torch

    Measure = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

BACKBONES = {"lpips": ("AlexNet", "alexnet-owt-7be5be79.pth"), "dists": ("VGG16", "vgg16-397923af.pth")}
"""The network behind each measure, and the file of its weights. LPIPS of AlexNet is what its authors report."""
ADDRESS = "https://download.pytorch.org/models"
SMALLEST = 32
"""The shortest side of pictures that both networks take: of smaller ones there is no value."""


def perceptual(
    images: torch.Tensor, reconstructions: torch.Tensor, measures: Sequence[str] = ("lpips", "dists")
) -> dict[str, list[float | None]]:
    """How different pictures look from their reconstructions, which are clipped to [0, 1] first.

    Parameters
    ----------
    images, reconstructions : N x C x H x W in [0, 1]; one grey channel stands for three.
    measures : ``lpips`` (Zhang et al. 2018, version 0.1, AlexNet), ``dists`` (Ding et al. 2020), or both.

    Returns
    -------
    By measure one value an image, 0 where the two are the same; None for pictures smaller than 32 x 32, and for those
    of other channels than 1 or 3.

    Raises
    ------
    CallError : an unknown measure, a package or weights that are not there, or batches of different shapes.
    """
    import torch

    check(measures)
    if images.shape != reconstructions.shape or images.ndim != 4:
        shapes = (" x ".join(map(str, each.shape)) for each in (images, reconstructions))
        raise CallError(f"two N x C x H x W batches of one shape, not {' and '.join(shapes)}")
    if not measures or images.shape[1] not in (1, 3) or min(images.shape[2:]) < SMALLEST:
        return {name: [None] * len(images) for name in measures}
    # On the CPU, as PSNR and SSIM are: the same numbers on every machine.
    pairs = [
        tuple(each.detach().cpu().float().clamp(0, 1).expand(3, -1, -1)[None] for each in pair)
        for pair in zip(images, reconstructions, strict=True)
    ]
    with torch.no_grad():
        return {name: [float(_measure(name)(*pair)) for pair in pairs] for name in measures}


def check(measures: Sequence[str]) -> None:
    """Refuse measures that there are not, or that cannot be had here, before any work.

    Raises
    ------
    CallError : an unknown measure, or a package or weights that are not there; says how they are had.
    """
    for name in measures:
        if name not in BACKBONES:
            raise CallError(f"there is no perceptual measure '{name}'; there are {' and '.join(BACKBONES)}")
    if not measures:
        return
    try:
        import torchmetrics  # noqa: F401
        import torchvision  # noqa: F401
    except ImportError as error:
        raise CallError(f"LPIPS and DISTS need torchmetrics and torchvision: {install_hint('perceptual')}") from error
    except Exception as error:  # whatever a library raises that was built for another torch
        raise CallError(
            f"LPIPS and DISTS need torchvision, which cannot be imported ({words_of(error)}): see reconstruct doctor"
        ) from error
    for name in measures:
        network, file = BACKBONES[name]
        path = _checkpoints() / file
        if not path.is_file():
            raise CallError(
                f"{name.upper()} sees by {network}'s published weights, which no package ships and nothing downloads "
                f"unasked: save {ADDRESS}/{file} as {path}"
            )


def measures_of(wanted: str | None) -> tuple[str, ...]:
    """The measures that ``--perceptual`` names, with commas between them; none for None.

    Raises
    ------
    CallError : see ``check``.
    """
    names = tuple(dict.fromkeys(name.strip() for name in (wanted or "").split(",") if name.strip()))
    check(names)
    return names


def _checkpoints() -> Path:
    """Where torchvision looks for published weights."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


@lru_cache
def _measure(name: str) -> Measure:
    """A measure of two pictures, 1 x 3 x H x W in [0, 1], its network loaded once a process."""
    if name == "lpips":
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        net = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True).net.eval()
        return lambda image, other: net(image, other, normalize=True)
    from torchmetrics.functional.image.dists import DISTSNetwork

    return DISTSNetwork().eval()
