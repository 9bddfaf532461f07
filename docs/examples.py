"""Makes the page of examples, ``docs/examples.md``, and its pictures out of the scripts: ``make examples``.

A script's docstring is what the page says of it, and what it prints is the text that stands for its picture. So neither
can drift from the code; ``tests/test_examples.py`` runs every script again and compares.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "examples.md"
PICTURES = ROOT / "docs" / "figures" / "examples"
SCRIPTS = [
    ROOT / "examples" / f"{name}.py"
    for name in (
        "first_inversion",
        "methods_compared",
        "phases_of_crelu",
        "least_squares_with_scipy",
        "your_own_network",
        "your_own_method",
        "what_pooling_leaves",
        "noisy_features",
    )
]
"""In the order in which the page shows them."""

BEGINNING = """# Examples

Short scripts, each of which draws one picture in some ten seconds and needs nothing but this repository:

    .venv/bin/python examples/first_inversion.py --output pictures

What a script says of itself, and its picture, stand here (`make examples` writes this page). Numbers are PSNR.
"""


def section(script: Path, labels: str) -> str:
    """A script's part of the page: its docstring, its picture with the labels printed, and a link to the code."""
    docstring = ast.get_docstring(ast.parse(script.read_text())) or ""
    title, _, text = docstring.partition("\n\n")
    return "\n\n".join(
        [
            f"## {title.rstrip('.')}",
            text,
            f"![{labels}](figures/examples/{script.stem}.webp)",
            f"[`examples/{script.name}`](../examples/{script.name})",
        ]
    )


def labels_of(printed: str) -> str:
    """The labels of the panels as one text, out of what a script printed."""
    return "; ".join(line for line in printed.splitlines() if not line.startswith("written: "))


def labels_on(page: str) -> dict[str, str]:
    """The labels that the page has, by the script's name."""
    return {name: text for text, name in re.findall(r"^!\[(.+)\]\(figures/examples/(\w+)\.webp\)$", page, flags=re.M)}


def page_of(labels: dict[str, str]) -> str:
    """The whole page."""
    return "\n\n".join([BEGINNING.rstrip("\n"), *(section(each, labels[each.stem]) for each in SCRIPTS)]) + "\n"


def main() -> None:
    labels = {}
    for script in SCRIPTS:
        done = subprocess.run(
            [sys.executable, script, "--output", PICTURES], check=True, stdout=subprocess.PIPE, text=True
        )
        labels[script.stem] = labels_of(done.stdout)
        print(f"{script.name}: {labels[script.stem]}", flush=True)
    PAGE.write_text(page_of(labels))


if __name__ == "__main__":
    main()
