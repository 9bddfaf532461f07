"""Whether the recipes train: every network of Tables 1, 2 and 4 of Shang et al. 2016, from its start, for some epochs.

    python -m benchmarks.recipes --output docs/recipes.json
    python -m benchmarks.recipes --models cifar_vgg --pictures 320 --batch-size 32 --learning-rate 0.005

The pictures are synthetic: CIFAR-10's size, mean and deviation, ten classes that can be learned (``tests/builders/
synthetic.py``); for Table 4 each pixel is doubled. Recipes are whole but for their length: rate, batch, warm-up,
clipping and start are what ``reconstruct tables`` has, at the networks' own widths and with their dropout. A row is
printed as its network ends; with ``--output`` those that lie there already are not trained again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from reconstruct.images.atomic import write_atomically
from reconstruct.training import runs
from reconstruct.training.data import Arrays
from reconstruct.training.loop import fit
from reconstruct.zoo.paper_cells import ROWS
from reconstruct.zoo.specification import read_architecture
from tests.builders.synthetic import cifar_like

SIDES = {1: 16, 2: 32, 4: 64}
"""Of each table's squares. The whole pictures of Table 1 would take four times as long, those of Table 4 twelve."""
HELD_OUT = 200


def data(table: int, count: int, seed: int) -> Arrays:
    """So many pictures."""
    images, labels = cifar_like(count, seed)
    if table == 4:
        images = images.repeat(2, axis=2).repeat(2, axis=3)
    return Arrays(images, labels, [f"class {number}" for number in range(10)])


def train(table: int, model: str, call: argparse.Namespace) -> dict[str, Any]:
    """One network's row."""
    architecture, pictures, held_out = read_architecture(model), data(table, call.pictures, 0), data(table, HELD_OUT, 1)
    name = runs.recipe_for(architecture, pictures)
    own = runs.RECIPES[name]
    recipe = replace(
        own,
        epochs=call.epochs,
        batch_size=call.batch_size or own.batch_size,
        learning_rate=call.learning_rate or own.learning_rate,
    )
    if table == 4:
        # As the paper has them; the warm-up is a tenth of an epoch of ImageNet: 2,000 steps, here one epoch.
        recipe = replace(recipe, batch_norm=False, warmup=1.0)
    augment = runs.augmentation_for(architecture, pictures, side=SIDES[table], shift=runs.SHIFTS.get(name, 0))
    net = runs.start(architecture, recipe, pictures, ica=None, seed=call.seed, device="cpu")
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        trained = fit(
            net,
            pictures,
            recipe,
            augment,
            Path(folder),
            validation=held_out,
            validate_every=max(1.0, call.epochs / 2),
            seed=call.seed,
            save_seconds=float("inf"),
        )
    losses = [row.loss for row in trained.rows]
    checks = [row for row in trained.rows if row.validation_error is not None]
    return {
        "table": table,
        "model": model,
        "recipe": name,
        "side": SIDES[table],
        "pictures": call.pictures,
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
        "epochs": recipe.epochs,
        "steps": trained.steps,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "losses": losses,
        "held_out_loss": [row.validation_loss for row in checks],
        "held_out_error": [row.validation_error for row in checks],
        "processor_seconds": time.process_time() - began,
    }


COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "network": lambda row: f"`{row['model']}`",
    "recipe": lambda row: str(row["recipe"]),
    "batch, rate": lambda row: f"{row['batch_size']}, {row['learning_rate']:g}",
    "steps": lambda row: str(row["steps"]),
    "loss, first 20 steps": lambda row: f"{row['first_loss']:.2f}",
    "last 20": lambda row: f"{row['last_loss']:.2f}",
    "error held out, half way": lambda row: f"{row['held_out_error'][0]:.1%}",
    "at the end": lambda row: f"{row['held_out_error'][-1]:.1%}",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", default="1,2,4")
    parser.add_argument("--models", help="some of the tables' networks; default all")
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--pictures", type=int, default=1280, help="to learn from")
    parser.add_argument("--batch-size", type=int, help="in place of the recipe's")
    parser.add_argument("--learning-rate", type=float, help="in place of the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="where rows are kept (JSON)")
    call = parser.parse_args()
    kept = json.loads(call.output.read_text()) if call.output and call.output.is_file() else []
    rows = {(row["table"], row["model"]): row for row in kept}
    wanted = [(table, row.model) for table in map(int, call.tables.split(",")) for row in ROWS if row.table == table]
    print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS))
    for table, model in dict.fromkeys(wanted):
        if call.models is not None and model not in call.models.split(","):
            continue
        if (table, model) not in rows:
            rows[table, model] = train(table, model, call)
            if call.output:
                write_atomically(call.output, json.dumps(list(rows.values()), indent=1).encode())
        print("| " + " | ".join(column(rows[table, model]) for column in COLUMNS.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
