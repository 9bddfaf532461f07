"""Tables 1, 2 and 4 of Shang et al. 2016 on data that is at hand: trains what is missing, and gives every cell.

A network's row is done when its cells are written (``OUTPUT/MODEL/cells.json``); before that the same call goes on with
its runs where they were stopped.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch

from reconstruct.errors import CallError
from reconstruct.images.atomic import write_atomically
from reconstruct.network.architecture import Architecture
from reconstruct.training import runs
from reconstruct.training.classification import class_scores, judge
from reconstruct.training.data import Augmentation, Part, Pictures
from reconstruct.training.loop import Recipe, processes, wait
from reconstruct.training.paper_cells import CLASSES, ROWS, PaperRow
from reconstruct.zoo.load import load_network
from reconstruct.zoo.specification import read_architecture

CELLS, TABLE = "cells.json", "table.json"


class Cell(NamedTuple):
    """A cell of a table, shares from 0 to 1.

    Attributes
    ----------
    table, data, row, model, column : which cell it is, as in ``PaperRow``.
    error : the error rate here.
    standard_error : of an average, from its networks' rates; of others, that of a share of so many pictures.
    pictures : how many were classified.
    paper, paper_standard_error : what the paper prints.
    """

    table: int
    data: str
    row: str
    model: str
    column: str
    error: float
    standard_error: float
    pictures: int
    paper: float
    paper_standard_error: float | None


@dataclass(frozen=True)
class Trial:
    """How much of the paper's training a table is to have; as it stands, all.

    Attributes
    ----------
    epochs : of each network, in place of the recipe's; the schedule shrinks with them.
    subset : of how many training and test pictures, drawn at random; None: all.
    batch_size : in place of the recipe's.
    folds : of the cross-validation, the paper's 10.
    """

    epochs: float | None = None
    subset: int | None = None
    batch_size: int | None = None
    folds: int = 10

    def recipe(self, own: Recipe) -> Recipe:
        """A network's recipe for as many epochs."""
        share = 1 if self.epochs is None else self.epochs / own.epochs
        return replace(
            own,
            epochs=own.epochs * share,
            batch_size=self.batch_size or own.batch_size,
            warmup=own.warmup * share,
            halving=own.halving * share,
            drops=tuple(drop * share for drop in own.drops),
        )

    def pictures(self, pictures: Pictures, seed: int) -> Pictures:
        """As many pictures."""
        if self.subset is None or self.subset >= len(pictures):
            return pictures
        chosen = numpy.random.default_rng(seed).permutation(len(pictures))[: self.subset]
        return Part(pictures, numpy.sort(chosen))


def make_table(
    number: int,
    train: Pictures,
    test: Pictures,
    folder: Path,
    *,
    trial: Trial,
    models: list[str] | None = None,
    seed: int = 0,
    began: Callable[[str], None] = lambda _: None,
    done: Callable[[int, int, float], None] = lambda *_: None,
    **options: Any,
) -> list[Cell]:
    """Every cell of a table on this data, row by row.

    Parameters
    ----------
    number : 1, 2 or 4.
    train, test : the pictures to learn from and to classify, of as many classes as one of the table's data sets has.
    folder : a folder for each network is made in it.
    models : the networks to have; default all of the table's.
    began : told the name of each run as it begins.
    done : told after each row how many cells are done, of how many, and how many seconds the rest may take.
    options : ``device``, ``workers``, ``precision``, ``save_seconds`` and ``report`` of ``runs.train``.

    Raises
    ------
    CallError : there is no such table, it has no data set of so many classes or no such network, the folder has another
        table, or as in ``runs.train``.
    """
    rows = table_rows(number, len(train.classes), models)
    train, test = trial.pictures(train, seed), trial.pictures(test, seed)
    how = {"table": number, "classes": train.classes, "pictures": len(train), "test": len(test), "seed": seed}
    _same_table(folder, how | asdict(trial))
    found: list[Cell] = []
    began_at, trained = time.monotonic(), 0
    total = sum(len(_columns(row)) for row in rows)
    for row in rows:
        record = folder / row.model / CELLS
        if not record.is_file():
            cells = _row(row, train, test, folder / row.model, trial, seed, began, options)
            if processes()[0] == 0:
                write_atomically(record, json.dumps([each._asdict() for each in cells]).encode())
            wait()
            trained += len(_columns(row))
        found += _read_cells(record)
        left = (time.monotonic() - began_at) / trained * (total - len(found)) if trained else 0.0
        done(len(found), total, left)
    return found


