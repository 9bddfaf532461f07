"""CIFAR-10 and CIFAR-100 as they are published: the Python or the binary version, packed or unpacked.

A *shelf* is where their files lie: a folder, one that has the published folder inside, or the archive as it is
downloaded. It maps each file's name to a function that reads it.
"""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy

from reconstruct.errors import CallError
from reconstruct.images.content import GZIP, Bounded
from reconstruct.images.plain_pickle import PlainPickleError, read_plain_pickle

SIDE = 32
"""Height and width of the pictures, in pixels."""
FOLDERS = ("cifar-10-batches-py", "cifar-100-python", "cifar-10-batches-bin", "cifar-100-binary")
"""Published folders, which the archives hold; torchvision and others unpack them into a folder of theirs."""
MOST_BYTES = 1 << 28
"""Bytes of a file, and of an archive unpacked: the largest published ones have 154 and 184 MB."""
_PIXELS = 3 * SIDE**2
_MOST_BEFORE = 1 << 23  # bytes of an archive in which a file of CIFAR's comes, if any does
_MOST_NAMES = 1 << 20  # bytes of the file of classes

Shelf = Mapping[str, Callable[[], bytes]]


class Labelled(NamedTuple):
    """Pictures, N x 3 x 32 x 32 bytes, their class numbers, N, int64, and the classes' names."""

    images: numpy.ndarray
    labels: numpy.ndarray
    classes: list[str]


@dataclass(frozen=True)
class _PythonVersion:
    """Files that are pickled dictionaries, the keys under which they have labels, and the classes' names."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    labels: bytes
    names_file: str
    names: bytes
    classes: int


@dataclass(frozen=True)
class _BinaryVersion:
    """Files whose rows are some bytes of labels, the last of them the class, and a picture; and the classes' names."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int
    names_file: str
    classes: int


# CIFAR-100 has 20 coarse and 100 fine labels.
_VERSIONS = (
    _PythonVersion(
        tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",), b"labels", "batches.meta", b"label_names", 10
    ),
    _PythonVersion(("train",), ("test",), b"fine_labels", "meta", b"fine_label_names", 100),
    _BinaryVersion(
        tuple(f"data_batch_{i}.bin" for i in range(1, 6)), ("test_batch.bin",), 1, "batches.meta.txt", classes=10
    ),
    _BinaryVersion(("train.bin",), ("test.bin",), 2, "fine_label_names.txt", classes=100),
)
_FILES = frozenset(name for version in _VERSIONS for name in (*version.train, *version.test, version.names_file))


def load_cifar(path: Path, split: str) -> Labelled | None:
    """Pictures of CIFAR-10 or CIFAR-100; None where their files are not there.

    Parameters
    ----------
    path : a folder with the published files, a folder with the published folder inside, or the published archive
        (``cifar-10-python.tar.gz``), also unpacked to a ``.tar``.
    split : which pictures, ``train`` or ``test``.

    Raises
    ------
    CallError : files of these names are there and are not CIFAR's, or are damaged. Nothing in them is run.
    """
    if path.is_file():
        return _load(path, _packed(path), split)
    for folder in (path, *(path / name for name in FOLDERS if (path / name).is_dir())):
        found = _load(folder, _unpacked(folder), split)
        if found is not None:
            return found
    return None


def numbered(count: int) -> list[str]:
    """Names of classes that have none: their numbers."""
    return [str(number) for number in range(count)]


def _unpacked(folder: Path) -> Shelf:
    return {name: partial(_content, folder / name) for name in _FILES if (folder / name).is_file()}


def _content(file: Path) -> bytes:
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise CallError(f"{file} is not one of CIFAR's files: it has {size:,} bytes")
    return file.read_bytes()


