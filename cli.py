"""The command line: parse, call the library, print. No mathematics.

Whatever imports torch is imported inside the commands, so that ``reconstruct --help`` is quick.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.console import Console
from typer.core import TyperGroup

import reconstruct
from reconstruct.errors import CallError, ImageError, ReconstructError

if TYPE_CHECKING:
    import torch

    from reconstruct.network import Network
    from reconstruct.report.figures import Panel

COMMANDS = ("invert", "models", "bounds", "evaluate", "report", "train", "classify")
HELD_OUT_CROPS = 2_000
PICTURED = 25
"""Times the page's images of a kind that a set may have if pictures of all are made on the way. Of a larger set, to
invert those shown once more is less than an eighth of the work."""


class Item(NamedTuple):
    """An image on its way: as it was called, the stem of what is written of it, and 3 x H x W."""

    name: str
    stem: str
    picture: torch.Tensor


class MainJobFirst(TyperGroup):
    """``reconstruct IMAGE ...`` is ``reconstruct invert IMAGE ...``: the main job needs no word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*COMMANDS, "--help", "--version"):
            args = ["invert", *args]
        return super().parse_args(ctx, args)


class ShowFirst(TyperGroup):
    """``reconstruct models NAME`` is ``reconstruct models show NAME``, and so it is without a name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in ("show", "import", "--help"):
            args = ["show", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=MainJobFirst, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)
models = typer.Typer(cls=ShowFirst, rich_markup_mode=None)
app.add_typer(models, name="models", help="The zoo; 'models NAME' shows one model, 'models import' reads weights.")
notes = Console(stderr=True, highlight=False)
# Into a file or a pipe a table keeps its lines whole.
printed = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


# Options of several commands.
Model = Annotated[str, typer.Option(help="A name in the zoo, or the path of a TOML specification.")]
Layers = Annotated[str, typer.Option("--layer", help="A layer, several with commas, or 'all'.")]
Methods = Annotated[str, typer.Option("--method", help="A method, several with commas, or 'all'.")]
LinearForm = Annotated[str, typer.Option(help="Pseudoinverse of linear: global or patch.")]
Damping = Annotated[
    str, typer.Option(help="Damping of each layer's least squares, by its largest squared singular value; or auto.")
]
Budget = Annotated[float | None, typer.Option(help="Work at which a method stops, in forward passes.")]
Tolerance = Annotated[float | None, typer.Option(help="Feature residual at which a method stops.")]
Noise = Annotated[float, typer.Option(help="Gaussian noise on the features, as a share of their norm.")]
Quantise = Annotated[str | None, typer.Option(help="Round the features: float16 or int8.")]
Seed = Annotated[int, typer.Option(help="Seed of whatever is random.")]
Size = Annotated[int | None, typer.Option(help="Side of the centred square, in pixels.", min=1)]
Native = Annotated[bool, typer.Option("--native", help="Never resize; trim to what the strides cover.")]
RandomWeights = Annotated[int | None, typer.Option(metavar="SEED", help="Random weights instead of a file.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Output = Annotated[Path, typer.Option(help="Folder for what is written.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON array on standard output.")]


def main() -> None:
    """Run, and turn errors that are for people into one line and an exit status."""
    try:
        app(prog_name="reconstruct")
    except CallError as error:
        _fail(str(error), 2)
    except (ReconstructError, OSError) as error:
        _fail(str(error), 1)
    except MemoryError:
        _fail("not enough memory; try a smaller --size", 1)


def _fail(message: str, status: int) -> None:
    print(f"reconstruct: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"reconstruct {reconstruct.__version__}")
        raise typer.Exit


@app.callback()
def _everything(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What does a layer of a convolutional network still know about the image?

    reconstruct IMAGE... --model MODEL --layer LAYER   inverts a layer's features back to the picture;
    'reconstruct invert --help' lists the options of this main job.
    """


@app.command()
def invert(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures to reconstruct.")],
    model: Model,
    layer: Layers,
    method: Methods = "map",
    linear_form: LinearForm = "global",
    damping: Damping = "auto",
    size: Size = None,
    native: Native = False,
    budget: Budget = None,
    tolerance: Tolerance = None,
    noise: Noise = 0.0,
    quantise: Quantise = None,
    random_weights: RandomWeights = None,
    device: Device = "auto",
    output: Output = Path(),
    as_json: AsJson = False,
    seed: Seed = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No table, no progress.")] = False,
) -> None:
    """The image back from a layer's features: the main job.

    Writes, for each image, STEM.MODEL.LAYER.METHOD.png and STEM.MODEL.comparison.png.
    """
    _check_disturbance(noise, quantise)
    _check_size(size, native)
    with _busy("loading", quiet or as_json):
        import torch

        from reconstruct.network import layer_list
        from reconstruct.zoo import load_model

        torch.manual_seed(seed)
        net = load_model(model, random_weights=random_weights, device=_device(device))
        layers = layer_list(net, layer)
        alone = "," not in method and method != "all" and layer != "all"
        methods = _methods(net, method, layers, alone, quiet)
    options = {
        "linear_form": linear_form,
        "damping": _damping(damping),
        "budget": budget,
        "tolerance": tolerance,
        "seed": seed,
    }
    sent = {"noise": noise, "quantise": quantise, "seed": seed}
    records: list[dict[str, Any]] = []
    failures = 0
    with _progress(len(images) * sum(map(len, methods.values())), quiet or as_json) as advance:
        for batch in _batches(images, net, list(methods), size, native, quiet):
            if isinstance(batch, ImageError):
                failures += 1
                notes.print(f"reconstruct: {batch}", soft_wrap=True, markup=False)
            else:
                records += _reconstruct(net, batch, methods, options, sent, output, advance)
    if as_json:
        print(json.dumps([_strict(record) for record in records], indent=2, allow_nan=False))
    elif not quiet and records:
        _table(records)
        written = sorted({record["comparison"] for record in records})
        printed.print(f"comparison: {', '.join(written)}", soft_wrap=True, markup=False)
    if failures:
        raise typer.Exit(1)


