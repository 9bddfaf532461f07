"""A set of images and its pictures: what a set is, and files, archives and CIFAR as sets, read where it is asked for.

An image is known by its number in the set and by its name. A set can be sent to another process.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy
from PIL import Image

from reconstruct.errors import ImageError
from reconstruct.images import zipped
from reconstruct.images.cifar import load_cifar
from reconstruct.images.files import decode, decode_file
from reconstruct.images.gzipped import Gzipped
from reconstruct.images.names import reason

LARGEST_MEMBER = 1 << 30
"""Bytes of a picture in an archive or on object storage, which is read into memory whole."""


class Source(Protocol):
    """A set of images; ``kind`` and ``path`` say where it comes from, ``left_out`` what lies there besides."""

    @property
    def kind(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def names(self) -> list[str]: ...

    @property
    def left_out(self) -> str:
        """What is no part of the set, counted, as a sentence; empty where all is."""
        ...

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
    left_out: str = ""

    def picture(self, index: int) -> Image.Image:
        path = self.paths[index]
        if self.filesystem is None:
            try:
                return decode_file(Path(path))
            except (OSError, ValueError) as error:  # a list may name what no file can be called
                if isinstance(error, ImageError):
                    raise
                raise ImageError(f"{self.names[index]} cannot be read: {reason(error)}") from error
        return decode(io.BytesIO(_content(partial(open_file, path, self.filesystem), path)), path)


class Member(NamedTuple):
    """A picture's place in an archive, and how it is packed there by itself, in a zip archive."""

    archive: str
    offset: int
    length: int
    packed: zipped.Packed | None = None


@dataclass(frozen=True)
class Archives:
    """Pictures in tar archives, packed by gzip as a whole or not, and in zip archives.

    ``gzipped`` : those that are packed as a whole, by their paths.
    """

    kind: str
    path: str
    names: list[str]
    members: list[Member]
    filesystem: Any = None
    left_out: str = ""
    gzipped: dict[str, Gzipped] = field(default_factory=dict)

    def picture(self, index: int) -> Image.Image:
        archive, offset, length, packed = self.members[index]
        name = f"{self.path}: {self.names[index]}"
        if archive in self.gzipped:
            opened: Callable[[], Any] = self.gzipped[archive].reader
        else:
            opened = partial(open_file, archive, self.filesystem)
        return decode(io.BytesIO(_content(opened, name, offset, length, packed)), name)


@dataclass(frozen=True)
class Cifar:
    """CIFAR's published files, read once in each process."""

    kind: str
    path: str
    split: str
    count: int
    left_out: str = ""

    @cached_property
    def names(self) -> list[str]:
        return [f"{self.split}/{index:05d}" for index in range(self.count)]

    @cached_property
    def _images(self) -> numpy.ndarray:
        """N x 3 x 32 x 32 bytes."""
        try:
            found = load_cifar(Path(self.path), self.split)
        except OSError as error:
            raise ImageError(f"{self.path} cannot be read: {reason(error)}") from error
        if found is None or len(found.images) != self.count:
            raise ImageError(f"{self.path} no longer holds CIFAR's files")
        return found.images

    def picture(self, index: int) -> Image.Image:
        return Image.fromarray(numpy.ascontiguousarray(self._images[index].transpose(1, 2, 0)))

    def __getstate__(self) -> dict[str, Any]:
        # Not the pictures: whoever gets this reads them.
        return {name: getattr(self, name) for name in ("kind", "path", "split", "count", "left_out")}


def open_file(path: str, filesystem: Any, stream: bool = False) -> Any:
    """A file on this machine, or on pyarrow's ``filesystem``; there, as a stream it is read through once."""
    if filesystem is None:
        return Path(path).open("rb")
    return filesystem.open_input_stream(path) if stream else filesystem.open_input_file(path)


def _content(
    opened: Callable[[], Any],
    name: str,
    offset: int = 0,
    length: int | None = None,
    packed: zipped.Packed | None = None,
) -> bytes:
    """The bytes of the picture ``name``: so many of a file from a place on; without a length, all of a remote file."""
    try:
        with opened() as file:
            length = file.size() if length is None else length
            if length > LARGEST_MEMBER:
                raise ImageError(f"{name} is too large: {length:,} bytes")
            if packed is not None:
                return zipped.content(file, offset, length, packed)
            file.seek(offset)
            content: bytes = file.read(length)
            return content
    except (OSError, ValueError) as error:  # as object storage answers, too
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{name} cannot be read: {reason(error)}") from error
