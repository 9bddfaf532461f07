"""Functions of the user's by name: ``package.module:function``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any

from reconstruct.errors import CallError, words_of


def is_function_name(name: str) -> bool:
    """Whether a name is that of a function, ``package.module:function``, and no path."""
    module, colon, function = name.partition(":")
    parts = (*module.split("."), function)
    return bool(colon) and not module.endswith(".py") and all(part.isidentifier() for part in parts)


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """While this lasts, modules in the current folder can be imported, after all those that are installed.

    The command line is in it from beginning to end: a function of the user's may import its neighbours when it is
    called, long after its own module was imported. In Python it lasts for one import, and ``sys.path`` stays as it was.
    """
    here = str(Path.cwd())
    if here in sys.path:
        yield
        return
    # Last, so that a file in the folder hides nothing that is installed.
    sys.path.append(here)
    try:
        yield
    finally:
        if here in sys.path:  # what was imported may have changed the path itself
            sys.path.remove(here)


def function_named(name: str, what: str) -> Callable[..., Any]:
    """The function that ``package.module:function`` names, in Python's path or the current folder.

    Parameters
    ----------
    name : the name.
    what : what the function is for, as messages say it: a ``method``, a ``model``.

    Raises
    ------
    CallError : the name has another form, the module cannot be imported, or it has no such function.
    """
    module, _, function = name.partition(":")
    if not is_function_name(name):
        hint = f"; {Path(module).stem}:{function}?" if module.endswith(".py") else ""
        raise CallError(f"a {what} of your own is named package.module:function, not '{name}'{hint}")
    try:
        with current_folder_importable():
            home = import_module(module)
    except (ImportError, SyntaxError) as error:
        raise CallError(f"{what} {name}: {module} cannot be imported: {words_of(error)}") from error
    except Exception as error:  # whatever the module's own code raises
        raise CallError(f"{what} {name}: {module} cannot be imported: {failure(error)}") from error
    found: Any = getattr(home, function, None)
    if found is None:
        raise CallError(f"{what} {name}: {_hidden(home, module) or f'{module} has no function {function}'}")
    if not callable(found):
        raise CallError(f"{what} {name}: {function} is {type(found).__name__}, not a function")
    called: Callable[..., Any] = found
    return called


def failure(error: Exception) -> str:
    """What somebody's code has raised, and in which line: nobody sees a traceback."""
    place = extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}: {words_of(error)}"


def _hidden(home: ModuleType, module: str) -> str | None:
    """That a file in the current folder is hidden by an installed module of its name, in words; None if it is not."""
    beside = Path.cwd().joinpath(*module.split("."))
    file = getattr(home, "__file__", None)
    for own in (beside.with_suffix(".py"), beside / "__init__.py"):
        if own.is_file() and (file is None or not Path(file).exists() or not own.samefile(file)):
            shown = own.relative_to(Path.cwd())
            return f"{module} is Python's own or an installed module, which comes before {shown} here: rename {shown}"
    return None
