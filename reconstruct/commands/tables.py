"""``reconstruct tables``: a table of the paper's, trained and measured on one's own data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reconstruct.commands.common import device_of
from reconstruct.commands.options import Device, Quiet, Threads
from reconstruct.commands.table_figures import draw_figures
from reconstruct.commands.terminal import busy, notes, print_json, printed
from reconstruct.commands.train import tell_left_out, training_bar
from reconstruct.errors import CallError

if TYPE_CHECKING:
    from reconstruct.training.loop import Progress
    from reconstruct.training.tables import Standing
    from reconstruct.zoo.paper_cells import Cell

PARQUET, PAGE = "tables.parquet", "tables.html"


def tables(
    data: Annotated[Path, typer.Argument(help="Folder with training and test pictures: CIFAR's files, or ImageNet.")],
    table: Annotated[int, typer.Option(help="1, 2, 4 or 6.")],
    output: Annotated[Path, typer.Option(help="Folder of the runs, of tables.parquet and of tables.html.")],
    models: Annotated[str | None, typer.Option(help="Only these rows: the zoo's names, with commas.")] = None,
    epochs: Annotated[float | None, typer.Option(help="For a trial: of each network, the schedule as well.")] = None,
    subset: Annotated[int | None, typer.Option(help="For a trial: so many pictures.", min=2)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures a step, of all processes together.", min=1)] = None,
    folds: Annotated[int, typer.Option(help="Networks of the average and the vote.", min=2)] = 10,
    figure_pictures: Annotated[
        int, typer.Option(help="Test pictures that Figure 4 is measured on; 0: no Figures 3 and 4.", min=0)
    ] = 1000,
    workers: Annotated[int, typer.Option(help="Processes that read pictures.", min=0)] = 0,
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    device: Device = "auto",
    threads: Threads = None,
    seed: Annotated[int, typer.Option(help="Seed of whatever is random.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array on standard output.")] = False,
    quiet: Quiet = False,
) -> None:
    """Train the networks of Table 1, 2, 4 or 6 and print their cells beside the paper's; the same call goes on.

    The page has every table that was made in the folder, and Figures 3 and 4 on the networks trained. Under torchrun
    the processes share each batch.
    """
    silent = quiet or as_json
    with busy("loading", silent):
        from reconstruct.analysis.crelu.correlation import table_6
        from reconstruct.report.pages.write import write_table
        from reconstruct.training import loop
        from reconstruct.training.data import load_pictures
        from reconstruct.training.tables import Trial, made_cells, make_table

        where = device_of(device, needs_cupy=False)
        rank, _ = loop.processes()
        silent = silent or rank > 0
        train, test = load_pictures(data), load_pictures(data, "test")
        if train.classes != test.classes:
            raise CallError(f"the training and the test pictures of {data} have other classes")
        tell_left_out([(data, train), (data, test)], silent)
        trial = Trial(epochs, subset, batch_size, folds)
        train, test = trial.pictures(train, seed), trial.pictures(test, seed)

    def done(standing: Standing) -> None:
        if not silent:
            notes.print(_standing(standing), soft_wrap=True)

    rows = None if models is None else [each.strip() for each in models.split(",")]
    with training_bar(silent) as (began, told):

        def report(now: Progress, standing: Standing) -> None:
            told(now, f"  {_standing(standing)}")

        cells = make_table(
            table, train, test, output,
            trial=trial, correlate=table_6, models=rows, seed=seed, began=began, done=done, report=report, device=where,
            workers=workers, precision=precision,
        )  # fmt: skip
    if rank == 0:
        settings = {
            "data": str(data),
            "training pictures": f"{len(train):,}",
            "test pictures": f"{len(test):,}",
            "epochs": "as the recipes have them" if epochs is None else f"{epochs:g}",
            "folds": str(folds),
            "seed": str(seed),
        }
        made = made_cells(output, len(train.classes))
        _write_parquet(made, output / PARQUET)
        drawings = [
            drawing
            for number in dict.fromkeys(each.table for each in made if figure_pictures)
            for drawing in draw_figures(
                [each for each in made if each.table == number], test, output,
                count=figure_pictures, device=where, silent=silent,
            )
        ]  # fmt: skip
        write_table(made, settings, output / PAGE, drawings)
    loop.leave()
    if as_json and rank == 0:
        print_json([each._asdict() for each in cells])
    elif not silent:
        _print(cells)
        printed.print(f"page: {output / PAGE}", soft_wrap=True)


def _standing(standing: Standing) -> str:
    from reconstruct.report.pages.wording import duration

    text = f"{standing.done} of {standing.cells} cells done"
    if standing.left is None or standing.done == standing.cells:
        return text
    return f"{text}, about {duration(standing.left)} left"


def _write_parquet(cells: list[Cell], path: Path) -> None:
    """One row a cell, by the names of ``Cell``."""
    import io

    import pyarrow
    import pyarrow.parquet

    from reconstruct.images.atomic import write_atomically

    # Stated, lest a column in which all is missing has no type.
    kinds: dict[str, Any] = dict.fromkeys(("table", "number"), pyarrow.int64())
    kinds |= dict.fromkeys(("data", "row", "model", "column"), pyarrow.string())
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.float64())) for name in cells[0]._fields])
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([each._asdict() for each in cells], schema), buffer)
    write_atomically(path, buffer.getvalue())


def _print(cells: list[Cell]) -> None:
    from rich.table import Table

    from reconstruct.report.pages.table import HEADINGS, parts, texts

    shown = Table(box=None, pad_edge=False)
    number = cells[0].table
    for heading in ("layer" if number == 6 else "row", "column"):
        shown.add_column(heading)
    for heading in parts(number):
        shown.add_column(heading if number == 6 else f"{heading}, %", justify="right")
    for each in cells:
        shown.add_row(each.row, HEADINGS[each.column], *texts(each))
    printed.print(shown)
