"""Draws the folders of ``reconstruct`` as ``docs/figures/folders.svg``: ``python docs/folders.py``.

``tests/test_architecture.py`` holds the picture against the tree, and the tree's imports against the order drawn here.
"""

from __future__ import annotations

from pathlib import Path

PICTURE = Path(__file__).parent / "figures" / "folders.svg"

FOLDERS: list[dict[str, str]] = [
    {"commands/": "a module for each command: it parses, calls and prints"},
    {"app/": "the interactive page"},
    {"report/": "figures and pages of results"},
    {
        "evaluation/": "whole sets of images",
        "training/": "training, classifying",
        "analysis/": "the papers' analyses",
    },
    {"inversion/": "features back to images: a module for each method"},
    {"zoo/": "models by name: specifications, weights, other formats"},
    {"prior/": "photographs as a Gaussian, and what a network makes of them"},
    {"solvers/": "least squares, conjugate gradients, L-BFGS; they know no network"},
    {"operators/": "layers as linear maps, with adjoints and Jacobians"},
    {"images/": "pictures, features and sets of images in files; their quality"},
    {"network/": "what a network is: layers, features, shapes"},
    {
        "errors.py": "raised",
        "version.py": "",
        "extras.py": "options",
        "threads.py": "",
        "user_function.py": "",
    },
]
"""From top to bottom: each imports what is below it. Neighbours in a row do not import each other."""

WIDTH, ROW, GAP, LEFT = 760, 34, 6, 34
INK, SOFT, LINE = "#222222", "#666666", "#8a94a6"
FILLS = {"inversion/": "#dbe7ff", "solvers/": "#e5f3e3", "operators/": "#e5f3e3", "prior/": "#e5f3e3"}
FONT = "font-family='system-ui, Helvetica, Arial, sans-serif'"


def folders_picture() -> str:
    """The whole picture as SVG text. It loads nothing, and its background is white in dark mode, too."""
    height = len(FOLDERS) * (ROW + GAP) + GAP
    drawn = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' height='{height}' "
        "role='img' aria-label='The folders of reconstruct, from commands down to errors'>",
        f"<rect width='{WIDTH}' height='{height}' fill='white'/>",
        f"<path d='M17 {2 * GAP}V{height - 3 * GAP}m-5 -8l5 10l5 -10' fill='none' stroke='{LINE}' stroke-width='2'/>",
        f"<text transform='translate(11 {height // 2}) rotate(-90)' text-anchor='middle' {FONT} font-size='11' "
        f"fill='{SOFT}'>imports run downwards only</text>",
    ]
    for number, row in enumerate(FOLDERS):
        top = GAP + number * (ROW + GAP)
        width = (WIDTH - LEFT - GAP - (len(row) - 1) * GAP) / len(row)
        for place, (name, what) in enumerate(row.items()):
            left = LEFT + place * (width + GAP)
            drawn.append(
                f"<rect x='{left:.0f}' y='{top}' width='{width:.0f}' height='{ROW}' rx='5' "
                f"fill='{FILLS.get(name, '#f3f4f6')}' stroke='{LINE}'/>"
                f"<text x='{left + 10:.0f}' y='{top + 22}' {FONT} font-size='13' fill='{INK}'>"
                f"<tspan font-weight='600'>{name}</tspan>"
                f"<tspan dx='8' fill='{SOFT}' font-size='12'>{what}</tspan></text>"
            )
    return "\n".join([*drawn, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(folders_picture())
