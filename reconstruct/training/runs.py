"""Whole training runs: a network of the zoo from its start to its exported files, one, or as Table 1 needs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from reconstruct.errors import CallError
from reconstruct.images.atomic import write_atomically
from reconstruct.network.architecture import Architecture
from reconstruct.network.network import Network
from reconstruct.network.surgery import randomise, with_batch_norm, with_classes
from reconstruct.training.checkpoint import CHECKPOINT
from reconstruct.training.data import Arrays, Augmentation, Pictures, folds, split
from reconstruct.training.ica import initialise_by_ica
from reconstruct.training.loop import SAVE_SECONDS, Progress, Recipe, Trained, fit, loss_and_error, processes, wait
from reconstruct.training.records import MOST_FOLDS, a_count, a_number, read_record
from reconstruct.training.start import start_evenly
from reconstruct.zoo.export import export
from reconstruct.zoo.load import load_network
from reconstruct.zoo.registry import CONFIG, model_names

FOLDS, SINGLE = "folds.json", "single.json"

RECIPES = {
    # Springenberg et al. 2014, section 3.1; Shang et al. 2016 follow them. Warm-up and clipping are ours.
    "cifar": Recipe(350, 128, 0.05, weight_decay=1e-3, drops=(200, 250, 300), warmup=1, clip=1.0),
    # The least of the rates that Springenberg et al. try for each network; at 0.05 networks with AVR learn nothing.
    "avr": Recipe(350, 128, 0.01, weight_decay=1e-3, drops=(200, 250, 300), warmup=1, clip=1.0),
    # Zagoruyko 2015. His rate of 1 is of Torch's momentum, which takes a tenth of each gradient: 0.1 here.
    "vgg": Recipe(300, 128, 0.1, weight_decay=5e-4, schedule="halve"),
    # Springenberg et al. 2014, the appendix on ImageNet.
    "imagenet": Recipe(22.5, 64, 0.01, weight_decay=5e-4, drops=(10, 20), clip=1.0, batch_norm=True),
    "distil": Recipe(
        10, 64, 2e-3, "adamw", weight_decay=0.02, schedule="cosine", warmup=0.2, batch_norm=True, even_start=False
    ),
}
"""Named recipes. The ImageNet one is in epochs of 1.28 million pictures: 450,000 steps, the rate falling at 200,000."""
SHIFTS = {"vgg": 4}
"""By how many pixels a recipe's pictures move. Shang et al. 2016 shift for their Table 2; how far they do not say."""


def recipe_for(architecture: Architecture, pictures: Pictures) -> str:
    """The name of the recipe that fits: by a teacher's answers, else by the size of the model's images.

    Of the networks for small images those that state batch normalisation train as the VGG does, those with AVR slowly.
    """
    if pictures.targets.ndim == 2:
        return "distil"
    if architecture.input_size > 64:
        return "imagenet"
    if any(layer.batch_norm for layer in architecture.layers):
        return "vgg"
    return "avr" if any(layer.activation == "avr" for layer in architecture.layers) else "cifar"


def augmentation_for(
    architecture: Architecture,
    pictures: Pictures,
    *,
    side: int | None = None,
    resize: int | None = None,
    shift: int = 0,
    flip: bool = True,
) -> Augmentation:
    """What the network sees of each picture. Shang et al. 2016 mirror CIFAR's, and for the VGG shift them too.

    Parameters
    ----------
    side : height and width of the square that is seen; default the model's own.
    resize : the shorter side before a square is cut; default for files 256 pixels for a square of 227 and in proportion
        for others (Krizhevsky et al. 2012), while arrays, whose pictures have one size, stay as they are.
    shift, flip : as in ``Augmentation``.
    """
    side = side or architecture.input_size
    fill = tuple(round(255 * value) for value in architecture.mean)
    if resize is None and not isinstance(pictures, Arrays):
        resize = round(side * 256 / 227)
    return Augmentation(side, resize=resize, shift=shift, flip=flip, fill=fill)


