"""Sets of images to evaluate: a folder, a list, archives or CIFAR's files, on disk or on object storage.

A source is listed once, in an order that depends on its files' names alone, and nothing is read until it is asked for.
Which it is, is found out here; ``folders``, ``lists`` and ``archives`` list each kind, and ``sets`` reads its pictures.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy

from reconstruct.errors import CallError
from reconstruct.images.archives import archives_as_set
from reconstruct.images.cifar import load_cifar
from reconstruct.images.content import GZIP, HEAD, ZIP, kind_of
from reconstruct.images.files import SUFFIXES
from reconstruct.images.folders import ARCHIVES, files_by_kind, is_packed_archive, kind_of_file
from reconstruct.images.left_out import ending, told_left_out
from reconstruct.images.lists import list_as_set
from reconstruct.images.names import reason, shown, told
from reconstruct.images.sets import Cifar, Files, Source


def open_source(path: str, split: str = "test") -> Source:
    """The images of a set, listed and not yet read.

    - A folder: every picture below it (ImageNet's validation set, flat or with a folder a class), in the order of their
      paths. Hidden files and folders, and what evaluate wrote there, are left out. A folder with CIFAR's files and no
      pictures is CIFAR, ``split`` being ``test`` or ``train``; one with archives and no pictures its archives.
    - A tar archive (WebDataset), packed by gzip or not, or one of tar archives (ImageNet's training set), or a zip
      archive: every picture in it, in the order of their names; a tar archive's links are what they lead to.
    - CIFAR's archive as it is downloaded, packed.
    - A text file: a picture's path a line, from the list's own folder on; empty lines, lines that begin with ``#``,
      and a class number at a line's end are left out.

    What a file is, its content decides; a file whose name ends as a picture's does is one, be it broken. What is left
    out is counted in ``left_out``. Each may lie on object storage: ``s3://``, ``gs://``, ``hdfs://``, whatever
    ``pyarrow.fs`` opens; in folders there, names decide.

    Raises
    ------
    CallError : there is no such set, it cannot be listed, or no picture is in it.
    """
    if split not in ("train", "test"):
        raise CallError(f"a split is 'train' or 'test', not '{split}'")
    try:
        source = _remote(path) if "://" in path else _local(Path(path), split)
    except CallError:
        raise
    except (OSError, ValueError) as error:
        raise CallError(f"{path} cannot be listed: {reason(error)}") from error
    if not source.names:
        besides = f": {source.left_out}" if source.left_out else ""
        raise CallError(f"{path} holds no pictures ({', '.join(SUFFIXES)}){besides}")
    return source


def digest(names: Iterable[str]) -> str:
    """A digest of a listing, which tells whether a set is the one that a run began with."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def select(count: int, limit: int | None = None, sample: int | None = None, seed: int = 0) -> list[int]:
    """Numbers of the images that are evaluated, in order.

    Parameters
    ----------
    count : how many images there are.
    limit : only so many are taken, the first.
    sample : so many are drawn without replacement; ``seed`` decides which, and a smaller sample is part of a larger.
    """
    if sample is None:
        return list(range(count if limit is None else min(limit, count)))
    return sorted(numpy.random.default_rng(seed).permutation(count)[:sample].tolist())


def _local(path: Path, split: str) -> Source:
    if path.is_file():
        return _local_file(path, split)
    if not path.is_dir():
        what = "is neither a folder nor a file" if path.exists() else "does not exist"
        raise CallError(f"{path} {what}")
    held, left = files_by_kind(path)
    pictures, tars, packed = (held[kind] for kind in ("picture", "tar", "packed"))
    left.update(map(ending, held["other"]))
    if pictures:
        left.update(map(ending, (*tars, *packed)))
        paths = [str(path / name) for name in pictures]
        return Files("folder", str(path), list(map(shown, pictures)), paths, left_out=told_left_out(left))
    # In the folder itself, or as it was downloaded into it.
    for place in (path, *(path / name for name in packed)):
        cifar = load_cifar(place, split)
        if cifar is not None:
            return Cifar("cifar", str(place), split, len(cifar.images))
    tars += [name for name in packed if is_packed_archive(path / name)]
    if tars:
        left.update(ending(name) for name in packed if name not in tars)
        return archives_as_set(str(path), {f"{name}/": str(path / name) for name in tars}, left)
    if packed:
        raise CallError(f"{path} holds no pictures; unpack {told(packed[0])} first")
    return Files("folder", str(path), [], [], left_out=told_left_out(left))


def _local_file(path: Path, split: str) -> Source:
    kind = kind_of_file(path)
    if kind in ("tar", "packed"):
        cifar = load_cifar(path, split)
        if cifar is not None:
            return Cifar("cifar", str(path), split, len(cifar.images))
    if kind == "packed" and not is_packed_archive(path):
        raise CallError(f"{path} is packed, and pictures are read in place: unpack it, to a folder or a tar archive")
    if kind in ("tar", "packed"):
        return archives_as_set(str(path), {"": str(path)}, Counter())
    with path.open("rb") as file:
        return list_as_set(str(path), file, str(path.parent))


def _remote(uri: str) -> Source:
    import pyarrow
    from pyarrow import fs

    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise CallError(f"{uri} cannot be opened: {error}") from error
    here = filesystem.get_file_info(path)
    if here.type == fs.FileType.File:
        with filesystem.open_input_file(path) as file:
            head = file.read(HEAD)
            if kind_of(head) == "tar" or head.startswith((GZIP, ZIP)) or path.lower().endswith(".tar"):
                return archives_as_set(uri, {"": path}, Counter(), filesystem)
            file.seek(0)
            return list_as_set(uri, file, path.rpartition("/")[0], filesystem)
    if here.type != fs.FileType.Directory:
        raise CallError(f"{uri} does not exist")
    found = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    files = sorted(each.path.removeprefix(path).lstrip("/") for each in found if each.type != fs.FileType.Directory)
    names = [name for name in files if not any(part.startswith(".") for part in name.split("/"))]
    left = Counter(ending(name) for name in names if not name.lower().endswith((*SUFFIXES, *ARCHIVES)))
    left["hidden"] = len(files) - len(names)
    tars = {f"{name}/": f"{path.rstrip('/')}/{name}" for name in names if name.lower().endswith(ARCHIVES)}
    if pictures := [name for name in names if name.lower().endswith(SUFFIXES)]:
        left.update(map(ending, tars.values()))
        paths = [f"{path.rstrip('/')}/{name}" for name in pictures]
        return Files("folder", uri, list(map(shown, pictures)), paths, filesystem, told_left_out(left))
    return archives_as_set(uri, tars, left, filesystem)