def table_rows(number: int, classes: int, models: list[str] | None = None) -> list[PaperRow]:
    """The rows of a table on the data set with so many classes, of these networks or of all.

    Raises
    ------
    CallError : there are none.
    """
    data = CLASSES.get(classes)
    rows = [row for row in ROWS if row.table == number and row.data == data]
    if not rows:
        known = sorted({(row.table, row.data) for row in ROWS})
        has = ", ".join(f"{table} on {name}" for table, name in known)
        raise CallError(f"there is no Table {number} on {classes} classes; there are {has}")
    for model in models or []:
        if model not in (row.model for row in rows):
            raise CallError(f"Table {number} has no {model}; it has {', '.join(row.model for row in rows)}")
    return [row for row in rows if models is None or row.model in models]


def _columns(row: PaperRow) -> list[str]:
    return [column for column in row.cells if column != "standard_error"]


def _row(
    row: PaperRow,
    train: Pictures,
    test: Pictures,
    folder: Path,
    trial: Trial,
    seed: int,
    began: Callable[[str], None],
    options: dict[str, Any],
) -> list[Cell]:
    """Train a row's networks as far as they are not, and classify."""
    architecture = read_architecture(row.model)
    name = runs.recipe_for(architecture, train)
    recipe = trial.recipe(runs.RECIPES[name])
    augment = runs.augmentation_for(architecture, train, shift=runs.SHIFTS.get(name, 0))

    def told(run: str) -> None:
        began(f"{row.model} {run}".strip())

    def rates(names: list[str], pictures: Pictures, crops: int = 1) -> dict[str, Any]:
        return _judged(names, pictures, augment, crops, options)

    if row.table == 4:
        # The paper chose this network to avoid batch normalisation.
        recipe = replace(recipe, batch_norm=False, warmup=0.1 * recipe.epochs / 22.5)
        told("")
        runs.train(architecture, train, recipe, augment, folder, seed=seed, **options)
        if processes()[0]:
            return []
        centre, ten = (rates(runs.trained_models(str(folder)), test, crops)["models"][0] for crops in (1, 10))
        values = {"top1": centre["top1"], "top5": centre["top5"], "top1_ten": ten["top1"], "top5_ten": ten["top5"]}
        return _cells(row, values, {}, {column: len(test) for column in values})
    call: tuple[Architecture, Pictures, Recipe, Augmentation] = (architecture, train, recipe, augment)
    runs.train_single(*call, folder / "alone", seed=seed, began=told, **options)
    runs.train_folds(*call, folder / "folds", count=trial.folds, seed=seed, began=told, **options)
    if processes()[0]:
        return []
    single = runs.trained_models(str(folder / "alone" / "single"))
    several = rates(runs.trained_models(str(folder / "folds")), test)
    values = {
        "single": rates(single, test)["models"][0]["top1"],
        "average": several["average"]["top1"],
        "vote": several["vote"]["top1"],
    }
    if "train" in row.cells:
        values["train"] = rates(single, train)["models"][0]["top1"]
    errors = {"average": several["average"]["top1_standard_error"]}
    return _cells(row, values, errors, {each: len(train if each == "train" else test) for each in values})


def _judged(
    names: list[str], pictures: Pictures, augment: Augmentation, crops: int, options: dict[str, Any]
) -> dict[str, Any]:
    work = {key: options[key] for key in ("precision", "workers") if key in options}
    nets = ((name, load_network(name, device=options.get("device", "cpu"))) for name in names)
    seen: dict[str, Any] = {"side": augment.side, "resize": augment.resize, "crops": crops}
    scores = ((name, class_scores(net, pictures, **seen, **work)) for name, net in nets)
    return judge(scores, torch.from_numpy(numpy.array(pictures.targets)))


def _cells(row: PaperRow, values: dict[str, float], errors: dict[str, float], pictures: dict[str, int]) -> list[Cell]:
    """A row's cells in the paper's order."""
    found = []
    for column in _columns(row):
        share, count = values[column], pictures[column]
        own = row.cells["standard_error"] / 100 if column == "average" else None
        error = errors.get(column, math.sqrt(share * (1 - share) / count))
        found.append(
            Cell(row.table, row.data, row.row, row.model, column, share, error, count, row.cells[column] / 100, own)
        )
    return found


def _same_table(folder: Path, how: dict[str, Any]) -> None:
    """Refuse a folder of another table; write down what this one is."""
    path = folder / TABLE
    if path.is_file():
        try:
            was = json.loads(path.read_text())
        except ValueError as error:
            raise CallError(f"{path} cannot be read: {error}") from error
        if was != how:
            changed = [key for key in how if not isinstance(was, dict) or was.get(key) != how[key]]
            raise CallError(f"{folder} holds another table ({', '.join(changed)} differ); name another folder")
    wait()
    if processes()[0] == 0:
        write_atomically(path, json.dumps(how).encode())


def _read_cells(path: Path) -> list[Cell]:
    try:
        return [Cell(**each) for each in json.loads(path.read_text())]
    except (ValueError, TypeError) as error:
        raise CallError(f"{path} cannot be read: {error}; delete it, and it is made anew") from error