def start(
    architecture: Architecture,
    recipe: Recipe,
    pictures: Pictures,
    *,
    ica: Pictures | None,
    seed: int,
    device: str | torch.device,
) -> Network:
    """A network as it is before training: as many outputs as classes, random weights, conv1 by ICA of pictures."""
    architecture = with_classes(architecture, len(pictures.classes))
    architecture = with_batch_norm(architecture) if recipe.batch_norm else architecture
    net = (start_evenly if recipe.even_start else randomise)(Network(architecture), seed)
    if ica is not None:
        initialise_by_ica(net, ica, seed)
    return net.to(device)


def train(
    architecture: Architecture,
    pictures: Pictures,
    recipe: Recipe,
    augment: Augmentation,
    folder: Path,
    *,
    validation: Pictures | None = None,
    ica: Pictures | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    workers: int = 0,
    precision: str = "float32",
    until: float | None = None,
    validate_every: float = 1.0,
    save_seconds: float = SAVE_SECONDS,
    report: Callable[[Progress], None] = lambda _: None,
) -> Trained:
    """Train one network and write it to ``folder`` (``export.export``); the same call goes on where it was killed.

    Arguments as in ``loop.fit`` and ``start``.

    Raises
    ------
    CallError : as in these, or the validation set has other classes than the pictures.
    """
    if validation is not None and validation.classes != pictures.classes:
        raise CallError("the pictures to validate on have other classes than those to train on")
    rank, _ = processes()  # which also gives each process its GPU
    started = (folder / CHECKPOINT).is_file()
    # A checkpoint replaces the start, so what is slow about the start is left out.
    net = start(architecture, recipe, pictures, ica=None if started else ica, seed=seed, device=device)
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
        save_seconds=save_seconds,
        report=report,
    )
    if rank == 0:
        export(net, folder, classes=pictures.classes, card=_card(net, pictures, recipe, trained, seed))
    return trained


