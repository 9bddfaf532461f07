"""``reconstruct train`` and ``reconstruct classify``: training a model of the zoo, and error rates."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reconstruct.commands.common import device_of
from reconstruct.commands.options import Device, Quiet, Threads
from reconstruct.commands.terminal import busy, notes, printed, progress
from reconstruct.errors import CallError

if TYPE_CHECKING:
    from reconstruct.network.architecture import Architecture
    from reconstruct.training.data import Pictures
    from reconstruct.training.loop import Recipe
    from reconstruct.zoo.paper_cells import PaperRow

HELD_OUT_CROPS = 2_000


def train(
    model: Annotated[str, typer.Argument(help="A name in the zoo, or the path of a TOML specification.")],
    data: Annotated[
        Path, typer.Argument(help="Folder or archive: CIFAR's files, a folder a class; with --teacher any pictures.")
    ],
    output: Annotated[Path, typer.Option(help="Folder of the run: log, checkpoint and the trained model.")],
    validation: Annotated[Path | None, typer.Option(help="Pictures whose loss and error are logged.")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="cifar, vgg, imagenet or distil; default by the model and data.")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="How often every picture is seen.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures a step, of all processes together.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd, adam or adamw.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At its highest.")] = None,
    first_layer: Annotated[
        float | None, typer.Option(help="The first layer's learning rate, in units of the others'; 0.1 with --ica.")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of the weights, not the biases.")] = None,
    schedule: Annotated[
        str | None,
        typer.Option(help="cosine; halve:25, every 25 epochs; or epochs where the rate falls to a tenth: 200,250,300."),
    ] = None,
    warmup: Annotated[float | None, typer.Option(help="Epochs in which the rate rises from 0.")] = None,
    clip: Annotated[float | None, typer.Option(help="Largest norm of the gradient; 0: any.")] = None,
    batch_norm: Annotated[bool | None, typer.Option(help="Batch normalisation while training.")] = None,
    side: Annotated[
        int | None, typer.Option(help="What the network sees, in pixels; default the model's own.", min=1)
    ] = None,
    resize: Annotated[int | None, typer.Option(help="Shorter side of a picture before a part is cut.", min=1)] = None,
    shift: Annotated[
        int | None, typer.Option(help="Random shifts of up to so many pixels; default 4 for vgg, else 0.", min=0)
    ] = None,
    flip: Annotated[bool, typer.Option(help="Mirror every other picture.")] = True,
    dropout: Annotated[bool, typer.Option(help="As the model states it; or none.")] = True,
    dropout_rate: Annotated[
        float | None, typer.Option(help="Another rate wherever the model has dropout between layers.")
    ] = None,
    own_statistics: Annotated[
        bool, typer.Option("--own-statistics", help="Mean and deviation of this data, not the model's.")
    ] = False,
    teacher: Annotated[str | None, typer.Option(help="Learn its answers, not labels: efficientnet_lite0.")] = None,
    crops: Annotated[Path | None, typer.Option(help="Folder of the teacher's crops, to share them.")] = None,
    crop_count: Annotated[int, typer.Option(help="Crops to make of the pictures.", min=1)] = 100_000,
    crop_side: Annotated[int, typer.Option(help="Of the crops, in pixels.", min=1)] = 128,
    mix: Annotated[float, typer.Option(help="Share of crops with a part of another picture.", min=0, max=1)] = 0.5,
    distort: Annotated[
        bool, typer.Option("--distort", help="Crops of any size, turned, mirrored, recoloured.")
    ] = False,
    ica: Annotated[
        Path | None, typer.Option(help="First layer from independent components of these pictures' patches.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Cross-validation: so many networks, OUTPUT/fold01 and on.", min=2)
    ] = None,
    single: Annotated[
        bool, typer.Option("--single", help="Hold some out, then train on all to the same loss: OUTPUT/single.")
    ] = False,
    hold_out: Annotated[float, typer.Option(help="Share of the pictures that --single holds out.")] = 0.1,
    workers: Annotated[int, typer.Option(help="Processes that read pictures.", min=0)] = 0,
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    save_seconds: Annotated[float, typer.Option(help="From one checkpoint to the next.", min=0)] = 60.0,
    device: Device = "auto",
    threads: Threads = None,
    seed: Annotated[int, typer.Option(help="Seed of whatever is random.", min=0)] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Train a model of the zoo; the same call goes on where it was stopped or killed.

    Under torchrun (torchrun --nproc-per-node 2 -m reconstruct train ...) the processes share each batch.
    """
    if folds is not None and single:
        raise CallError("--folds and --single are two schemes: give one of them")
    if validation is not None and (folds is not None or single):
        raise CallError("--folds and --single hold out pictures of DATA to validate on: leave out --validation")
    with busy("loading", quiet):
        import torch

        from reconstruct.training import loop, runs
        from reconstruct.training.data import load_pictures, statistics
        from reconstruct.training.distill import unlabelled
        from reconstruct.training.ica import LEARNING_RATE
        from reconstruct.zoo.specification import read_architecture

        where = device_of(device, needs_cupy=False)
        rank, _ = loop.processes()
        quiet = quiet or rank > 0
        torch.manual_seed(seed)
        architecture = _dropping(read_architecture(model), dropout, dropout_rate)
    if teacher is not None:
        folder = output / "crops" if crops is None else crops
        made = {"side": crop_side, "teacher": teacher, "device": where, "seed": seed, "precision": precision}
        data = _teach(data, folder, crop_count, made | {"mixed": mix, "distorted": distort}, quiet)
        if validation is not None:
            held_out = folder.with_name(f"{folder.name}_held_out")
            plain = made | {"mixed": 0.0, "distorted": False}
            validation = _teach(validation, held_out, min(HELD_OUT_CROPS, crop_count), plain, quiet)
    pictures = load_pictures(data)
    held = None if validation is None else load_pictures(validation, "test")
    patches = None if ica is None else unlabelled(ica)
    tell_left_out([(data, pictures), (validation, held), (ica, patches)], quiet)
    if own_statistics:
        mean, std = statistics(pictures)
        architecture = replace(architecture, mean=mean, std=std)
    changes: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "batch_norm": batch_norm,
        "warmup": warmup,
        "clip": clip,
        "first_layer": LEARNING_RATE if first_layer is None and ica is not None else first_layer,
    } | _schedule(schedule)
    name = recipe or runs.recipe_for(architecture, pictures)
    chosen = _recipe(name, changes)
    shift = runs.SHIFTS.get(name, 0) if shift is None else shift
    augment = runs.augmentation_for(architecture, pictures, side=side, resize=resize, shift=shift, flip=flip)
    call = (architecture, pictures, chosen, augment, output)
    with training_bar(quiet) as (began, report):
        options: dict[str, Any] = {
            "ica": patches,
            "seed": seed,
            "device": where,
            "workers": workers,
            "precision": precision,
            "save_seconds": save_seconds,
            "report": report,
        }
        if folds is not None:
            found = runs.train_folds(*call, count=folds, began=began, **options)
        elif single:
            found = runs.train_single(*call, share=hold_out, began=began, **options)
        else:
            found = {"": runs.train(*call, validation=held, **options)}
    loop.leave()
    if not quiet:
        _trained(output, architecture.name, found)


