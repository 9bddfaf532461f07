"""``reconstruct tables``: a table of the paper's, trained and classified on one's own data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reconstruct.commands.common import device_of
from reconstruct.commands.options import Device, Quiet
from reconstruct.commands.terminal import busy, notes, print_json, printed
from reconstruct.commands.train import per_cent, training_bar
from reconstruct.errors import CallError

if TYPE_CHECKING:
    from reconstruct.training.tables import Cell

PARQUET, PAGE = "tables.parquet", "tables.html"


def tables(
    data: Annotated[Path, typer.Argument(help="Folder with training and test pictures: CIFAR's files, or ImageNet.")],
    table: Annotated[int, typer.Option(help="1, 2 or 4.")],
    output: Annotated[Path, typer.Option(help="Folder of the runs, of tables.parquet and of tables.html.")],
    models: Annotated[str | None, typer.Option(help="Only these rows: the zoo's names, with commas.")] = None,
    epochs: Annotated[float | None, typer.Option(help="For a trial: of each network, the schedule as well.")] = None,
    subset: Annotated[int | None, typer.Option(help="For a trial: so many pictures.", min=2)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures a step, of all processes together.", min=1)] = None,
    folds: Annotated[int, typer.Option(help="Networks of the average and the vote.", min=2)] = 10,
    workers: Annotated[int, typer.Option(help="Processes that read pictures.", min=0)] = 0,
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    device: Device = "auto",
    seed: Annotated[int, typer.Option(help="Seed of whatever is random.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array on standard output.")] = False,
    quiet: Quiet = False,
) -> None:
    """Train the networks of Table 1, 2 or 4 and print their errors beside the paper's; the same call goes on.

    Under torchrun the processes share each batch.
    """
    silent = quiet or as_json
    with busy("loading", silent):
        from reconstruct.report.pages.table import HEADINGS
        from reconstruct.report.pages.write import write_table
        from reconstruct.training import loop
        from reconstruct.training.data import load_pictures
        from reconstruct.training.tables import Trial, make_table

        where = device_of(device, needs_cupy=False)
        rank, _ = loop.processes()
        silent = silent or rank > 0
        train, test = load_pictures(data), load_pictures(data, "test")
        if train.classes != test.classes:
            raise CallError(f"the training and the test pictures of {data} have other classes")
        trial = Trial(epochs, subset, batch_size, folds)

    def done(cells: int, total: int, left: float) -> None:
        if not silent:
            rest = f", about {left / 3600:.1f} hours left" if 0 < cells < total and left else ""
            notes.print(f"{cells} of {total} cells done{rest}", soft_wrap=True)

    with training_bar(silent) as (began, report):
        cells = make_table(
            table, train, test, output,
            trial=trial, models=None if models is None else [each.strip() for each in models.split(",")], seed=seed,
            began=began, done=done, device=where, workers=workers, precision=precision, report=report,
        )  # fmt: skip
    if rank == 0:
        settings = {
            "data": str(data),
            "training pictures": f"{len(trial.pictures(train, seed)):,}",
            "test pictures": f"{len(trial.pictures(test, seed)):,}",
            "epochs": "as the recipes have them" if epochs is None else f"{epochs:g}",
            "folds": str(folds),
            "seed": str(seed),
        }
        _write_parquet(cells, output / PARQUET)
        write_table(cells, settings, output / PAGE)
    loop.leave()
    if as_json and rank == 0:
        print_json([each._asdict() for each in cells])
    elif not silent:
        _print(cells, HEADINGS)
        printed.print(f"page: {output / PAGE}", soft_wrap=True)


def _write_parquet(cells: list[Cell], path: Path) -> None:
    """One row a cell, by the names of ``Cell``."""
    import io

    import pyarrow
    import pyarrow.parquet

    from reconstruct.images.atomic import write_atomically

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([each._asdict() for each in cells]), buffer)
    write_atomically(path, buffer.getvalue())


def _print(cells: list[Cell], headings: dict[str, str]) -> None:
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    for heading in ("row", "column", "error", "paper"):
        shown.add_column(heading, justify="right" if heading in ("error", "paper") else "left")
    for each in cells:
        texts = per_cent(each.error, each.standard_error), per_cent(each.paper, each.paper_standard_error)
        shown.add_row(each.row, headings[each.column], *texts)
    printed.print(shown)