def train_folds(
    architecture: Architecture,
    pictures: Pictures,
    recipe: Recipe,
    augment: Augmentation,
    folder: Path,
    *,
    count: int,
    seed: int = 0,
    began: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> dict[str, Trained]:
    """Cross-validation: a network for each fold, trained on the other folds and validated on its own.

    Fold k, from 1, lies in ``folder/fold01`` and so on; its seed is ``seed + k``. Folds that are done already are not
    trained again: the same call goes on where it was killed.

    Parameters
    ----------
    began : told the name of each run as it begins.
    options : the options of ``train``.

    Returns
    -------
    How each run ended, by the name of its folder.

    Raises
    ------
    CallError : as in ``train``; or there are to be fewer than 2 folds or more than pictures, or the folder has other
        folds.
    """
    parts = folds(pictures, count, seed)
    record, how = folder / FOLDS, {"folds": count, "seed": seed}
    if record.is_file() and _read_folds(folder) != how:
        raise CallError(f"{folder} holds other folds ({_read_folds(folder)}, not {how}); name another folder")
    if processes()[0] == 0:
        write_atomically(record, json.dumps(how).encode())
    found = {}
    for number, (others, own) in enumerate(parts, 1):
        name = _fold(number)
        began(name)
        found[name] = train(
            architecture, others, recipe, augment, folder / name, validation=own, seed=seed + number, **options
        )
    return found


def train_single(
    architecture: Architecture,
    pictures: Pictures,
    recipe: Recipe,
    augment: Augmentation,
    folder: Path,
    *,
    share: float = 0.1,
    seed: int = 0,
    began: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> dict[str, Trained]:
    """Table 1's single network: trained with some pictures held out, then again, from the start, on all of them.

    The first run, in ``folder/held_out``, is validated on a random ``share`` of the pictures. The second, in
    ``folder/single``, ends with the first epoch at which its loss on that share, which it has learned from, is at most
    the first one's loss on what it had learned from (its status is then ``reached``), or after twice the recipe's
    epochs. Both losses are without dropout and augmentation; ``single.json`` keeps the first one's. Shang et al. 2016
    retrain "until we reach at the same loss on a hold out set (Goodfellow et al., 2013)", whose criterion this is.

    Parameters
    ----------
    began, options : as in ``train_folds``, and so is what is returned.

    Raises
    ------
    CallError : as in ``train``; or the recipe is of less than one epoch, or the share leaves nothing to train or to
        validate on.
    """
    if recipe.epochs < 1:
        raise CallError(f"a loss to train to needs at least one epoch, not {recipe.epochs:g}")
    if not (0 < share < 1 and 0 < round(len(pictures) * share) < len(pictures)):
        raise CallError(f"a share of {share:g} of {len(pictures)} pictures cannot be held out")
    others, held = split(pictures, share, seed)
    began("held_out")
    first = train(architecture, others, recipe, augment, folder / "held_out", validation=held, seed=seed, **options)
    record = folder / SINGLE
    if processes()[0] == 0 and not record.is_file():
        net = load_network(_only_model(folder / "held_out"), device=options.get("device", "cpu"))
        loss, _ = loss_and_error(net, others, augment, workers=options.get("workers", 0))
        write_atomically(record, json.dumps({"loss": loss}).encode())
    wait()
    began("single")
    longer = replace(recipe, epochs=2 * recipe.epochs)
    until = _read_number(record, "loss")
    again = train(
        architecture, pictures, longer, augment, folder / "single", validation=held, seed=seed, until=until, **options
    )
    return {"held_out": first, "single": again}


def trained_models(name: str) -> list[str]:
    """The names that ``load_model`` takes: a name itself, or the models in a folder that a run or its folds wrote.

    Raises
    ------
    CallError : the folder holds no model, or several, or its folds are not all trained.
    """
    folder = Path(name)
    if name in model_names() or not folder.is_dir():
        return [name]
    parts = [folder]
    if (folder / FOLDS).is_file():
        parts = [folder / _fold(number) for number in range(1, _read_folds(folder)["folds"] + 1)]
    return [_only_model(part) for part in parts]


def _only_model(folder: Path) -> str:
    if (folder / CONFIG).is_file():
        return str(folder)
    found = sorted(folder.glob("*.toml"))
    if len(found) == 1:
        return str(found[0])
    what = "no trained model (NAME.toml)" if not found else f"several models ({', '.join(path.name for path in found)})"
    raise CallError(f"{folder} holds {what}")


def _fold(number: int) -> str:
    return f"fold{number:02d}"


def _read_folds(folder: Path) -> dict[str, int]:
    return read_record(
        folder / FOLDS,
        lambda found: {"folds": a_count(found["folds"], MOST_FOLDS), "seed": a_count(found["seed"], 2**64)},
    )


def _read_number(path: Path, name: str) -> float:
    return read_record(path, lambda found: a_number(found[name]), "delete it, and it is made anew")


def _card(net: Network, pictures: Pictures, recipe: Recipe, trained: Trained, seed: int) -> str:
    """A card with what is known of a run without being told."""
    soft = pictures.targets.ndim == 2
    last = next((row for row in reversed(trained.rows) if row.validation_loss is not None), None)
    settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in asdict(recipe).items() if value != ())
    lines = [
        f"# {net.name}",
        "",
        f"- **Trained on**: {len(pictures):,} pictures, {len(pictures.classes):,} classes"
        + (", from a teacher's answers, without labels." if soft else "."),
        f"- **How**: {trained.steps:,} steps ({trained.status}); {settings}; seed {seed}.",
        f"- **Training loss**, mean of the last epoch: {trained.loss:.4g}" + (" (KL divergence)." if soft else "."),
    ]
    if last is not None:
        what = "disagreement with the teacher's first choice" if soft else "top-1 error"
        lines.append(f"- **Held out**: loss {last.validation_loss:.4g}, {what} {last.validation_error:.1%}.")
    lines += ["- **Licence**: fill in that of your data.", ""]
    return "\n".join(lines)
