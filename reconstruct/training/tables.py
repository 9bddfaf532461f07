"""Tables 1, 2, 4 and 6 of Shang et al. 2016 on data that is at hand: trains what is missing, and gives every cell.

A network's cells of a table are done when they are written (``OUTPUT/MODEL/table1.json``); before that the same call
goes on with its runs where they were stopped. Tables of the same data lie in one folder, and share its networks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch

from reconstruct.errors import CallError
from reconstruct.images.atomic import write_atomically
from reconstruct.network.architecture import Architecture
from reconstruct.network.network import Network
from reconstruct.training import runs
from reconstruct.training.classification import class_scores, judge
from reconstruct.training.data import Augmentation, Part, Pictures
from reconstruct.training.loop import Progress, Recipe, processes, wait
from reconstruct.training.records import a_count, a_number, read_record
from reconstruct.zoo.load import load_network
from reconstruct.zoo.paper_cells import CLASSES, ROWS, Cell, PaperRow, cell
from reconstruct.zoo.specification import read_architecture

TABLES = (1, 2, 4, 6)
SETTINGS = "tables.json"

Call = tuple[Architecture, Pictures, Recipe, Augmentation]
"""What ``runs.train`` is called with first: a network, its pictures, its recipe and what it sees of each picture."""


class Standing(NamedTuple):
    """How far a table is: cells done, of how many, and about how many seconds the rest takes; None: not known yet."""

    done: int
    cells: int
    left: float | None


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
    correlate: Callable[[Network, Sequence[PaperRow]], list[Cell]],
    models: list[str] | None = None,
    seed: int = 0,
    began: Callable[[str], None] = lambda _: None,
    done: Callable[[Standing], None] = lambda _: None,
    report: Callable[[Progress, Standing], None] = lambda *_: None,
    **options: Any,
) -> list[Cell]:
    """Every cell of a table on this data, network by network.

    Parameters
    ----------
    number : one of ``TABLES``.
    train, test : the pictures to learn from and to classify, as many as the trial has, of as many classes as one of the
        table's data sets has.
    folder : a folder for each network is made in it.
    correlate : gives the cells of rows of Table 6 from the trained network (``analysis.crelu.correlation.table_6``).
    models : the networks to have; default all of the table's.
    began : told the name of each run as it begins.
    done : told after each network how far the table is.
    report : told the same with the progress of each run.
    options : ``device``, ``workers``, ``precision`` and ``save_seconds`` of ``runs.train``.

    Raises
    ------
    CallError : there is no such table, it has no data set of so many classes or no such network, the folder has tables
        of other data or another trial, or as in ``runs.train``.
    """
    rows = table_rows(number, len(train.classes), models)
    how = {"classes": train.classes, "pictures": len(train), "test": len(test), "seed": seed}
    _same_settings(folder, how | asdict(trial))
    calls = {row.model: _call(row, train, trial) for row in rows}
    work = _Work({model: _costs(number, call, trial) for model, call in calls.items()})
    found: list[Cell] = []
    total = sum(len(row.cells) for row in rows)

    def told(run: str) -> None:
        work.begin(model)
        began(f"{model} {run}".strip())

    def reported(now: Progress) -> None:
        work.report(model, now, _multiplications(calls[model]))
        report(now, Standing(len(found), total, work.seconds))

    options["report"] = reported
    for model, call in calls.items():
        own = [row for row in rows if row.model == model]
        record = _record(folder, number, model)
        if not record.is_file():
            if number in (1, 2):
                cells = _cross_validated(own[0], call, test, folder / model, trial, seed, told, options)
            else:
                cells = _one_network(own, call, test, folder / model, seed, told, options, correlate)
            if processes()[0] == 0:
                write_atomically(record, json.dumps([each._asdict() for each in cells]).encode())
            wait()
        work.end(model)
        found += _read_cells(record)
        done(Standing(len(found), total, work.seconds))
    return found


def table_rows(number: int, classes: int, models: list[str] | None = None) -> list[PaperRow]:
    """The rows of a table on the data set with so many classes, of these networks or of all.

    Raises
    ------
    CallError : there are none.
    """
    data = CLASSES.get(classes)
    rows = [row for row in ROWS if row.table == number and row.data == data]
    if not rows or number not in TABLES:
        known = sorted({(row.table, row.data) for row in ROWS if row.table in TABLES})
        has = ", ".join(f"{table} on {name}" for table, name in known)
        raise CallError(f"there is no Table {number} on {classes} classes; there are {has}")
    has = ", ".join(dict.fromkeys(row.model for row in rows))
    for model in models or []:
        if model not in (row.model for row in rows):
            raise CallError(f"Table {number} has no {model}; it has {has}")
    return [row for row in rows if models is None or row.model in models]


def made_cells(folder: Path, classes: int) -> list[Cell]:
    """Every cell that lies in a folder, of all tables of the data set with so many classes, in the paper's order."""
    made = dict.fromkeys((row.table, row.model) for row in ROWS if row.data == CLASSES.get(classes))
    records = [_record(folder, number, model) for number, model in made if number in TABLES]
    return [each for record in records if record.is_file() for each in _read_cells(record)]