def classify(
    data: Annotated[
        Path, typer.Argument(help="Folder or archive: CIFAR's files, a folder a class; with --teacher any pictures.")
    ],
    model: Annotated[
        list[str], typer.Option(help="A name in the zoo, a TOML specification, or a folder that train wrote; several.")
    ],
    crops: Annotated[int, typer.Option(help="1: the centre; 10: corners and centre, also mirrored.")] = 1,
    split: Annotated[str, typer.Option(help="Pictures to classify: test or train.")] = "test",
    side: Annotated[int | None, typer.Option(help="What a network sees, in pixels; default its own.", min=1)] = None,
    resize: Annotated[int | None, typer.Option(help="Shorter side of a picture before crops are cut.", min=1)] = None,
    teacher: Annotated[str | None, typer.Option(help="Compare with its answers, not labels: efficientnet_lite0.")] = (
        None
    ),
    batch_size: Annotated[int, typer.Option(help="Crops that a network is shown together.", min=1)] = 64,
    workers: Annotated[int, typer.Option(help="Processes that read pictures.", min=0)] = 0,
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    device: Device = "auto",
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    quiet: Quiet = False,
) -> None:
    """Top-1 and top-5 error; of several models also their average, and their vote by mean probabilities."""
    if crops not in (1, 10):
        raise CallError(f"--crops is 1 or 10, not {crops}")
    if teacher is not None and (crops != 1 or resize is not None):
        raise CallError("a teacher is asked about the centre as it sees it: leave out --crops and --resize")
    with busy("loading", quiet or as_json):
        import torch

        from reconstruct.training.classification import check_classes, class_scores, judge
        from reconstruct.training.data import load_pictures
        from reconstruct.training.distill import ask, load_teacher, unlabelled
        from reconstruct.training.runs import augmentation_for, trained_models
        from reconstruct.zoo.load import load_network
        from reconstruct.zoo.paper_cells import paper_rows
        from reconstruct.zoo.registry import class_names

        names = [each for given in model for each in trained_models(given)]
        where = device_of(device, needs_cupy=False)
        pictures = load_pictures(data, split) if teacher is None else unlabelled(data)
        nets = [load_network(name, device=where) for name in names]
        asked = None if teacher is None else load_teacher(teacher, where)
        views = [augmentation_for(net.architecture, pictures, side=side, resize=resize) for net in nets]
        for name, net, view in zip(names, nets, views, strict=True):
            check_classes(net, view.side, class_names(name) if teacher is None else None, pictures.classes)
    tell_left_out([(data, pictures)], quiet)
    work: dict[str, Any] = {"precision": precision, "workers": workers, "batch": batch_size}
    passes = len(names) + (asked is not None)
    with progress(len(pictures) * passes, quiet or as_json, "classifying") as advance:
        work["advance"] = advance
        answers = pictures.targets if asked is None else ask(asked, pictures, where, **work)
        found = judge(
            (
                (name, class_scores(net, pictures, side=view.side, resize=view.resize, crops=crops, **work))
                for name, net, view in zip(names, nets, views, strict=True)
            ),
            torch.tensor(answers),
        )
    record: dict[str, Any] = {"data": str(data), "split": split if teacher is None else None, "teacher": teacher}
    record |= {"pictures": len(pictures), "crops": crops, **found}
    rows = [paper_rows(net.architecture) if asked is None else [] for net in nets]
    record["paper"] = [[row.record() for row in own] for own in rows]
    if as_json:
        print(json.dumps(record, indent=2, allow_nan=False))
    elif not quiet:
        _rate_table(record, rows)


