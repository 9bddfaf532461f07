"""Archives of pictures as a set: tar archives, packed by gzip or not, of pictures or of tar archives, and zip archives.

An archive is read through once, for where its pictures' bytes lie; a picture is read from there.
"""

from __future__ import annotations

import posixpath
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

from reconstruct.errors import CallError, words_of
from reconstruct.images import zipped
from reconstruct.images.content import EMPTY_ZIP, GZIP, HEAD, ZIP, Bounded, kind_of
from reconstruct.images.files import SUFFIXES
from reconstruct.images.gzipped import Gzipped
from reconstruct.images.left_out import ending, told_left_out
from reconstruct.images.names import shown
from reconstruct.images.sets import Archives, Member, open_file


class _Index(NamedTuple):
    """What the archives of a set hold.

    Attributes
    ----------
    pictures : by name, the archive, and where in it the bytes lie.
    left : what is left out.
    """

    pictures: list[tuple[str, Member]]
    left: Counter[str]


def archives_as_set(path: str, archives: dict[str, str], left: Counter[str], filesystem: Any = None) -> Archives:
    """The pictures of archives, by name.

    Parameters
    ----------
    archives : where each lies, by what its pictures' names begin with.
    left : what is left out where they lie; what is left out of them is added.
    filesystem : pyarrow's, or None for this machine's own.

    Raises
    ------
    CallError : one is damaged or no archive, or two pictures have the same name.
    OSError : one cannot be opened.
    """
    index = _Index([], left)
    gzipped: dict[str, Gzipped] = {}
    for prefix, archive in archives.items():
        opened: Callable[[], Any] = partial(open_file, archive, filesystem)
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
            with opened() if archive in gzipped else open_file(archive, filesystem, stream=once) as stream:
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