def trained_network(folder: Path, cells: Sequence[Cell], model: str) -> str:
    """The file of a network that a table's cells are of, below the table's folder; of Tables 1 and 2 the single one."""
    single = any(each.table in (1, 2) for each in cells if each.model == model)
    (found,) = runs.trained_models(str(folder / model / "alone" / "single" if single else folder / model))
    return found


class _Work:
    """What is left to train, in multiplications, and how fast they go by.

    Parameters
    ----------
    costs : of each model's runs, in the order in which they come.
    """

    def __init__(self, costs: dict[str, list[float]]) -> None:
        self.costs = costs
        self.left = {model: sum(runs) for model, runs in costs.items()}
        self.begun = dict.fromkeys(costs, 0)
        self.rate: float | None = None

    def begin(self, model: str) -> None:
        """The model's next run begins: those before it are done."""
        self.begun[model] += 1
        self.left[model] = sum(self._runs(model))

    def report(self, model: str, now: Progress, multiplications: float) -> None:
        """The run that began last is as far as this; a picture costs it so many multiplications."""
        here, *others = self._runs(model)
        self.left[model] = here * (1 - now.step / now.steps) + sum(others)
        self.rate = now.images_per_second * multiplications

    def end(self, model: str) -> None:
        """All of the model's runs are done."""
        self.left[model] = 0.0

    @property
    def seconds(self) -> float | None:
        """How long the rest takes at the speed of the last report; None before the first."""
        return sum(self.left.values()) / self.rate if self.rate else None

    def _runs(self, model: str) -> list[float]:
        return self.costs[model][self.begun[model] - 1 :]


def _costs(number: int, call: Call, trial: Trial) -> list[float]:
    """What a network's runs cost at most, in their order, in multiplications of its forward passes."""
    _, pictures, recipe, _ = call
    whole = _multiplications(call) * recipe.epochs * len(pictures)
    if number not in (1, 2):
        return [whole]
    # Of the single network the first has a tenth held out, and the second may take twice the epochs.
    return [0.9 * whole, 2 * whole, *[whole * (trial.folds - 1) / trial.folds] * trial.folds]


def _multiplications(call: Call) -> float:
    architecture, _, _, augment = call
    return sum(architecture.multiplications(architecture.layers[-1].name, (augment.side, augment.side)).values())


def _call(row: PaperRow, train: Pictures, trial: Trial) -> Call:
    """A row's network and how it is trained."""
    architecture = read_architecture(row.model)
    name = runs.recipe_for(architecture, train)
    recipe = trial.recipe(runs.RECIPES[name])
    if row.table in (4, 6):
        # The paper chose this network to avoid batch normalisation.
        recipe = replace(recipe, batch_norm=False, warmup=0.1 * recipe.epochs / 22.5)
    return architecture, train, recipe, runs.augmentation_for(architecture, train, shift=runs.SHIFTS.get(name, 0))


