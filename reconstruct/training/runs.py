"""Whole training runs: a network of the zoo from its start to its exported files, one, or as Table 1 needs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from reconstruct.network import Architecture, Network, randomise, with_batch_norm, with_classes
from reconstruct.training.data import Arrays, Augmentation, Pictures
from reconstruct.training.export import export
from reconstruct.training.ica import initialise_by_ica
from reconstruct.training.loop import Progress, Recipe, Trained, fit, processes

RECIPES = {
    # Springenberg et al. 2014, section 3.1 and the appendix on ImageNet; Shang et al. 2016 follow them.
    "cifar": Recipe(350, 128, 0.05, weight_decay=1e-3, drops=(200, 250, 300)),
    "imagenet": Recipe(22.5, 64, 0.01, weight_decay=5e-4, drops=(10, 20), batch_norm=True),
    "distil": Recipe(
        10, 64, 2e-3, "adamw", weight_decay=0.02, schedule="cosine", warmup=0.2, first_layer=0.1, batch_norm=True
    ),
}
"""Named recipes. The ImageNet one is in epochs of 1.28 million pictures: 450,000 steps, the rate falling at 200,000."""


def recipe_for(architecture: Architecture, pictures: Pictures) -> str:
    """The name of the recipe that fits: by a teacher's answers, else by the size of the model's images."""
    if pictures.targets.ndim == 2:
        return "distil"
    return "cifar" if architecture.input_size <= 64 else "imagenet"


def augmentation_for(
    architecture: Architecture,
    pictures: Pictures,
    *,
    side: int | None = None,
    resize: int | None = None,
    shift: int = 0,
    flip: bool = True,
) -> Augmentation:
    """What the network sees of each picture. Shang et al. 2016 neither shift nor mirror CIFAR's pictures.

    ``resize``: the shorter side before a square is cut; default for files 256 pixels for a square of 227 and in
    proportion for others (Krizhevsky et al. 2012), while arrays, whose pictures have one size, stay as they are.
    """
    side = side or architecture.input_size
    fill = tuple(round(255 * value) for value in architecture.mean)
    if resize is None and not isinstance(pictures, Arrays):
        resize = round(side * 256 / 227)
    return Augmentation(side, resize=resize, shift=shift, flip=flip, fill=fill)


def start(
    architecture: Architecture, recipe: Recipe, pictures: Pictures, *, ica: bool, seed: int, device: str | torch.device
) -> Network:
    """A network as it is before training: as many outputs as classes, random weights, conv1 by ICA if asked for."""
    architecture = with_classes(architecture, len(pictures.classes))
    architecture = with_batch_norm(architecture) if recipe.batch_norm else architecture
    net = randomise(Network(architecture), seed)
    if ica:
        initialise_by_ica(net, pictures, seed)
    return net.to(device)


def train(
    architecture: Architecture,
    pictures: Pictures,
    recipe: Recipe,
    augment: Augmentation,
    folder: Path,
    *,
    validation: Pictures | None = None,
    ica: bool = False,
    seed: int = 0,
    device: str | torch.device = "cpu",
    workers: int = 0,
    precision: str = "float32",
    until: float | None = None,
    validate_every: float = 1.0,
    report: Callable[[Progress], None] = lambda _: None,
) -> Trained:
    """Train one network and write it to ``folder`` (``export.export``); the same call goes on where it was killed.

    Arguments as in ``loop.fit`` and ``start``.
    """
    started = (folder / "checkpoint.pt").is_file()
    # A checkpoint replaces the start, so what is slow about the start is left out.
    net = start(architecture, recipe, pictures, ica=ica and not started, seed=seed, device=device)
    trained = fit(
        net,
        pictures,
        recipe,
        augment,
        folder,
        validation=validation,
        validate_every=validate_every,
        seed=seed,
        workers=workers,
        precision=precision,
        until=until,
        report=report,
    )
    if processes()[0] == 0:
        export(net, folder, classes=pictures.classes, card=_card(net, pictures, recipe, trained, seed))
    return trained


def _card(net: Network, pictures: Pictures, recipe: Recipe, trained: Trained, seed: int) -> str:
    """What is known of a run without being told."""
    soft = pictures.targets.ndim == 2
    last = next((row for row in reversed(trained.rows) if row[5] is not None), None)
    lines = [
        f"# {net.name}",
        "",
        f"- **Trained on**: {len(pictures):,} pictures, {len(pictures.classes):,} classes"
        + (", from a teacher's answers, without labels." if soft else "."),
        f"- **How**: {trained.steps:,} steps ({trained.status}); {recipe}; seed {seed}.",
        f"- **Training loss**, mean of the last epoch: {trained.loss:.4g}" + (" (KL divergence)." if soft else "."),
    ]
    if last is not None:
        what = "disagreement with the teacher's first choice" if soft else "top-1 error"
        lines.append(f"- **Held out**: loss {last[5]:.4g}, {what} {last[6]:.1%}.")
    lines += ["- **Licence**: fill in that of your data.", ""]
    return "\n".join(lines)