def tell_left_out(sets: Iterable[tuple[Path | None, Pictures | None]], quiet: bool) -> None:
    for where, pictures in sets:
        if pictures is not None and pictures.left_out and not quiet:
            notes.print(f"{where}: {pictures.left_out}", soft_wrap=True)


def _teach(photographs: Path, folder: Path, count: int, made: dict[str, Any], quiet: bool) -> Path:
    """The folder of crops of photographs with a teacher's answers, which are made where they are not there yet."""
    from reconstruct.training import loop
    from reconstruct.training.distill import load_teacher, make_crops, unlabelled

    if loop.processes()[0] > 0:
        loop.wait()  # until process 0 has made them
        return folder
    tell_left_out([(photographs, unlabelled(photographs))], quiet)
    with progress(count, quiet, "asking the teacher") as advance:
        make_crops(
            photographs, folder,
            count=count, side=made["side"], teacher=load_teacher(made["teacher"], made["device"]),
            mixed=made["mixed"], distorted=made["distorted"], seed=made["seed"], precision=made["precision"],
            device=made["device"], advance=advance,
        )  # fmt: skip
    loop.wait()
    return folder


def _dropping(architecture: Architecture, dropout: bool, rate: float | None) -> Architecture:
    """A model with the dropout that the call asks for.

    Raises
    ------
    CallError : none, and a rate of it.
    """
    from reconstruct.network.surgery import with_dropout, without_dropout

    if rate is None:
        return architecture if dropout else without_dropout(architecture)
    if not dropout:
        raise CallError("--no-dropout leaves no dropout that could have a --dropout-rate: give one of them")
    return with_dropout(architecture, rate)


def _recipe(name: str, changes: dict[str, Any]) -> Recipe:
    """A recipe with what the call states otherwise; None states nothing."""
    from reconstruct.training.runs import RECIPES

    if name not in RECIPES:
        raise CallError(f"unknown recipe '{name}'; there are {', '.join(RECIPES)}")
    return replace(RECIPES[name], **{key: value for key, value in changes.items() if value is not None})


def _schedule(value: str | None) -> dict[str, Any]:
    """The schedule that ``--schedule`` names as changes of a recipe.

    ``cosine``, ``halve:`` with a number of epochs, or the epochs of a stepwise one.

    Raises
    ------
    CallError : none of these.
    """
    if value is None or value == "cosine":
        return {} if value is None else {"schedule": value}
    try:
        if value.startswith("halve:"):
            return {"schedule": "halve", "halving": float(value.removeprefix("halve:"))}
        return {"schedule": "steps", "drops": tuple(float(epoch) for epoch in value.split(",") if epoch.strip())}
    except ValueError:
        raise CallError(f"--schedule is 'cosine', 'halve:25' or epochs with commas, not '{value}'") from None