def _one_network(
    rows: list[PaperRow],
    call: Call,
    test: Pictures,
    folder: Path,
    seed: int,
    began: Callable[[str], None],
    options: dict[str, Any],
    correlate: Callable[[Network, Sequence[PaperRow]], list[Cell]],
) -> list[Cell]:
    """Train a network of Tables 4 and 6 as far as it is not; its cells of one of them."""
    began("")
    runs.train(*call, folder, seed=seed, **options)
    if processes()[0]:
        return []
    names = runs.trained_models(str(folder))
    if rows[0].table == 6:
        return correlate(load_network(names[0]), rows)
    centre, ten = (_judged(names, test, call[3], crops, options)["models"][0] for crops in (1, 10))
    values = {"top1": centre["top1"], "top5": centre["top5"], "top1_ten": ten["top1"], "top5_ten": ten["top5"]}
    return _cells(rows[0], values, {}, {column: len(test) for column in values})


def _cross_validated(
    row: PaperRow,
    call: Call,
    test: Pictures,
    folder: Path,
    trial: Trial,
    seed: int,
    began: Callable[[str], None],
    options: dict[str, Any],
) -> list[Cell]:
    """Train a row's networks of Tables 1 and 2 as far as they are not, and classify."""
    _, train, _, augment = call
    runs.train_single(*call, folder / "alone", seed=seed, began=began, **options)
    runs.train_folds(*call, folder / "folds", count=trial.folds, seed=seed, began=began, **options)
    if processes()[0]:
        return []
    single = runs.trained_models(str(folder / "alone" / "single"))
    several = _judged(runs.trained_models(str(folder / "folds")), test, augment, 1, options)
    values = {
        "single": _judged(single, test, augment, 1, options)["models"][0]["top1"],
        "average": several["average"]["top1"],
        "vote": several["vote"]["top1"],
    }
    if "train" in row.cells:
        values["train"] = _judged(single, train, augment, 1, options)["models"][0]["top1"]
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
    """A row's cells in the paper's order, error rates of so many pictures."""
    shares = {column: values[column] for column in row.cells}
    by_share = {column: math.sqrt(share * (1 - share) / pictures[column]) for column, share in shares.items()}
    return [cell(row, each, share, (by_share | errors)[each], pictures[each]) for each, share in shares.items()]


def _record(folder: Path, number: int, model: str) -> Path:
    return folder / model / f"table{number}.json"


def _same_settings(folder: Path, how: dict[str, Any]) -> None:
    """Refuse a folder with tables of other data or of another trial; write down what these are."""
    path = folder / SETTINGS
    if path.is_file():
        was: Any = read_record(path, lambda found: found)
        if was != how:
            changed = [key for key in how if not isinstance(was, dict) or was.get(key) != how[key]]
            raise CallError(f"{folder} holds tables of another call ({', '.join(changed)} differ); name another folder")
    wait()
    if processes()[0] == 0:
        write_atomically(path, json.dumps(how).encode())


def _read_cells(path: Path) -> list[Cell]:
    return read_record(path, lambda found: [_checked(Cell(**each)) for each in found], "delete it, and it is made anew")


def _checked(made: Cell) -> Cell:
    """A cell whose numbers are numbers and whose names are words.

    Raises
    ------
    ValueError, TypeError, OverflowError : they are none.
    """
    for value in (made.value, made.standard_error, made.paper):
        a_number(value)
    for spread in (made.deviation, made.paper_spread):
        if spread is not None:
            a_number(spread)
    for count in (made.table, made.number):
        a_count(count, 1 << 40)
    if not all(isinstance(name, str) for name in (made.data, made.row, made.model, made.column)):
        raise ValueError("its names are no words")
    return made
