"""Sets of images to evaluate: a folder, a list, tar archives or CIFAR's files, on disk or on object storage.

A source is listed once, in an order that depends on its files' names alone; an image is known by its number in that
order and its name. Nothing is read until it is asked for, and a source can be sent to another process.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Protocol

import numpy
from PIL import Image

from reconstruct.errors import CallError, ImageError
from reconstruct.images.cifar import load_cifar
from reconstruct.images.files import SUFFIXES, decode, decode_file
from reconstruct.images.names import shown

LABELLED = re.compile(rf"(.*(?:{'|'.join(map(re.escape, SUFFIXES))}))\s+\d+", re.IGNORECASE)
"""A line of a list that ends in a class number, as ImageNet's do."""

LARGEST_MEMBER = 1 << 30
"""Bytes of a picture in an archive or on object storage, which is read into memory whole."""


class Source(Protocol):
    """A set of images; ``kind`` and ``path`` say where it comes from."""

    @property
    def kind(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def names(self) -> list[str]: ...

    def picture(self, index: int) -> Image.Image:
        """The image upright and in 8-bit RGB.

        Threads may ask at once. Pillow's warnings are the caller's (``images.files.quiet_pillow``).

        Raises
        ------
        ImageError : it cannot be read.
        """
        ...


@dataclass(frozen=True)
class Files:
    """Picture files; ``filesystem`` is pyarrow's, or None for this machine's own."""

    kind: str
    path: str
    names: list[str]
    paths: list[str]
    filesystem: Any = None

    def picture(self, index: int) -> Image.Image:
        path = self.paths[index]
        if self.filesystem is None:
            return decode_file(Path(path))
        return decode(io.BytesIO(_content(path, self.filesystem, path)), path)


@dataclass(frozen=True)
class Archives:
    """Pictures in tar archives; a member is its archive, and where in it its bytes lie."""

    kind: str
    path: str
    names: list[str]
    members: list[tuple[str, int, int]]
    filesystem: Any = None

    def picture(self, index: int) -> Image.Image:
        archive, offset, length = self.members[index]
        name = f"{self.path}: {self.names[index]}"
        return decode(io.BytesIO(_content(archive, self.filesystem, name, offset, length)), name)


@dataclass(frozen=True)
class Cifar:
    """CIFAR's published files, read once in each process."""

    kind: str
    path: str
    split: str
    count: int

    @cached_property
    def names(self) -> list[str]:
        return [f"{self.split}/{index:05d}" for index in range(self.count)]

    @cached_property
    def _images(self) -> numpy.ndarray:
        """N x 3 x 32 x 32 bytes."""
        found = load_cifar(Path(self.path), self.split)
        if found is None or len(found.images) != self.count:
            raise ImageError(f"{self.path} no longer holds CIFAR's files")
        return found.images

    def picture(self, index: int) -> Image.Image:
        return Image.fromarray(numpy.ascontiguousarray(self._images[index].transpose(1, 2, 0)))

    def __getstate__(self) -> dict[str, Any]:
        # Not the pictures: whoever gets this reads them.
        return {name: getattr(self, name) for name in ("kind", "path", "split", "count")}


def open_source(path: str, split: str = "test") -> Source:
    """The images of a set, listed and not yet read.

    - A folder: every picture below it (ImageNet's validation set, flat or with a folder a class), by the suffix of its
      name, in the order of their paths; hidden files and folders are left out. A folder with CIFAR's files and no
      pictures is CIFAR, ``split`` being ``test`` or ``train``; one with ``.tar`` files and no pictures its archives.
    - A ``.tar`` file (WebDataset): every picture in it, in the order of their names.
    - A text file: a picture's path a line, from the list's own folder on; empty lines, lines that begin with ``#``,
      and a class number at a line's end are left out.

    Each may lie on object storage: ``s3://``, ``gs://``, ``hdfs://``, whatever ``pyarrow.fs`` opens.

    Raises
    ------
    CallError : there is no such set, it cannot be listed, or no picture is in it.
    """
    if split not in ("train", "test"):
        raise CallError(f"a split is 'train' or 'test', not '{split}'")
    try:
        source = _remote(path) if "://" in path else _local(Path(path), split)
    except OSError as error:
        raise CallError(f"{path} cannot be listed: {error}") from error
    if not source.names:
        raise CallError(f"{path} holds no pictures ({', '.join(SUFFIXES)})")
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
        if path.suffix.lower() == ".tar":
            return _archives(str(path), {"": str(path)})
        with path.open("rb") as file:
            return _list(str(path), file, str(path.parent))
    if not path.is_dir():
        what = "is neither a folder nor a file" if path.exists() else "does not exist"
        raise CallError(f"{path} {what}")
    names = sorted(_below(path))
    pictures = [name for name in names if name.lower().endswith(SUFFIXES)]
    if pictures:
        return Files("folder", str(path), list(map(_printable, pictures)), [str(path / name) for name in pictures])
    cifar = load_cifar(path, split)
    if cifar is not None:
        return Cifar("cifar", str(path), split, len(cifar.images))
    if tars := [name for name in names if name.lower().endswith(".tar")]:
        return _archives(str(path), {f"{name}/": str(path / name) for name in tars})
    if packed := [name for name in names if name.lower().endswith((".tar.gz", ".tgz", ".zip"))]:
        raise CallError(f"{path} holds no pictures; unpack {packed[0]} first")
    return Files("folder", str(path), [], [])


def _below(folder: Path) -> Iterable[str]:
    """Files below a folder, hidden ones left out, links followed, relative and with slashes."""
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        where = Path(parent)
        identity = (where.stat().st_dev, where.stat().st_ino)
        if identity in seen:  # links may lead in circles
            folders.clear()
            continue
        seen.add(identity)
        # Sorted, so that of two ways to a folder always the same is taken.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = where.relative_to(folder)
        yield from ((relative / name).as_posix() for name in files if not name.startswith("."))


def _remote(uri: str) -> Source:
    import pyarrow
    from pyarrow import fs

    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise CallError(f"{uri} cannot be opened: {error}") from error
    here = filesystem.get_file_info(path)
    if here.type == fs.FileType.File:
        if path.lower().endswith(".tar"):
            return _archives(uri, {"": path}, filesystem)
        with filesystem.open_input_file(path) as file:
            return _list(uri, file, path.rpartition("/")[0], filesystem)
    if here.type != fs.FileType.Directory:
        raise CallError(f"{uri} does not exist")
    found = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    files = sorted(each.path.removeprefix(path).lstrip("/") for each in found if each.type != fs.FileType.Directory)
    names = [name for name in files if not any(part.startswith(".") for part in name.split("/"))]
    if pictures := [name for name in names if name.lower().endswith(SUFFIXES)]:
        return Files("folder", uri, pictures, [f"{path.rstrip('/')}/{name}" for name in pictures], filesystem)
    tars = {f"{name}/": f"{path.rstrip('/')}/{name}" for name in names if name.lower().endswith(".tar")}
    return _archives(uri, tars, filesystem)


def _list(path: str, file: IO[bytes], folder: str, filesystem: Any = None) -> Files:
    if path.lower().endswith(SUFFIXES):
        raise CallError(
            f"{path} is a picture: this takes a folder, a list or an archive; 'reconstruct IMAGE' inverts one"
        )
    try:
        lines = [line.strip() for line in file.read().decode().splitlines()]
    except UnicodeDecodeError:
        raise CallError(f"{path} is neither a .tar archive nor a list of pictures, a path a line") from None
    names: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        labelled = LABELLED.fullmatch(line)
        name = labelled[1] if labelled else line
        if name in names:
            raise CallError(f"{path} lists {name} twice, in line {names[name]} and in line {number}")
        names[name] = number
    join = os.path.join if filesystem is None else (lambda *parts: "/".join(parts))
    return Files("list", path, list(names), [join(folder, name) for name in names], filesystem)


def _archives(path: str, archives: dict[str, str], filesystem: Any = None) -> Archives:
    """``archives``: where each lies, by what its pictures' names begin with."""
    found: list[tuple[str, tuple[str, int, int]]] = []
    for prefix, archive in archives.items():
        try:
            # Object storage is read through once: a jump to each header would be a request each.
            stream = _opened(archive, filesystem, stream=filesystem is not None)
            with stream, tarfile.open(fileobj=stream, mode="r:" if filesystem is None else "r|") as tar:
                found += [
                    (_printable(prefix + member.name), (archive, member.offset_data, member.size))
                    for member in tar
                    if member.isreg() and not member.issparse() and _is_picture(member.name)
                ]
                end = tar.offset
        except tarfile.TarError as error:
            raise CallError(
                f"{archive} cannot be read as a tar archive: {error} (a compressed one: unpack it)"
            ) from error
        with _opened(archive, filesystem) as file:
            file.seek(end)
            # tarfile takes a damaged header for the end.
            if (block := file.read(tarfile.BLOCKSIZE)).strip(b"\0") or 0 < len(block) < tarfile.BLOCKSIZE:
                raise CallError(f"{archive} is damaged or cut off at byte {end:,}, after {len(found)} pictures")
    found.sort()
    for (name, _), (following, _) in pairwise(found):
        if name == following:
            raise CallError(f"{path} holds {name} twice")
    return Archives("archive", path, [name for name, _ in found], [member for _, member in found], filesystem)


def _printable(name: str) -> str:
    """Names of files are bytes; those that are no text cannot be written into rows or pages."""
    return shown(name)


def _is_picture(name: str) -> bool:
    hidden = any(part.startswith(".") and part.strip(".") for part in name.split("/"))
    return name.lower().endswith(SUFFIXES) and not hidden


def _opened(path: str, filesystem: Any, stream: bool = False) -> Any:
    if filesystem is None:
        return Path(path).open("rb")
    return filesystem.open_input_stream(path) if stream else filesystem.open_input_file(path)


def _content(path: str, filesystem: Any, name: str, offset: int = 0, length: int | None = None) -> bytes:
    """The bytes of the picture ``name``: so many of a file from a place on; without a length, all of a remote file."""
    try:
        with _opened(path, filesystem) as file:
            length = file.size() if length is None else length
            if length > LARGEST_MEMBER:
                raise ImageError(f"{name} is too large: {length:,} bytes")
            file.seek(offset)
            return file.read(length)
    except OSError as error:
        raise ImageError(f"{name} cannot be read: {error}") from error
