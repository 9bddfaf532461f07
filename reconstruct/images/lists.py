"""Lists of pictures as a set: text files with a path a line."""

from __future__ import annotations

import codecs
import os
import re
from typing import IO, Any

from reconstruct.errors import CallError
from reconstruct.images.content import HEAD, kind_of
from reconstruct.images.files import SUFFIXES
from reconstruct.images.names import shown, told
from reconstruct.images.sets import Files

LABELLED = re.compile(r"(.*[^\s,])(?:\s+|\s*,\s*)\d+")
"""A line of a list that ends in a class number, as ImageNet's do, after a space or a comma."""

MOST_LIST_BYTES = 1 << 28
"""Bytes of a list: two million long paths."""

_CONTROLS, _NO_UTF8 = re.compile(r"[\x01-\x08\x0e-\x1f]"), re.compile(r"[\udc80-\udcff]")
"""No list has both: it is no text then."""


def list_as_set(path: str, file: IO[bytes], folder: str, filesystem: Any = None) -> Files:
    """The pictures of a list, which lie from ``folder`` on.

    Raises
    ------
    CallError : it is no text, or a picture itself, names a picture twice, or names none that is there.
    """
    content = file.read(MOST_LIST_BYTES + 1)
    if kind_of(content[:HEAD]) == "picture" or path.lower().endswith(SUFFIXES):
        raise CallError(
            f"{path} is a picture: this takes a folder, a list or an archive; 'reconstruct IMAGE' inverts one"
        )
    names: dict[str, int] = {}
    for number, line in enumerate(_lines(path, content), 1):
        if not line or line.startswith("#"):
            continue
        labelled = LABELLED.fullmatch(line)
        name = line if labelled is None or line.lower().endswith(SUFFIXES) else labelled[1]
        if name in names:
            raise CallError(f"{path} lists {told(name)} twice, in line {names[name]} and in line {number}")
        names[name] = number
    join = os.path.join if filesystem is None else (lambda *parts: "/".join(parts))
    paths = [join(folder, name) for name in names]
    if filesystem is None and paths and not any(map(_is_there, paths)):
        raise CallError(
            f"{path} lists {len(paths):,} pictures, and not one is there: the first is {told(paths[0])}; a line "
            "is a path, and may end in a class number after a space or a comma"
        )
    return Files("list", path, list(map(shown, names)), paths, filesystem)


def _lines(path: str, content: bytes) -> list[str]:
    """The lines of a text in UTF-8, or in UTF-16 with the mark that Windows puts before it.

    Names need not be UTF-8: their bytes stay as the system has them.
    """
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16") if marked else content.decode("utf-8-sig", "surrogateescape")
    except UnicodeDecodeError:
        text = "\0"
    no_text = "\0" in text or (_CONTROLS.search(text) and _NO_UTF8.search(text))
    if no_text or len(content) > MOST_LIST_BYTES:
        raise CallError(f"{path} is neither an archive nor a list of pictures, a path a line")
    # Not what else may end a line in Unicode: a name may have it.
    return [line.strip(" \t\f") for line in re.split(r"\r\n?|\n", text)]


def _is_there(path: str) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # no file is called that
        return False
