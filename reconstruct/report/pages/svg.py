"""Figures as SVG elements that take the colours of the page they stand in.

Colours are drawn as stand-ins and replaced by the page's CSS variables, so that a chart follows dark mode. Text stays
text.
"""

from __future__ import annotations

import io
import re
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = 8
"""The page has that many colours for methods or runs: --c0 to --c7."""
INK, SOFT, LINE = "#010203", "#040506", "#070809"
VARIABLES = {INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)"} | {
    f"#0a0b{number:02x}": f"var(--c{number})" for number in range(COLOURS)
}


def colour_of(number: int) -> str:
    """The stand-in of a method's or run's colour."""
    return f"#0a0b{number % COLOURS:02x}"


def as_svg(figure: Figure, description: str) -> str:
    """The figure as an element of a page."""
    from markupsafe import escape
    from matplotlib import rc_context

    buffer = io.StringIO()
    # The salt makes the names of clips and markers, so that a chart has the same ones every time.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": description}), warnings.catch_warnings():
        # Text stays text: the page's fonts draw it, and not the one that matplotlib measures it by.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        figure.savefig(
            buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    drawn = buffer.getvalue()
    width, height = (float(each) for each in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn)[0])
    drawn = drawn[drawn.index(">", drawn.index("<svg")) + 1 :]
    drawn = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style type.*?</style>", "", drawn, flags=re.DOTALL)
    # Groups' names are alike in every chart; nothing refers to them.
    drawn = re.sub(r'<g id="[^"]*"', "<g", drawn).replace("xlink:href=", "href=")
    # The page's own fonts.
    drawn = re.sub(r"font-family: [^;\"]*;? ?", "", drawn)
    drawn = re.sub(r"font: (?:(\w+) )?([\d.]+)px [^;\"]*", lambda found: _font(found[1], found[2]), drawn)
    drawn = re.sub(r' d="[^"]*"', lambda found: re.sub(r"(\.\d)\d+", r"\1", found[0]).replace("\n", ""), drawn)
    drawn = re.sub(r">\s+<", "><", drawn)
    for stand_in, variable in VARIABLES.items():
        drawn = drawn.replace(stand_in, variable)
    return (
        f'<svg class="chart" role="img" aria-label="{escape(description)}" viewBox="0 0 {width:g} {height:g}">' + drawn
    )


def _font(weight: str | None, size: str) -> str:
    return f"font-size: {size}px" + ("; font-weight: 600" if weight else "")
