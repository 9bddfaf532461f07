"""``reconstruct evaluate`` and ``reconstruct report``: whole sets of images, and the page of them."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from reconstruct.commands.common import device_of, methods_of, tell_other_size, tell_what_is_left_out
from reconstruct.commands.options import (
    Budget,
    Damping,
    Device,
    ImageSet,
    Layers,
    Limit,
    LinearForm,
    Methods,
    Model,
    Native,
    Noise,
    Quantise,
    Quiet,
    RandomWeights,
    Sample,
    Seed,
    SideOrArea,
    Split,
    Tap,
    Threads,
    Tolerance,
    area_of,
    check_disturbance,
    check_selection,
    check_size,
    damping_of,
    form_of,
)
from reconstruct.commands.terminal import busy, notes, number, printed, progress
from reconstruct.errors import CallError, ReconstructError

PICTURED = 25
"""Times the page's images of a kind that a set may have if pictures of all are made on the way. Of a larger set, to
invert those shown once more is less than an eighth of the work."""


def evaluate(
    images: ImageSet,
    model: Model,
    layer: Layers,
    output: Annotated[Path, typer.Option(metavar="RESULTS", help="Folder of the results; a run in it goes on.")],
    tap: Tap = None,
    method: Methods = "map",
    limit: Limit = None,
    sample: Sample = None,
    split: Split = "test",
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
    size: SideOrArea = None,
    native: Native = False,
    budget: Budget = None,
    tolerance: Tolerance = None,
    noise: Noise = 0.0,
    quantise: Quantise = None,
    random_weights: RandomWeights = None,
    device: Device = "auto",
    threads: Threads = None,
    gallery: Annotated[int, typer.Option(help="Worst, median and best images that the page shows of each.", min=0)] = 4,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try images again that failed before.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first image that fails.")] = False,
    save_seconds: Annotated[float, typer.Option(help="From one part of the rows to the next.", min=0)] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="The summary on standard output.")] = False,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Invert a whole set of images; rows as Parquet, a summary and a page. The same call goes on where it was stopped.

    Writes RESULTS/rows/*.parquet, run.json, summary.json and report.html. Images that cannot be read are rows with
    an error.
    """
    check_disturbance(noise, quantise)
    area = area_of(size)
    check_size(area, native)
    check_selection(limit, sample)
    if engine not in ("local", "ray"):
        raise CallError(f"--engine is local or ray, not '{engine}'")
    silent = quiet or as_json
    with busy("loading", silent):
        import torch

        from reconstruct.evaluation import results
        from reconstruct.evaluation import run as evaluation
        from reconstruct.evaluation.batch import Job
        from reconstruct.evaluation.batch import batch_size as size_by_memory
        from reconstruct.evaluation.provenance import begin_session, describe_run
        from reconstruct.images.files import picture_mode
        from reconstruct.images.sources import open_source, select
        from reconstruct.inversion.checks import check_limits
        from reconstruct.network.architecture import as_area
        from reconstruct.network.read_points import joints
        from reconstruct.report.pages.write import write_report
        from reconstruct.zoo.load import load_model

        check_limits(tolerance, budget)
        torch.manual_seed(seed)
        net = load_model(model, random_weights=random_weights, device=device_of(device))
        picture_mode(net.channels, net.name)  # not once for every picture of the set
        methods = methods_of(net, method, layer, tap, silent)
        if not silent:
            tell_other_size(net, area, native)
        if not (silent or noise or quantise):
            for at in joints(net, methods, tap):
                tell_what_is_left_out(at, [0.0] * len(at.parts))
        source = open_source(images, split)
        if source.left_out and not quiet:
            notes.print(f"{images}: {source.left_out}", soft_wrap=True)
        chosen = select(len(source.names), limit, sample, seed)
        job = Job(
            methods, area, native,
            options={
                "linear_form": form_of(linear_form), "damping": damping_of(damping), "budget": budget,
                "tolerance": tolerance, "seed": seed,
            },
            disturbance={"noise": noise, "quantise": quantise, "seed": seed},
            tap=tap,
        )  # fmt: skip
        rows_of, workers = _engine(engine, workers, address, cpus_per_worker, gpus_per_worker)
        together = _batch_size(batch_size) or size_by_memory(net, job, 1 if engine == "local" else workers)
        job = replace(
            job,
            pixels=together * math.prod(net.input_area if area is None else as_area(area)),
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
        with progress(None, silent, "pictures for the page") as pictured:
            summary = evaluation.finish(net, source, job, output, gallery, pictured)
        write_report([output], output / "report.html")
    _evaluated(output, summary, as_json, quiet)


def report(
    folders: Annotated[list[Path], typer.Argument(metavar="RESULTS...", help="Folders that evaluate wrote.")],
    output: Annotated[
        Path | None, typer.Option(help="The page; default RESULTS/report.html, of several comparison.html.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The numbers on standard output.")] = False,
) -> None:
    """One self-contained page of an evaluation; of several, their images' paired differences to the first."""
    from reconstruct.report.pages.write import numbers, write_report

    target = output or (folders[0] / "report.html" if len(folders) == 1 else Path("comparison.html"))
    write_report(folders, target)
    if as_json:
        print(json.dumps(numbers(folders), indent=2, allow_nan=False))
    else:
        printed.print(f"report: {target}", soft_wrap=True)


def _engine(
    name: str, workers: int | None, address: str | None, cpus: int, gpus: float | None
) -> tuple[Callable[..., Any], int]:
    """The engine that turns batches into rows, and how many workers it has."""
    from reconstruct.evaluation import ray_engine as cluster
    from reconstruct.evaluation import run as evaluation

    if name == "local":
        return partial(evaluation.local, workers=workers or 2), workers or 2
    workers, gpus = cluster.start(address, workers, cpus, gpus)
    return partial(cluster.on_ray, workers=workers, cpus=cpus, gpus=gpus), workers


def _evaluated(output: Path, summary: dict[str, Any], as_json: bool, quiet: bool) -> None:
    """Print the summary and where the page is, and warn of images that failed; the exit status is 1 only if all did."""
    from reconstruct.evaluation.results import first_error

    if as_json:
        print(json.dumps(summary, indent=2, allow_nan=False))
    elif not quiet:
        _summary_table(summary)
        printed.print(f"report: {output / 'report.html'}", soft_wrap=True)
    if summary["failed"]:
        notes.print(
            f"reconstruct: {summary['failed']} of {summary['images']} images failed: {first_error(output)}"
            f"{' ...' if summary['failed'] > 1 else ''}",
            soft_wrap=True,
        )  # fmt: skip
        if summary["failed"] == summary["images"]:
            raise typer.Exit(1)


def _batch_size(value: str) -> int | None:
    """The number of images that ``--batch-size`` names, or None for ``auto``."""
    if value == "auto":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise CallError(f"--batch-size is 'auto' or a number of images, not '{value}'")
    return int(value)


@contextmanager
def _interruptible(output: Path) -> Iterator[None]:
    """Keep what is done on Control-C and on the SIGTERM of schedulers, and tell the user how to go on."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        notes.print(f"stopped; the same call goes on in {output}", soft_wrap=True)
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
            f"{number(psnr['mean'], '.1f')} ± {number(psnr['std'], '.1f')}",
            number(psnr["median"], ".1f"),
            f"{number(psnr['p5'], '.1f')} to {number(psnr['p95'], '.1f')}",
            number(ssim["mean"], ".3f"),
            number(each["feature_residual"]["median"], ".2g"),
            number(each["forward_passes"]["mean"], ".0f"),
            number(each["images_per_second"], ".3g"),
        )
    printed.print(table)
    exact = sum(each["exact"] for each in summary["results"])
    note = f"; {exact} perfect images, of infinite PSNR, are left out of the means" if exact else ""
    rate = summary["images_per_second"]
    printed.print(
        f"{summary['images']:,} images{'' if rate is None else f', {rate:.3g} images/s over all'}{note}", soft_wrap=True
    )
