"""Docstrings of this repository as numpydoc has them, for the site's reference.

Here an argument is described on its own line, ``size : height and width of the images``, because its type is in the
signature; numpydoc has a type there, and the description below, indented. What is returned is one text.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

SECTION = re.compile(r"^(Parameters|Attributes|Raises|Returns|Yields|Examples)\n-{3,}\n", flags=re.MULTILINE)
WHOLE = ("Returns", "Yields")
ITEM = re.compile(r"^(?P<names>\*{0,2}\w+(?:, \*{0,2}\w+)*) : (?P<text>.*)$")


def as_numpydoc(text: str) -> str:
    """A docstring with its sections rewritten; paragraphs that stand between or behind them come before them."""
    before, *rest = SECTION.split(text)
    prose, sections = [before.strip()], []
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        if title == "Examples":
            sections.append(f"Examples\n--------\n{body.strip()}")
            continue
        items, *paragraphs = body.strip("\n").split("\n\n")
        while paragraphs and ITEM.match(paragraphs[0]):
            items += "\n" + paragraphs.pop(0)
        prose += paragraphs
        sections.append(f"{title}\n{'-' * len(title)}\n{_returned(items) if title in WHOLE else _items(items)}")
    return "\n\n".join([*prose, *sections])


def _items(body: str) -> str:
    lines: list[str] = []
    for line in body.split("\n"):
        found = ITEM.match(line)
        lines += [found["names"], f"    {found['text']}"] if found else [line]
    return "\n".join(lines)


def _returned(body: str) -> str:
    """One text without a name; its type is the signature's."""
    return ":\n" + "\n".join(f"    {line.strip()}" for line in body.split("\n"))


class Docstrings(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_numpydoc(obj.docstring.value)
