"""Commands that belong together: what their help shows, and which command was meant where one is mistyped."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from typer.core import TyperGroup

from reconstruct.errors import CallError

NEXT = {
    "model": "'reconstruct models' lists those with weights first.",
    "layer": "'reconstruct models MODEL' lists a model's layers, and 'all' takes each that has weights.",
}
"""By a parameter that a call lacks, what tells its values."""


class Group(TyperGroup):
    """A group whose help has the first sentences of its commands whole."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write every command and what it is for, as long as that takes."""
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            assert command is not None
            rows.append((name, first_paragraph(command.help or "")))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; a call that lacks an option is told which command lists its values."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            lacking = getattr(getattr(error, "param", None), "name", None)
            if type(error).__name__ == "MissingParameter" and lacking in NEXT:
                error.message = NEXT[lacking]  # type: ignore[attr-defined]
            raise


def first_paragraph(text: str) -> str:
    """The first paragraph of a help text in one line."""
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


def example(*lines: str) -> str:
    r"""Calls as they stand below a command's help, each on its own line; ``\b`` keeps them from being wrapped."""
    return "\n".join(["\b", f"Example{'s' if len(lines) > 1 else ''}:", *(f"  {line}" for line in lines)])


def check_command(group: Any, word: str, program: str) -> None:
    """Refuse a word that is nearly a command's of a group, or one's of a group within it, and no file.

    Raises
    ------
    CallError : it is one; says which command was meant.
    """
    calls = {name: f"{program} {name}" for name in group.commands}
    for name, inner in group.commands.items():
        if isinstance(inner, Group):
            calls = {each: f"{program} {name} {each}" for each in inner.commands} | calls
    near = get_close_matches(word, calls, n=1, cutoff=0.7)
    plain = not word.startswith("-") and not Path(word).suffix
    if near and plain and word not in group.commands and not Path(word).exists():
        raise CallError(f"there is no command '{word}'; did you mean '{calls[near[0]]}'?")
