"""The files below a folder, by what they are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from reconstruct.images.content import EMPTY_ZIP, GZIP, HEAD, ZIP, kind_of
from reconstruct.images.files import SUFFIXES
from reconstruct.images.gzipped import Gzipped

RESULTS = ("run.json", "rows")
"""A folder with this file and this folder in it is one of results: what evaluate writes is no part of a set."""
RESULTS_PARTS = ("run.json", "summary.json", "report.html", "rows", "thumbnails")

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
"""Suffixes of archives that are read in place, for where nothing but names is known."""


def files_by_kind(folder: Path) -> tuple[dict[str, list[str]], Counter[str]]:
    """The files below a folder, relative and in order, by what they are: ``picture``, ``tar``, ``packed``, ``other``.

    And, counted, what is left out: hidden pictures, and what evaluate wrote.
    """
    left: Counter[str] = Counter()
    held: dict[str, list[str]] = {"picture": [], "tar": [], "packed": [], "other": []}
    for name in sorted(_below(folder, left)):
        held["picture" if name.lower().endswith(SUFFIXES) else kind_of_file(folder / name)].append(name)
    return held, left


def kind_of_file(path: Path) -> str:
    """What a file is by its content, and where that says nothing, by its name.

    What is no regular file is not opened: a pipe would be waited for.
    """
    kind = "other"
    if path.is_file():
        try:
            with path.open("rb") as file:
                kind = kind_of(file.read(HEAD))
        except OSError:  # not for us to read
            return "other"
    if kind == "other":  # damaged, or without a picture in it
        name = path.name.lower()
        return "tar" if name.endswith(".tar") else "packed" if name.endswith((".tar.gz", ".tgz", ".zip")) else "other"
    return kind


def is_packed_archive(path: Path) -> bool:
    """Whether what is packed is a zip archive, or a tar archive packed by gzip: those are read in place."""
    try:
        with path.open("rb") as file:
            head = file.read(len(ZIP))
        if head.startswith(GZIP):
            with Gzipped(partial(path.open, "rb")).reader() as inside:
                return kind_of(inside.read(HEAD)) == "tar"
    except OSError:  # damaged, or not for us to read
        return path.name.lower().endswith(ARCHIVES)
    return head in (ZIP, EMPTY_ZIP)


def _below(folder: Path, left: Counter[str]) -> Iterable[str]:
    """Files below a folder, links followed, relative and with slashes; what is left out is counted."""

    def unreadable(_: OSError) -> None:
        left["folder that cannot be read"] += 1

    seen = set()
    for parent, folders, held in os.walk(folder, onerror=unreadable, followlinks=True):
        where = Path(parent)
        identity = (where.stat().st_dev, where.stat().st_ino)
        if identity in seen:  # links may lead in circles
            folders.clear()
            continue
        seen.add(identity)
        files = held
        if RESULTS[0] in held and RESULTS[1] in folders:
            left["folder of results"] += 1
            folders[:], files = ([name for name in each if name not in RESULTS_PARTS] for each in (folders, held))
        left["hidden"] += sum(name.startswith(".") and name.lower().endswith(SUFFIXES) for name in files)
        # Sorted, so that of two ways to a folder always the same is taken.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = where.relative_to(folder)
        yield from ((relative / name).as_posix() for name in files if not name.startswith("."))