@contextmanager
def training_bar(quiet: bool) -> Iterator[tuple[Callable[[str], None], Callable[..., None]]]:
    """A bar with the loss, the learning rate and the speed; a line a validation, or where there is no bar a minute.

    Gives what is to be told that a run begins, and its progress, perhaps with a word on what it is a part of.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[now]}"))
    said = time.monotonic()
    with Progress(*columns, TimeRemainingColumn(), console=notes, disable=quiet, transient=True) as bar:
        task = bar.add_task("", total=None, now="")

        def began(name: str) -> None:
            bar.reset(task)
            if not quiet:
                notes.print(f"training {name}", soft_wrap=True)

        def report(now: Any, part: str = "") -> None:
            nonlocal said
            text = f"loss {now.loss:.3f}  rate {now.learning_rate:.2g}  {now.images_per_second:.0f} images/s{part}"
            bar.update(task, completed=now.step, total=now.steps, now=text)
            validated = now.validation_loss is not None
            if quiet or not (validated or (not notes.is_terminal and time.monotonic() - said > 60)):
                return
            said = time.monotonic()
            if validated:
                text += f", held out: loss {now.validation_loss:.3f}, error {now.validation_error:.1%}"
            notes.print(f"epoch {now.epoch:.2f}: {text}", soft_wrap=True)

        yield began, report


def _trained(output: Path, model: str, found: dict[str, Any]) -> None:
    """Print how each run ended, and the model that it wrote."""
    for name, trained in found.items():
        errors = (row.validation_error for row in reversed(trained.rows))
        held = next((error for error in errors if error is not None), None)
        text = f"{name}{': ' if name else ''}{trained.status} after {trained.steps} steps, loss {trained.loss:.4g}"
        printed.print(text if held is None else f"{text}, error held out {held:.2%}", soft_wrap=True)
        printed.print(f"model: {output / name / model}.toml", soft_wrap=True)
    if "single" in found and found["single"].status != "reached":
        notes.print("single did not come down to the training loss of held_out in twice its epochs", soft_wrap=True)


def _rate_table(record: dict[str, Any], rows: list[list[PaperRow]]) -> None:
    """Print error rates, beside each the paper's cell where a table of it has the network on this data.

    ``rows`` : the paper's rows of each model; a network of Table 5 has the cells of its row of Table 4.
    """
    from rich.table import Table

    soft = record["models"][0]["divergence"] is not None
    several = [("average", record["average"]), ("vote", record["vote"])] if record["average"] is not None else []
    # An average or a vote has a cell where it is of ten networks of one kind.
    first = [own[0] if own else None for own in rows]
    same = first[0] if len(first) == 10 and first.count(first[0]) == 10 else None
    lines = [(each["model"], each, "single", row) for each, row in zip(record["models"], first, strict=True)]
    lines += [(name, each, name, same) for name, each in several]
    cells = [{} if row is None else row.beside(kind, record["split"], record["crops"]) for _, _, kind, row in lines]
    table = Table(box=None, pad_edge=False)
    table.add_column("model", overflow="fold")
    told = [rate for rate in ("top1", "top5") if any(rate in each for each in cells)]
    for rate, heading in (("top1", "top-1 error"), ("top5", "top-5 error")):
        for each in (heading, *(["paper"] if rate in told else [])):
            table.add_column(each, justify="right")
    if soft:
        table.add_column("divergence", justify="right")
    for (name, each, _, row), beside in zip(lines, cells, strict=True):
        texts = []
        for rate in ("top1", "top5"):
            error = each.get(f"{rate}_standard_error")
            texts.append(per_cent(each[rate], error))
            if rate in told:
                column = beside.get(rate)
                texts.append("" if row is None or column is None else per_cent(row.value(column), row.spread(column)))
        table.add_row(
            name, *texts, *([f"{each['divergence']:.4g}"] if soft and each.get("divergence") is not None else [])
        )
    printed.print(table)
    what = "the teacher's first choice" if soft else "the labels"
    crops = "the centre crop" if record["crops"] == 1 else "10 crops"
    printed.print(f"{record['pictures']:,} pictures against {what}, {crops}", soft_wrap=True)
    for known in dict.fromkeys((row.table, row.row, row.data) for own in rows for row in own):
        printed.print("paper: Shang et al. 2016, Table {}, {}, {}".format(*known), soft_wrap=True)


def per_cent(rate: float, error: float | None) -> str:
    """A share in per cent, with its standard error where there is one."""
    return f"{rate:.2%}" if error is None else f"{rate:.2%} ± {error:.2%}"
