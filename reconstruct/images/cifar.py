"""CIFAR-10 and CIFAR-100 as they are published: the Python or the binary version, unpacked in a folder."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from reconstruct.errors import CallError

SIDE = 32
"""Height and width of the pictures, in pixels."""
_PIXELS = 3 * SIDE**2


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
        tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",), b"labels", "batches.meta", b"label_names"
    ),
    _PythonVersion(("train",), ("test",), b"fine_labels", "meta", b"fine_label_names"),
    _BinaryVersion(
        tuple(f"data_batch_{i}.bin" for i in range(1, 6)), ("test_batch.bin",), 1, "batches.meta.txt", classes=10
    ),
    _BinaryVersion(("train.bin",), ("test.bin",), 2, "fine_label_names.txt", classes=100),
)


def load_cifar(folder: Path, split: str) -> Labelled | None:
    """Pictures of CIFAR-10 or CIFAR-100; None where their files are not in the folder.

    Parameters
    ----------
    split : which pictures, ``train`` or ``test``.

    Raises
    ------
    CallError : files of these names are there and are not CIFAR's, or are damaged. Nothing in them is run.
    """
    present = {path.name for path in folder.iterdir() if path.is_file()}
    for version in _VERSIONS:
        files = version.train if split == "train" else version.test
        if set(files) <= present:
            paths = [folder / name for name in files]
            if isinstance(version, _PythonVersion):
                return _read_python(folder, paths, version)
            return _read_binary(folder, paths, version)
    return None


def numbered(count: int) -> list[str]:
    """Names of classes that have none: their numbers."""
    return [str(number) for number in range(count)]


def _read_python(folder: Path, paths: list[Path], version: _PythonVersion) -> Labelled:
    batches = [_unpickle(path) for path in paths]
    names_file = folder / version.names_file
    names = _unpickle(names_file) if names_file.is_file() else None
    try:
        images = numpy.concatenate([batch[b"data"] for batch in batches])
        labels = numpy.concatenate([batch[version.labels] for batch in batches])
        if images.dtype != numpy.uint8 or images.shape != (len(labels), _PIXELS) or labels.dtype.kind not in "iu":
            raise ValueError("pictures and labels do not match")
        classes = numbered(int(labels.max()) + 1) if names is None else [name.decode() for name in names[version.names]]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CallError(f"{folder}: these are not CIFAR's files ({error})") from error
    _check_labels(folder, labels, classes)
    return Labelled(images.reshape(-1, 3, SIDE, SIDE), labels.astype(numpy.int64), classes)


def _read_binary(folder: Path, paths: list[Path], version: _BinaryVersion) -> Labelled:
    width = version.label_bytes + _PIXELS
    content = b"".join(path.read_bytes() for path in paths)
    if not content or len(content) % width:
        raise CallError(f"{folder}: {len(content)} bytes are no whole number of CIFAR pictures of {width} bytes")
    rows = numpy.frombuffer(content, numpy.uint8).reshape(-1, width)
    labels = rows[:, version.label_bytes - 1].astype(numpy.int64)
    names_file = folder / version.names_file
    classes = names_file.read_text().split() if names_file.is_file() else numbered(version.classes)
    _check_labels(folder, labels, classes)
    return Labelled(rows[:, version.label_bytes :].reshape(-1, 3, SIDE, SIDE), labels, classes)


def _check_labels(folder: Path, labels: numpy.ndarray, classes: list[str]) -> None:
    wrong = labels[(labels < 0) | (labels >= len(classes))]
    if len(wrong):
        raise CallError(f"{folder}: a label is {wrong[0]}, of {len(classes)} classes")


class _Plain(pickle.Unpickler):
    """CIFAR's published files are pickles of dictionaries, lists, bytes and byte arrays. Nothing else is built."""

    def find_class(self, module: str, name: str, /) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return numpy._core.multiarray._reconstruct  # type: ignore[attr-defined]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(numpy, name)
        if (module, name) == ("_codecs", "encode"):
            return lambda text, _: text.encode("latin-1")
        raise pickle.UnpicklingError(f"it would run {module}.{name}")


def _unpickle(path: Path) -> dict[bytes, Any]:
    try:
        with path.open("rb") as file:
            found = _Plain(file, encoding="bytes").load()
    except Exception as error:  # a broken pickle may raise anything
        raise CallError(f"{path} is not one of CIFAR's files: {error}") from error
    if not isinstance(found, dict):
        raise CallError(f"{path} is not one of CIFAR's files")
    return found