def _packed(archive: Path) -> Shelf:
    """The files of an archive that lie in one of the published folders; empty where there are none, or no archive."""
    found: dict[str, bytes] = {}
    try:
        with archive.open("rb") as file:
            packed = file.read(2) == GZIP
            file.seek(0)
            stream = Bounded(gzip.GzipFile(fileobj=file) if packed else file, MOST_BYTES)
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                for member in tar:
                    name = PurePosixPath(member.name)
                    if member.isreg() and name.parent.name in FOLDERS and name.name in _FILES:
                        content = tar.extractfile(member)
                        found[name.name] = b"" if content is None else content.read()
                    elif not found and stream.passed > _MOST_BEFORE:
                        break
    except Exception as error:  # over a damaged header tarfile may raise nearly any
        if found:
            raise CallError(f"{archive} is damaged, cut off or larger than CIFAR: {error}") from error
    return {name: partial(bytes, content) for name, content in found.items()}


def _load(where: Path, shelf: Shelf, split: str) -> Labelled | None:
    for version in _VERSIONS:
        files = version.train if split == "train" else version.test
        if set(files) <= shelf.keys():
            if isinstance(version, _PythonVersion):
                return _read_python(where, shelf, files, version)
            return _read_binary(where, shelf, files, version)
    return None


def _read_python(where: Path, shelf: Shelf, files: tuple[str, ...], version: _PythonVersion) -> Labelled:
    batches = [_unpickled(where, shelf, name) for name in files]
    names = _unpickled(where, shelf, version.names_file) if version.names_file in shelf else None
    try:
        images = numpy.concatenate([_pictures(batch[b"data"]) for batch in batches])
        labels = numpy.concatenate([_labels(batch[version.labels]) for batch in batches])
        if len(images) != len(labels):
            raise ValueError("pictures and labels do not match")
        classes = numbered(version.classes) if names is None else [name.decode() for name in names[version.names]]
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise CallError(f"{where}: these are not CIFAR's files ({error})") from error
    _check_labels(where, labels, classes)
    return Labelled(images.reshape(-1, 3, SIDE, SIDE), labels, classes)


def _pictures(data: Any) -> numpy.ndarray:
    if not (isinstance(data, numpy.ndarray) and data.dtype == numpy.uint8 and data.shape[1:] == (_PIXELS,)):
        raise ValueError("the pictures are not rows of 3,072 bytes")
    return data


def _labels(labels: Any) -> numpy.ndarray:
    """Class numbers; each is checked before an array is made of them."""
    if isinstance(labels, numpy.ndarray):
        if labels.ndim != 1:
            raise ValueError("the labels are no list of whole numbers")
        return labels.astype(numpy.int64)
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ValueError("the labels are no list of whole numbers")
    return numpy.array(labels, dtype=numpy.int64)


def _read_binary(where: Path, shelf: Shelf, files: tuple[str, ...], version: _BinaryVersion) -> Labelled:
    width = version.label_bytes + _PIXELS
    content = b"".join(shelf[name]() for name in files)
    if not content or len(content) % width:
        raise CallError(f"{where}: {len(content)} bytes are no whole number of CIFAR pictures of {width} bytes")
    rows = numpy.frombuffer(content, numpy.uint8).reshape(-1, width)
    labels = rows[:, version.label_bytes - 1].astype(numpy.int64)
    classes = numbered(version.classes)
    if version.names_file in shelf:
        listed = shelf[version.names_file]()
        try:
            classes = listed[:_MOST_NAMES].decode().split()
        except UnicodeDecodeError as error:
            raise CallError(f"{where / version.names_file} holds no classes' names: it is not UTF-8") from error
    _check_labels(where, labels, classes)
    return Labelled(rows[:, version.label_bytes :].reshape(-1, 3, SIDE, SIDE), labels, classes)


def _check_labels(where: Path, labels: numpy.ndarray, classes: list[str]) -> None:
    wrong = labels[(labels < 0) | (labels >= len(classes))]
    if len(wrong):
        raise CallError(f"{where}: a label is {wrong[0]}, of {len(classes)} classes")


def _unpickled(where: Path, shelf: Shelf, name: str) -> dict[bytes, Any]:
    try:
        found = read_plain_pickle(shelf[name]())
    except PlainPickleError as error:
        raise CallError(f"{where / name} is not one of CIFAR's files: {error}") from error
    if not isinstance(found, dict):
        raise CallError(f"{where / name} is not one of CIFAR's files")
    return found
