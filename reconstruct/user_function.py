"""Functions of the user's by name: ``package.module:function``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from reconstruct.errors import CallError


def is_function_name(name: str) -> bool:
    """Whether a name is a function's, and no path."""
    module, colon, function = name.partition(":")
    parts = (*module.split("."), function)
    return bool(colon) and not module.endswith(".py") and all(part.isidentifier() for part in parts)


def function_named(name: str, what: str) -> Callable[..., Any]:
    """The function that ``package.module:function`` names, in Python's path or the current folder.

    Parameters
    ----------
    what : it is, for messages: a ``method``, a ``model``.

    Raises
    ------
    CallError : another form of name, a module that cannot be imported, or no such function in it.
    """
    module, _, function = name.partition(":")
    if not is_function_name(name):
        hint = f"; {Path(module).stem}:{function}?" if module.endswith(".py") else ""
        raise CallError(f"a {what} of your own is named package.module:function, not '{name}'{hint}")
    here = str(Path.cwd())
    if here not in sys.path:
        # Last, so that a file in it hides nothing that is installed.
        sys.path.append(here)
    try:
        home = import_module(module)
    except (ImportError, SyntaxError) as error:
        raise CallError(f"{what} {name}: {module} cannot be imported: {error}") from error
    found: Any = getattr(home, function, None)
    if found is None:
        raise CallError(f"{what} {name}: {module} has no function {function}")
    if not callable(found):
        raise CallError(f"{what} {name}: {function} is {type(found).__name__}, not a function")
    called: Callable[..., Any] = found
    return called
