"""Sets of images to evaluate: a folder, a list, archives or CIFAR's files, on disk or on object storage.

A source is listed once, in an order that depends on its files' names alone; an image is known by its number in that
order and its name. Nothing is read until it is asked for, and a source can be sent to another process.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import os
import posixpath
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, Protocol

import numpy
from PIL import Image

from reconstruct.errors import CallError, ImageError, words_of
from reconstruct.images import zipped
from reconstruct.images.cifar import load_cifar
from reconstruct.images.content import EMPTY_ZIP, GZIP, HEAD, ZIP, Bounded, kind_of
from reconstruct.images.files import SUFFIXES, decode, decode_file
from reconstruct.images.gzipped import Gzipped
from reconstruct.images.names import shown

LABELLED = re.compile(r"(.*\S)\s+\d+")
"""A line of a list that ends in a class number, as ImageNet's do."""

MOST_LIST_BYTES = 1 << 28
"""Bytes of a list: two million long paths."""

RESULTS = ("run.json", "rows")
"""A folder with this file and this folder in it is one of results: what evaluate writes is no part of a set."""
RESULTS_PARTS = ("run.json", "summary.json", "report.html", "rows", "thumbnails")

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
"""Suffixes of archives that are read in place, for where nothing but names is known."""

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
                raise ImageError(f"{self.names[index]} cannot be read: {_reason(error)}") from error
        return decode(io.BytesIO(_content(partial(_opened, path, self.filesystem), path)), path)


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
            opened = partial(_opened, archive, self.filesystem)
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
        found = load_cifar(Path(self.path), self.split)
        if found is None or len(found.images) != self.count:
            raise ImageError(f"{self.path} no longer holds CIFAR's files")
        return found.images

    def picture(self, index: int) -> Image.Image:
        return Image.fromarray(numpy.ascontiguousarray(self._images[index].transpose(1, 2, 0)))

    def __getstate__(self) -> dict[str, Any]:
        # Not the pictures: whoever gets this reads them.
        return {name: getattr(self, name) for name in ("kind", "path", "split", "count", "left_out")}


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
        raise CallError(f"{path} cannot be listed: {_reason(error)}") from error
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
    tars += [name for name in packed if _is_packed_archive(path / name)]
    if tars:
        left.update(ending(name) for name in packed if name not in tars)
        return _archives(str(path), {f"{name}/": str(path / name) for name in tars}, left)
    if packed:
        raise CallError(f"{path} holds no pictures; unpack {packed[0]} first")
    return Files("folder", str(path), [], [], left_out=told_left_out(left))


def files_by_kind(folder: Path) -> tuple[dict[str, list[str]], Counter[str]]:
    """The files below a folder, relative and in order, by what they are: ``picture``, ``tar``, ``packed``, ``other``.

    And, counted, what is left out: hidden pictures, and what evaluate wrote.
    """
    left: Counter[str] = Counter()
    held: dict[str, list[str]] = {"picture": [], "tar": [], "packed": [], "other": []}
    for name in sorted(_below(folder, left)):
        held["picture" if name.lower().endswith(SUFFIXES) else _kind(folder / name)].append(name)
    return held, left


def _local_file(path: Path, split: str) -> Source:
    kind = _kind(path)
    if kind in ("tar", "packed"):
        cifar = load_cifar(path, split)
        if cifar is not None:
            return Cifar("cifar", str(path), split, len(cifar.images))
    if kind == "packed" and not _is_packed_archive(path):
        raise CallError(f"{path} is packed, and pictures are read in place: unpack it, to a folder or a tar archive")
    if kind in ("tar", "packed"):
        return _archives(str(path), {"": str(path)}, Counter())
    with path.open("rb") as file:
        return _list(str(path), file, str(path.parent))


def _kind(path: Path) -> str:
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


def _is_packed_archive(path: Path) -> bool:
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


def ending(name: str) -> str:
    """A name's suffix, as what is left out is counted by it."""
    return shown(PurePosixPath(name).suffix.lower()[:12]) or "without suffix"


def told_left_out(left: Counter[str]) -> str:
    """What was left out, as a sentence; the commonest five kinds by name."""
    total = (+left).total()
    if not total:
        return ""
    kinds = [f"{count:,} {kind}" for kind, count in (+left).most_common(5)]
    if others := total - sum(count for _, count in (+left).most_common(5)):
        kinds.append(f"{others:,} others")
    return f"left out {'is' if total == 1 else 'are'} {', '.join(kinds)}"


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


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
                return _archives(uri, {"": path}, Counter(), filesystem)
            file.seek(0)
            return _list(uri, file, path.rpartition("/")[0], filesystem)
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
        return Files("folder", uri, pictures, paths, filesystem, told_left_out(left))
    return _archives(uri, tars, left, filesystem)


def _list(path: str, file: IO[bytes], folder: str, filesystem: Any = None) -> Files:
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
            raise CallError(f"{path} lists {name} twice, in line {names[name]} and in line {number}")
        names[name] = number
    join = os.path.join if filesystem is None else (lambda *parts: "/".join(parts))
    paths = [join(folder, name) for name in names]
    if filesystem is None and paths and not any(map(_is_there, paths)):
        raise CallError(f"{path} lists {len(paths):,} pictures, and not one is there: the first is {paths[0]}")
    return Files("list", path, list(names), paths, filesystem)


def _lines(path: str, content: bytes) -> list[str]:
    """The lines of a text in UTF-8, or in UTF-16 with the mark that Windows puts before it."""
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text or len(content) > MOST_LIST_BYTES:
        raise CallError(f"{path} is neither a .tar archive nor a list of pictures, a path a line")
    return [line.strip() for line in text.splitlines()]


def _is_there(path: str) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # no file is called that
        return False