@models.command()
def show(
    name: Annotated[str | None, typer.Argument(help="A model; without it, all.")] = None,
    random_weights: RandomWeights = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """The zoo; for one model its layers, shapes, parameters and frame bounds."""
    with _busy("measuring", as_json):
        from reconstruct.zoo import describe, model_names, read_architecture

        if name is None:
            known = [read_architecture(each) for each in model_names()]
            listed = [
                {
                    "name": each.name,
                    "base": each.base,
                    "parameters": each.parameters(),
                    "weights": each.weights,
                    "source": each.source,
                }
                for each in known
            ]
        else:
            described = describe(name, random_weights=random_weights)
    if as_json:
        print(json.dumps(listed if name is None else described, indent=2, allow_nan=False))
    elif name is None:
        _model_table(listed)
    else:
        _layer_table(described)


@models.command("import")
def import_weights(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A state dict: .pth, or .safetensors.")],
    model: Annotated[str, typer.Option("--as", help="The model that it is of: alexnet or vgg16.")],
    output: Output = Path(),
) -> None:
    """Weights that torchvision publishes, as a model that every command takes: NAME.toml and NAME.safetensors.

    Nothing in FILE is run: it is read as a state dict and nothing else.
    """
    with _busy("importing", False):
        from reconstruct.checkpoints import import_checkpoint

        written = import_checkpoint(file, model, output)
    printed.print(f"model: {written}", soft_wrap=True, markup=False)


@app.command()
def bounds(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures to pool the features of.")],
    model: Model,
    layer: Annotated[str, typer.Option(help="A max-pooling; with --pool a convolution.")],
    pool: Annotated[
        str | None, typer.Option(metavar="K/S", help="Bound the convolution as if pooled: kernel and stride.")
    ] = None,
    size: Size = None,
    native: Native = False,
    budget: Annotated[float | None, typer.Option(help="Work of each reconstruction, in forward passes.")] = None,
    random_weights: RandomWeights = None,
    device: Device = "auto",
    output: Output = Path(),
    as_json: AsJson = False,
    seed: Annotated[int, typer.Option(help="Seed of the random filters.", min=0)] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No table, no progress.")] = False,
) -> None:
    """What max-pooling leaves: each region's error with bounds that are proved, and the image rebuilt from it.

    Writes, for each image, STEM.MODEL.LAYER.bounds.png, and STEM.MODEL.LAYER.KNOWN.png of what was rebuilt.
    """
    _check_size(size, native)
    with _busy("loading", quiet or as_json):
        from reconstruct.inversion.inverted import check_limits
        from reconstruct.network import pooled_layer, with_pool
        from reconstruct.zoo import load_model

        check_limits(None, budget)
        net = load_model(model, random_weights=random_weights, device=_device(device, needs_cupy=False))
        if pool is not None:
            kernel, stride = _pooling(pool)
            net = with_pool(net, layer, kernel, stride)
            layer = net.layer_names[-1]
        pooled_layer(net, layer)
    records: list[dict[str, Any]] = []
    failures = 0
    with _progress(len(images), quiet or as_json, "bounding") as advance:
        for batch in _batches(images, net, [layer], size, native, quiet):
            if isinstance(batch, ImageError):
                failures += 1
                notes.print(f"reconstruct: {batch}", soft_wrap=True, markup=False)
                continue
            for item in batch:
                records.append(_bounded(net, layer, item, budget, seed, output))
                advance(1)
    if as_json:
        print(json.dumps([_strict(record) for record in records], indent=2, allow_nan=False))
    elif not quiet and records:
        _bounds_table(records)
        printed.print(f"figure: {', '.join(record['figure'] for record in records)}", soft_wrap=True, markup=False)
    if failures:
        raise typer.Exit(1)


@app.command()
def evaluate(
    images: Annotated[
        str, typer.Argument(metavar="IMAGES", help="A folder, a list, a .tar file, CIFAR's folder; also s3://, gs://.")
    ],
    model: Model,
    layer: Layers,
    output: Annotated[Path, typer.Option(metavar="RESULTS", help="Folder of the results; a run in it goes on.")],
    method: Methods = "map",
    limit: Annotated[int | None, typer.Option(help="The first so many images.", min=1)] = None,
    sample: Annotated[int | None, typer.Option(help="So many images at random, by --seed.", min=1)] = None,
    split: Annotated[str, typer.Option(help="Of CIFAR's files: test or train.")] = "test",
    engine: Annotated[str, typer.Option(help="local, or ray for several processes or machines.")] = "local",
    workers: Annotated[
        int | None, typer.Option(help="local: threads that read images (2); ray: processes that invert.", min=1)
    ] = None,
    batch_size: Annotated[str, typer.Option(help="Images inverted together: a number, or auto, by the memory.")] = (
        "auto"
    ),
    address: Annotated[str | None, typer.Option(help="ray: of a running cluster, or auto.")] = None,
    cpus_per_worker: Annotated[int, typer.Option(help="ray: cores of each worker.", min=1)] = 1,
    gpus_per_worker: Annotated[
        float | None, typer.Option(help="ray: GPUs of each worker; 1 where the cluster has any.", min=0)
    ] = None,
    linear_form: LinearForm = "global",
    damping: Damping = "auto",
    size: Size = None,
    native: Native = False,
    budget: Budget = None,
    tolerance: Tolerance = None,
    noise: Noise = 0.0,
    quantise: Quantise = None,
    random_weights: RandomWeights = None,
    device: Device = "auto",
    gallery: Annotated[int, typer.Option(help="Worst, median and best images that the page shows of each.", min=0)] = 4,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try images again that failed before.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first image that fails.")] = False,
    save_seconds: Annotated[float, typer.Option(help="From one part of the rows to the next.", min=0)] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="The summary on standard output.")] = False,
    seed: Seed = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No table, no progress.")] = False,
) -> None:
    """Invert a whole set of images; rows as Parquet, a summary and a page. The same call goes on where it was stopped.

    Writes RESULTS/rows/*.parquet, run.json, summary.json and report.html. Images that cannot be read are rows with
    an error.
    """
    _check_disturbance(noise, quantise)
    _check_size(size, native)
    if limit is not None and sample is not None:
        raise CallError("--limit takes the first images and --sample any: give one of them")
    if engine not in ("local", "ray"):
        raise CallError(f"--engine is local or ray, not '{engine}'")
    silent = quiet or as_json
    with _busy("loading", silent):
        import torch

        from reconstruct import evaluation, results
        from reconstruct.inversion.inverted import check_limits
        from reconstruct.network import layer_list
        from reconstruct.provenance import begin_session, describe_run
        from reconstruct.report.page import write_report
        from reconstruct.sources import open_source, select
        from reconstruct.zoo import load_model

        check_limits(tolerance, budget)
        torch.manual_seed(seed)
        net = load_model(model, random_weights=random_weights, device=_device(device))
        alone = "," not in method and method != "all" and layer != "all"
        methods = _methods(net, method, layer_list(net, layer), alone, silent)
        source = open_source(images, split)
        chosen = select(len(source.names), limit, sample, seed)
        job = evaluation.Job(
            methods, size, native,
            options={
                "linear_form": linear_form, "damping": _damping(damping), "budget": budget, "tolerance": tolerance,
                "seed": seed,
            },
            disturbance={"noise": noise, "quantise": quantise, "seed": seed},
        )  # fmt: skip
        rows_of, workers = _engine(engine, workers, address, cpus_per_worker, gpus_per_worker)
        together = _batch_size(batch_size) or evaluation.batch_size(net, job, 1 if engine == "local" else workers)
        job = replace(
            job,
            pixels=together * (net.input_size if size is None else size) ** 2,
            # Of a small set most images are shown: their pictures are kept as they come.
            thumbnails=len(chosen) <= PICTURED * gallery,
        )
    run = describe_run(
        net, source, job, ["reconstruct", *sys.argv[1:]], random_weights=random_weights,
        selection={"limit": limit, "sample": sample, "seed": seed, "images": len(chosen)},
    )  # fmt: skip
    session = begin_session(engine, workers, together, str(net.mean.device))
    with results.locked(output), _interruptible(output):
        results.begin(output, run | {"gallery": gallery, "sessions": [session]}, chosen, retry=retry_failed)
        done = len(results.finished(output))
        with _evaluating(len(chosen), done, silent) as advance:
            evaluation.evaluate(
                output, chosen, partial(rows_of, net, source, job=job),
                batch_size=together, session=session, save_seconds=save_seconds, strict=strict, advance=advance,
            )  # fmt: skip
        with _progress(None, silent, "pictures for the page") as pictured:
            summary = evaluation.finish(net, source, job, output, gallery, pictured)
        write_report([output], output / "report.html")
    _evaluated(output, summary, as_json, quiet)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="RESULTS...", help="Folders that evaluate wrote.")],
    output: Annotated[
        Path | None, typer.Option(help="The page; default RESULTS/report.html, of several comparison.html.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The numbers on standard output.")] = False,
) -> None:
    """One self-contained page of an evaluation; of several, their images' paired differences to the first."""
    from reconstruct.report.page import numbers, write_report

    target = output or (folders[0] / "report.html" if len(folders) == 1 else Path("comparison.html"))
    write_report(folders, target)
    if as_json:
        print(json.dumps(numbers(folders), indent=2, allow_nan=False))
    else:
        printed.print(f"report: {target}", soft_wrap=True, markup=False)