class _Index(NamedTuple):
    """What the archives of a set hold.

    Attributes
    ----------
    pictures : by name, the archive, and where in it the bytes lie.
    left : what is left out.
    """

    pictures: list[tuple[str, Member]]
    left: Counter[str]


def _archives(path: str, archives: dict[str, str], left: Counter[str], filesystem: Any = None) -> Archives:
    """``archives``: where each lies, by what its pictures' names begin with."""
    index = _Index([], left)
    gzipped: dict[str, Gzipped] = {}
    for prefix, archive in archives.items():
        opened: Callable[[], Any] = partial(_opened, archive, filesystem)
        what = "tar archive"
        try:
            with opened() as file:
                head = file.read(len(ZIP))
                if head in (ZIP, EMPTY_ZIP):
                    what = "zip archive"
                    file.seek(0)
                    _read_zip(index, file, archive, prefix)
                    continue
            if head.startswith(GZIP):
                gzipped[archive] = Gzipped(opened)
                opened = gzipped[archive].reader
            # Object storage is read through once: a jump to each header would be a request each. What is packed has to
            # be read through.
            once = filesystem is not None or archive in gzipped
            with opened() if archive in gzipped else _opened(archive, filesystem, stream=once) as stream:
                ends = _read_index(index, Bounded(stream) if once else stream, archive, prefix, "r|" if once else "r:")
            with opened() as file:
                for end, most in ends:
                    file.seek(end)
                    # tarfile takes a damaged header for the end.
                    if (block := file.read(min(tarfile.BLOCKSIZE, most))).strip(b"\0") or 0 < len(block) < min(
                        tarfile.BLOCKSIZE, most
                    ):
                        raise CallError(
                            f"{archive} is damaged or cut off at byte {end:,}, after {len(index.pictures)} pictures"
                        )
        except CallError:
            raise
        except Exception as error:  # over a damaged header tarfile and zipfile may raise nearly any
            own = isinstance(error, tarfile.TarError | zipfile.BadZipFile | OSError)  # with words for people
            reason = words_of(error) if own else "a header is damaged"
            raise CallError(f"{archive} cannot be read as a {what}: {reason}") from error
    found = sorted(index.pictures)
    for (name, _), (following, _) in pairwise(found):
        if name == following:
            raise CallError(f"{path} holds {name} twice")
    names, members = [name for name, _ in found], [member for _, member in found]
    return Archives("archive", path, names, members, filesystem, told_left_out(left), gzipped)


def _read_zip(index: _Index, file: Any, archive: str, prefix: str) -> None:
    """Add the pictures of a zip archive to the index."""
    for member in zipped.members(file):
        if _is_hidden(member.name):
            index.left["hidden"] += member.name.lower().endswith(SUFFIXES)
        elif member.refused:
            index.left[member.refused] += 1
        elif member.name.lower().endswith(SUFFIXES) or kind_of(zipped.head(file, member, HEAD)) == "picture":
            place = Member(archive, member.offset, member.length, member.packed)
            index.pictures.append((shown(prefix + member.name), place))
        else:
            index.left[ending(member.name)] += 1


def _read_index(
    index: _Index, stream: Any, archive: str, prefix: str, mode: str, start: int = 0, size: int = 1 << 62
) -> list[tuple[int, int]]:
    """Add the pictures of an archive to the index, and those of archives in it.

    Parameters
    ----------
    stream : the archive's content, which is read from its beginning.
    archive : the file that it is, or lies in.
    mode : tarfile's: of a file that is read in jumps, or of a stream.
    start, size : where in the file it lies, and how long it is there.

    Returns
    -------
    Where its headers end, and those of the archives in it, and how many bytes may follow.
    """
    ends: list[tuple[int, int]] = []
    regular: dict[str, Member] = {}
    links: list[tuple[str, str]] = []
    with tarfile.open(fileobj=stream, mode=mode) as tar:  # type: ignore[call-overload]
        last = -1
        for member in tar:
            if member.offset <= last or member.size < 0:  # nor would it ever end
                raise tarfile.ReadError("a header leads back to one before it")
            last = member.offset
            place = Member(archive, start + member.offset_data, member.size)
            if member.isdir():
                continue
            if _is_hidden(member.name):
                index.left["hidden"] += member.name.lower().endswith(SUFFIXES)
            elif member.islnk() or member.issym():
                beside = "" if member.islnk() else posixpath.dirname(member.name)
                links.append((member.name, posixpath.normpath(posixpath.join(beside, member.linkname))))
            elif not member.isreg() or member.issparse():
                index.left["no plain file"] += 1
            elif (kind := _member_kind(tar, member))[0] == "picture":
                regular[posixpath.normpath(member.name)] = place
                index.pictures.append((shown(prefix + member.name), place))
            elif kind[0] == "tar" and not start:
                ends += _read_index(index, kind[1], archive, f"{prefix}{member.name}/", mode, *place[1:3])
            else:
                index.left[ending(member.name)] += 1
        end = start + tar.offset
    for name, target in links:
        if target in regular:
            index.pictures.append((shown(prefix + name), regular[target]))
        else:
            index.left["link"] += 1
    return [*ends, (end, start + size - end)]


def _member_kind(tar: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[str, Any]:
    """What a member is, by its name where that is a picture's, else by its content, which comes with it."""
    if member.name.lower().endswith(SUFFIXES):
        return "picture", None
    inside: Any = tar.extractfile(member)
    # Its head is looked at and not read: a stream cannot be read again.
    return kind_of(inside.peek(HEAD)[:HEAD]), inside


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part.strip(".") for part in name.split("/"))


def _opened(path: str, filesystem: Any, stream: bool = False) -> Any:
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
    except OSError as error:
        raise ImageError(f"{name} cannot be read: {_reason(error)}") from error