@app.command()
def train(
    model: Annotated[str, typer.Argument(help="A name in the zoo, or the path of a TOML specification.")],
    data: Annotated[
        Path, typer.Argument(help="Folder: CIFAR's files, a folder a class, or with --teacher any pictures.")
    ],
    output: Annotated[Path, typer.Option(help="Folder of the run: log, checkpoint and the trained model.")],
    validation: Annotated[Path | None, typer.Option(help="Pictures whose loss and error are logged.")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="cifar, imagenet or distil; default by the model and data.")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="How often every picture is seen.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures a step, of all processes together.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd, adam or adamw.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At its highest.")] = None,
    first_layer: Annotated[
        float | None, typer.Option(help="The first layer's learning rate, in units of the others'; 0.1 with --ica.")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of the weights, not the biases.")] = None,
    schedule: Annotated[str | None, typer.Option(help="cosine, or epochs where the rate falls: 200,250,300.")] = None,
    batch_norm: Annotated[bool | None, typer.Option(help="Batch normalisation while training.")] = None,
    side: Annotated[
        int | None, typer.Option(help="What the network sees, in pixels; default the model's own.", min=1)
    ] = None,
    resize: Annotated[int | None, typer.Option(help="Shorter side of a picture before a part is cut.", min=1)] = None,
    shift: Annotated[int, typer.Option(help="Random shifts of up to so many pixels.", min=0)] = 0,
    flip: Annotated[bool, typer.Option(help="Mirror every other picture.")] = True,
    dropout: Annotated[bool, typer.Option(help="As the model states it; or none.")] = True,
    own_statistics: Annotated[
        bool, typer.Option("--own-statistics", help="Mean and deviation of this data, not the model's.")
    ] = False,
    teacher: Annotated[str | None, typer.Option(help="Learn its answers, not labels: efficientnet_lite0.")] = None,
    crops: Annotated[Path | None, typer.Option(help="Folder of the teacher's crops, to share them.")] = None,
    crop_count: Annotated[int, typer.Option(help="Crops to make of the pictures.", min=1)] = 100_000,
    crop_side: Annotated[int, typer.Option(help="Of the crops, in pixels.", min=1)] = 128,
    mix: Annotated[float, typer.Option(help="Share of crops with a part of another picture.", min=0, max=1)] = 0.5,
    ica: Annotated[
        Path | None, typer.Option(help="First layer from independent components of these pictures' patches: a folder.")
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
    with _busy("loading", quiet):
        import torch

        from reconstruct.network import without_dropout
        from reconstruct.training import loop, runs
        from reconstruct.training.data import load_pictures, statistics
        from reconstruct.training.distill import unlabelled
        from reconstruct.training.ica import LEARNING_RATE
        from reconstruct.zoo import read_architecture

        where = _device(device, needs_cupy=False)
        rank, _ = loop.processes()
        quiet = quiet or rank > 0
        torch.manual_seed(seed)
        architecture = read_architecture(model)
        architecture = architecture if dropout else without_dropout(architecture)
    if teacher is not None:
        folder = output / "crops" if crops is None else crops
        made = {"side": crop_side, "teacher": teacher, "device": where, "seed": seed, "precision": precision}
        data = _teach(data, folder, crop_count, made | {"mixed": mix}, quiet)
        if validation is not None:
            held_out = folder.with_name(f"{folder.name}_held_out")
            validation = _teach(validation, held_out, min(HELD_OUT_CROPS, crop_count), made | {"mixed": 0.0}, quiet)
    pictures = load_pictures(data)
    held = None if validation is None else load_pictures(validation, "test")
    if own_statistics:
        mean, std = statistics(pictures)
        architecture = replace(architecture, mean=mean, std=std)
    name = recipe or runs.recipe_for(architecture, pictures)
    if name not in runs.RECIPES:
        raise CallError(f"unknown recipe '{name}'; there are {', '.join(runs.RECIPES)}")
    changes: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "batch_norm": batch_norm,
        "first_layer": LEARNING_RATE if first_layer is None and ica is not None else first_layer,
    } | _schedule(schedule)
    chosen = replace(runs.RECIPES[name], **{key: value for key, value in changes.items() if value is not None})
    augment = runs.augmentation_for(architecture, pictures, side=side, resize=resize, shift=shift, flip=flip)
    call = (architecture, pictures, chosen, augment, output)
    with _training(quiet) as (began, report):
        options: dict[str, Any] = {
            "ica": None if ica is None else unlabelled(ica),
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


@app.command()
def classify(
    data: Annotated[
        Path, typer.Argument(help="Folder: CIFAR's files, a folder a class, or with --teacher any pictures.")
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
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No table, no progress.")] = False,
) -> None:
    """Top-1 and top-5 error; of several models also their average, and their vote by mean probabilities."""
    if crops not in (1, 10):
        raise CallError(f"--crops is 1 or 10, not {crops}")
    if teacher is not None and (crops != 1 or resize is not None):
        raise CallError("a teacher is asked about the centre as it sees it: leave out --crops and --resize")
    with _busy("loading", quiet or as_json):
        import torch

        from reconstruct.training.classification import check_classes, class_scores, judge
        from reconstruct.training.data import load_pictures
        from reconstruct.training.distill import ask, load_teacher, unlabelled
        from reconstruct.training.runs import augmentation_for, trained_models
        from reconstruct.zoo import class_names, load_model

        names = [each for given in model for each in trained_models(given)]
        where = _device(device, needs_cupy=False)
        pictures = load_pictures(data, split) if teacher is None else unlabelled(data)
        nets = [load_model(name, device=where) for name in names]
        asked = None if teacher is None else load_teacher(teacher, where)
        views = [augmentation_for(net.architecture, pictures, side=side, resize=resize) for net in nets]
        for name, net, view in zip(names, nets, views, strict=True):
            check_classes(net, view.side, class_names(name) if teacher is None else None, pictures.classes)
    work: dict[str, Any] = {"precision": precision, "workers": workers, "batch": batch_size}
    passes = len(names) + (asked is not None)
    with _progress(len(pictures) * passes, quiet or as_json, "classifying") as advance:
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
    if as_json:
        print(json.dumps(record, indent=2, allow_nan=False))
    elif not quiet:
        _rate_table(record)


def _methods(net: Network, wanted: str, layers: list[str], alone: bool, quiet: bool) -> dict[str, list[str]]:
    """For each layer with any the methods that apply; asked for alone, one that does not is an error."""
    from reconstruct.inversion import METHODS, applicable, check_method

    names = list(METHODS) if wanted == "all" else [name.strip() for name in wanted.split(",") if name.strip()]
    for name in names:
        check_method(name)
    chosen: dict[str, list[str]] = {}
    for layer in layers:
        reasons = {name: applicable(net, layer, name) for name in dict.fromkeys(names)}
        chosen[layer] = [name for name, reason in reasons.items() if reason is None]
        for name, reason in reasons.items():
            if reason is not None and alone:
                raise CallError(reason)
            if reason is not None and not quiet:
                notes.print(f"skipped {name} at {layer}: {reason}", soft_wrap=True, markup=False)
    chosen = {layer: names for layer, names in chosen.items() if names}
    if not chosen:
        raise CallError(f"no method of {', '.join(names)} applies to {', '.join(layers)} of {net.name}")
    return chosen


def _damping(value: str) -> Any:
    if value == "auto":
        return value
    try:
        return float(value)
    except ValueError:
        raise CallError(f"--damping is 'auto' or a number, not '{value}'") from None


def _device(wanted: str, needs_cupy: bool = True) -> str:
    import torch

    if wanted not in ("auto", "cpu", "cuda"):
        raise CallError(f"--device is auto, cpu or cuda, not '{wanted}'")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise CallError("--device cuda: torch finds no CUDA device here; use --device cpu")
    if wanted != "auto":
        return wanted
    if not torch.cuda.is_available():
        return "cpu"
    if not needs_cupy:
        return "cuda"
    try:
        import cupy  # noqa: F401
    except ImportError:
        notes.print("a GPU is there but CuPy is not (pip install 'reconstruct[gpu]'): using the CPU", soft_wrap=True)
        return "cpu"
    return "cuda"


def _check_disturbance(noise: float, quantise: str | None) -> None:
    if not 0 <= noise < 1:
        raise CallError(f"--noise is a share of the features' norm, at least 0 and below 1, not {noise:g}")
    if quantise not in (None, "float16", "int8"):
        raise CallError(f"--quantise is float16 or int8, not '{quantise}'")


def _check_size(size: int | None, native: bool) -> None:
    if size is not None and native:
        raise CallError("--size resizes and --native never does: give one of them")


def _batches(
    images: list[Path], net: Network, layers: list[str], size: int | None, native: bool, quiet: bool
) -> Iterator[list[Item] | ImageError]:
    """The images in batches of one size, as many as fit; and an error for each that cannot be used."""
    from reconstruct.evaluation import CPU_PIXELS

    stems: list[str] = []
    batch: list[Item] = []
    for path in images:
        try:
            picture = _picture(path, net, layers, size, native, quiet)
        except ImageError as error:
            near = get_close_matches(str(path), COMMANDS, n=1)
            yield ImageError(f"{error} (there is a command '{near[0]}')") if near else error
            continue
        stem, count = path.stem, 1
        while stem in stems:  # images of one name in several folders
            count += 1
            stem = f"{path.stem}-{count}"
        stems.append(stem)
        pixels = picture.shape[1] * picture.shape[2]
        if batch and (batch[0].picture.shape != picture.shape or (len(batch) + 1) * pixels > CPU_PIXELS):
            yield batch
            batch = []
        batch.append(Item(str(path), stem, picture))
    if batch:
        yield batch


def _picture(path: Path, net: Network, layers: list[str], size: int | None, native: bool, quiet: bool) -> torch.Tensor:
    """The image that goes in, 3 x H x W, cropped and resized as asked."""
    from reconstruct.images import model_input, read_image, to_tensor

    picture = read_image(path)
    fitted = model_input(picture, str(path), net.architecture, layers, size, native)
    if not quiet and not native and min(picture.size) < fitted.width:
        notes.print(
            f"{path} is {picture.height} x {picture.width} pixels, enlarged to {fitted.height} x {fitted.width}",
            soft_wrap=True, markup=False,
        )  # fmt: skip
    return to_tensor(fitted)


def _reconstruct(
    net: Network,
    items: list[Item],
    methods: dict[str, list[str]],
    options: dict[str, Any],
    sent: dict[str, Any],
    output: Path,
    advance: Callable[[int], None],
) -> list[dict[str, Any]]:
    """Every layer and method of a batch: records, image by image, and the pictures written."""
    import torch

    from reconstruct.evaluation import measure
    from reconstruct.images import save_image, write_png
    from reconstruct.inversion import applicable, disturb
    from reconstruct.report.figures import Panel, comparison

    batch = torch.stack([item.picture for item in items]).to(net.mean.device)
    names = [item.name for item in items]
    shown = [output / f"{item.stem}.{net.name}.comparison.png" for item in items]
    records: list[list[dict[str, Any]]] = [[] for _ in items]
    rows: list[dict[str, list[Panel]]] = [{} for _ in items]
    for layer, chosen in methods.items():
        features, level = disturb(net.features(batch, layer), **sent)
        # The reader wants the reference: linear is in every figure where it applies, asked for or not.
        silent = [] if "linear" in chosen or applicable(net, layer, "linear") else ["linear"]
        for method in (*chosen, *silent):
            own = options | ({"budget": None, "tolerance": None} if method in silent else {})
            result, measured = measure(net, names, batch, features, layer, method, noise=level, **own)
            for i, (item, record) in enumerate(zip(items, measured, strict=True)):
                detail = f"{record['psnr']:.1f} dB, SSIM {record['ssim']:.3f}"
                rows[i].setdefault(method, []).append(Panel(result.image[i], f"{layer}, {method}", detail))
                if method not in silent:
                    target = output / f"{item.stem}.{net.name}.{layer}.{method}.png"
                    save_image(result.image[i], target)
                    records[i].append({**record, "output": str(target), "comparison": str(shown[i])})
            if method not in silent:
                advance(len(items))
    for item, panels, path in zip(items, rows, shown, strict=True):
        write_png(comparison(Panel(item.picture, "original", item.stem), list(panels.values())), path)
    return [record for own in records for record in own]


def _engine(
    name: str, workers: int | None, address: str | None, cpus: int, gpus: float | None
) -> tuple[Callable[..., Any], int]:
    """The engine that turns batches into rows, and how many workers it has."""
    from reconstruct import cluster, evaluation

    if name == "local":
        return partial(evaluation.local, workers=workers or 2), workers or 2
    workers, gpus = cluster.start(address, workers, cpus, gpus)
    return partial(cluster.on_ray, workers=workers, cpus=cpus, gpus=gpus), workers


def _evaluated(output: Path, summary: dict[str, Any], as_json: bool, quiet: bool) -> None:
    """The summary and where the page is; a warning of images that failed, an exit status only if all did."""
    from reconstruct.results import first_error

    if as_json:
        print(json.dumps(summary, indent=2, allow_nan=False))
    elif not quiet:
        _summary_table(summary)
        printed.print(f"report: {output / 'report.html'}", soft_wrap=True, markup=False)
    if summary["failed"]:
        notes.print(
            f"reconstruct: {summary['failed']} of {summary['images']} images failed: {first_error(output)}"
            f"{' ...' if summary['failed'] > 1 else ''}",
            soft_wrap=True, markup=False,
        )  # fmt: skip
        if summary["failed"] == summary["images"]:
            raise typer.Exit(1)


def _batch_size(value: str) -> int | None:
    """A number of images, or None for ``auto``."""
    if value == "auto":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise CallError(f"--batch-size is 'auto' or a number of images, not '{value}'")
    return int(value)


@contextmanager
def _interruptible(output: Path) -> Iterator[None]:
    """Control-C, and the SIGTERM of schedulers: what is done is kept, and the user is told how to go on."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        notes.print(f"stopped; the same call goes on in {output}", soft_wrap=True, markup=False)
        raise typer.Exit(130) from None
    except OSError as error:  # a full disk
        raise ReconstructError(
            f"{output}: {error.strerror or error}; the same call goes on where it stopped"
        ) from error
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _evaluating(total: int, done: int, silent: bool) -> Iterator[Callable[[int], None]]:
    """A bar with rate and remaining time; where there is no terminal for it, a line a minute."""
    if done and not silent:
        notes.print(f"{done:,} of {total:,} images are done already", soft_wrap=True)
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    began = said = time.monotonic()
    columns = (TextColumn("evaluating"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn(), console=notes, disable=silent, transient=True) as bar:
        task = bar.add_task("", total=total, completed=done, rate="")
        count = 0

        def advance(images: int) -> None:
            nonlocal said, count
            count += images
            now = time.monotonic()
            rate = count / (now - began)
            bar.update(task, advance=images, rate=f"{rate:.3g} images/s")
            if not silent and not notes.is_terminal and now - said > 60:
                said = now
                left = (total - done - count) / rate
                soon = f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min"
                notes.print(f"{done + count:,} of {total:,}, {rate:.3g} images/s, {soon} left")

        yield advance


def _summary_table(summary: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("layer", "method"):
        table.add_column(heading, overflow="fold")
    for heading in ("images", "failed", "PSNR dB", "median", "5 to 95 %", "SSIM", "residual", "passes", "images/s"):
        table.add_column(heading, justify="right")
    for each in summary["results"]:
        psnr, ssim = each["psnr"], each["ssim"]
        table.add_row(
            each["layer"],
            each["method"],
            f"{each['count']:,}",
            f"{each['failures']:,}",
            f"{_number(psnr['mean'], '.1f')} ± {_number(psnr['std'], '.1f')}",
            _number(psnr["median"], ".1f"),
            f"{_number(psnr['p5'], '.1f')} to {_number(psnr['p95'], '.1f')}",
            _number(ssim["mean"], ".3f"),
            _number(each["feature_residual"]["median"], ".2g"),
            _number(each["forward_passes"]["mean"], ".0f"),
            _number(each["images_per_second"], ".3g"),
        )
    printed.print(table)
    exact = sum(each["exact"] for each in summary["results"])
    note = f"; {exact} perfect images, of infinite PSNR, are left out of the means" if exact else ""
    rate = summary["images_per_second"]
    printed.print(
        f"{summary['images']:,} images{'' if rate is None else f', {rate:.3g} images/s over all'}{note}", soft_wrap=True
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _pooling(value: str) -> tuple[int, int]:
    """Kernel and stride of ``3/2``."""
    try:
        kernel, stride = (int(part) for part in value.split("/"))
    except ValueError:
        raise CallError(f"--pool is a kernel and a stride, as 3/2, not '{value}'") from None
    return kernel, stride


def _bounded(net: Network, layer: str, item: Item, budget: float | None, seed: int, output: Path) -> dict[str, Any]:
    """The bounds on one image, what was rebuilt of it, and the figure of both."""
    from reconstruct.bounds import layer_bounds
    from reconstruct.images import save_image, write_png
    from reconstruct.inversion.pooled import rebuild
    from reconstruct.metrics import quality
    from reconstruct.report.figures import Panel, pooling_bounds

    image = item.picture[None].to(net.mean.device)
    trained, random = (layer_bounds(net, image, layer, random=each) for each in (None, seed))
    panels, rebuilt = [], {}
    for known, found in rebuild(net, image, layer, budget=budget):
        judged = quality(image, found.images)
        target = output / f"{item.stem}.{net.name}.{layer}.{known}.png"
        save_image(found.images[0], target)
        rebuilt[known] = {
            "psnr": judged.psnr[0],
            "ssim": judged.ssim[0],
            "status": found.status[0],
            "forward_passes": found.forward_passes[0],
            "output": str(target),
        }
        panels.append(Panel(found.images[0], known, f"{judged.psnr[0]:.1f} dB, SSIM {judged.ssim[0]:.3f}"))
    figure = output / f"{item.stem}.{net.name}.{layer}.bounds.png"
    write_png(pooling_bounds(trained, random, Panel(item.picture, "original", item.stem), panels), figure)
    return {
        "image": item.name,
        "model": net.name,
        "layer": layer,
        **trained.summary(),
        "random_filters": random.summary(),
        "rebuilt": rebuilt,
        "device": str(image.device),
        "figure": str(figure),
    }


def _strict(record: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: the PSNR of a perfect image is null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in record.items()
    }


@contextmanager
def _busy(what: str, silent: bool) -> Iterator[None]:
    if silent or not notes.is_terminal:
        yield
    else:
        with notes.status(what):
            yield


def _teach(photographs: Path, folder: Path, count: int, made: dict[str, Any], quiet: bool) -> Path:
    """Crops of photographs with a teacher's answers, made where they are not there yet."""
    from reconstruct.training import loop
    from reconstruct.training.distill import load_teacher, make_crops

    if loop.processes()[0] > 0:
        loop.wait()  # until process 0 has made them
        return folder
    with _progress(count, quiet, "asking the teacher") as advance:
        make_crops(
            photographs, folder,
            count=count, side=made["side"], teacher=load_teacher(made["teacher"], made["device"]),
            mixed=made["mixed"], seed=made["seed"], precision=made["precision"], device=made["device"], advance=advance,
        )  # fmt: skip
    loop.wait()
    return folder


def _schedule(value: str | None) -> dict[str, Any]:
    """``cosine``, or the epochs of a stepwise schedule."""
    if value is None or value == "cosine":
        return {} if value is None else {"schedule": value}
    try:
        return {"schedule": "steps", "drops": tuple(float(epoch) for epoch in value.split(",") if epoch.strip())}
    except ValueError:
        raise CallError(f"--schedule is 'cosine' or epochs with commas, not '{value}'") from None


@contextmanager
def _training(quiet: bool) -> Iterator[tuple[Callable[[str], None], Callable[[Any], None]]]:
    """A bar with the loss, the learning rate and the speed; a line a validation, or where there is no bar a minute.

    Gives what is to be told that a run begins, and its progress.
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

        def report(now: Any) -> None:
            nonlocal said
            text = f"loss {now.loss:.3f}  rate {now.learning_rate:.2g}  {now.images_per_second:.0f} images/s"
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
    """How each run ended, and the model that it wrote."""
    for name, trained in found.items():
        held = next((row[-1] for row in reversed(trained.rows) if row[-1] is not None), None)
        text = f"{name}{': ' if name else ''}{trained.status} after {trained.steps} steps, loss {trained.loss:.4g}"
        printed.print(text if held is None else f"{text}, error held out {held:.2%}", soft_wrap=True)
        printed.print(f"model: {output / name / model}.toml", soft_wrap=True, markup=False)
    if "single" in found and found["single"].status != "reached":
        notes.print("single did not come down to the loss of held_out in twice its epochs", soft_wrap=True)


def _rate_table(record: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("model", overflow="fold")
    soft = record["models"][0]["divergence"] is not None
    for heading in ("top-1 error", "top-5 error", *(["divergence"] if soft else [])):
        table.add_column(heading, justify="right")
    for each in record["models"]:
        last = [f"{each['divergence']:.4g}"] if soft else []
        table.add_row(each["model"], f"{each['top1']:.2%}", f"{each['top5']:.2%}", *last)
    if record["average"] is not None:
        rates = [
            f"{record['average'][rate]:.2%} ± {record['average'][f'{rate}_standard_error']:.2%}"
            for rate in ("top1", "top5")
        ]
        table.add_row("average", *rates)
        table.add_row("vote", *(f"{record['vote'][rate]:.2%}" for rate in ("top1", "top5")))
    printed.print(table)
    what = "the teacher's first choice" if soft else "the labels"
    crops = "the centre crop" if record["crops"] == 1 else "10 crops"
    printed.print(f"{record['pictures']:,} pictures against {what}, {crops}", soft_wrap=True)


@contextmanager
def _progress(total: int | None, silent: bool, what: str = "reconstructing") -> Iterator[Callable[[int], None]]:
    """A bar on standard error, where that is a terminal."""
    if silent or not notes.is_terminal:
        yield lambda steps: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    columns = (what, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=notes, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda steps: bar.advance(task, steps)


def _table(records: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("image", "layer", "method"):
        table.add_column(heading, overflow="fold")
    for heading in ("PSNR dB", "SSIM", "residual", "passes", "seconds"):
        table.add_column(heading, justify="right")
    table.add_column("status")
    for record in records:
        table.add_row(
            Path(record["image"]).name,
            record["layer"],
            record["method"],
            f"{record['psnr']:.1f}",
            f"{record['ssim']:.3f}",
            f"{record['feature_residual']:.2g}",
            f"{record['forward_passes']:.0f}",
            f"{record['seconds'] + record['prepare_seconds']:.1f}",
            record["status"],
        )
    printed.print(table)


def _bounds_table(records: list[dict[str, Any]]) -> None:
    from rich.table import Table

    # Means over the regions, then the images that were rebuilt.
    table = Table(box=None, pad_edge=False, caption="PSNR in dB from switches on", caption_justify="right")
    table.add_column("image", overflow="fold")
    for heading in ("ratio", "random", "error", "bound", "model", "violations", "regions"):
        table.add_column(heading, justify="right")
    for known in records[0]["rebuilt"]:
        table.add_column(known, justify="right")
    for record in records:
        random = record["random_filters"]
        table.add_row(
            Path(record["image"]).name,
            *(
                _mean(of[name])
                for of, name in (
                    (record, "reconstruction_ratio"),
                    (random, "reconstruction_ratio"),
                    (record, "relative_error"),
                    (record, "bound_measured"),
                    (record, "bound_model"),
                )
            ),
            str(record["violations"] + random["violations"]),
            str(record["regions"]),
            *(f"{each['psnr']:.1f}" for each in record["rebuilt"].values()),
        )
    printed.print(table)


def _mean(found: dict[str, float | None]) -> str:
    return "-" if found["mean"] is None else f"{found['mean']:.3f}"


def _model_table(listed: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("model", "base", "parameters", "weights", "source"):
        table.add_column(heading, justify="right" if heading == "parameters" else "left", overflow="fold")
    for each in listed:
        weights = "yes" if each["weights"] else "no"
        table.add_row(each["name"], each["base"] or "", f"{each['parameters']:,}", weights, each["source"])
    printed.print(table)


def _layer_table(described: dict[str, Any]) -> None:
    from rich.table import Table

    from reconstruct.network import KINDS

    size = described["input_size"]
    printed.print(f"{described['name']}: {described['source']}", soft_wrap=True, markup=False)
    weights = Path(described["weights"]).name if described["weights"] else "none"
    printed.print(f"input {size} x {size}, {described['parameters']:,} parameters without biases, weights: {weights}")
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("layer", "kernel", "activation"):
        table.add_column(heading, no_wrap=True)
    for heading in ("features", "field", "weights", "unknowns", "equations", "frame bounds", "condition", "lost"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in described["layers"]:
        bounds = layer["frame_bounds"]
        table.add_row(
            layer["name"],
            f"{layer['kernel']}x{layer['kernel']}/{layer['stride']}",
            layer["activation"] or KINDS[layer["kind"]],
            "x".join(map(str, layer["output_shape"])),
            f"{layer['receptive_field']}",
            f"{layer['parameters']:,}",
            f"{layer['unknowns']:,}",
            f"{layer['equations']:,}",
            "" if bounds is None else f"{bounds[0]:.1e} {bounds[1]:.1f}",
            "" if bounds is None else f"{layer['condition_number']:,.0f}",
            "" if bounds is None else f"{layer['dimensions_lost']:.0%}",
        )
    printed.print(table)
    if any(layer["frame_bounds"] for layer in described["layers"]):
        printed.print(
            "field: receptive field, pixels; frame bounds: smallest non-zero and largest squared singular value, on a "
            "torus; lost: share of the layer's input dimensions that its responses do not determine",
            soft_wrap=True,
        )
