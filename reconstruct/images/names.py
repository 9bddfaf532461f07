"""Names of files and layers as people read them, and as parts of other files' names.

On disk a name is any bytes, and a layer's is any text. Here, and nowhere else, they become one line of plain text. What
cannot stand in it is written by its bytes, as in addresses: ``caf%E9.jpg`` where a name is not UTF-8, ``a%0Ab.jpg``
where a line ends in it.
"""

from __future__ import annotations

import hashlib

from reconstruct.errors import cut, words_of

LONGEST = 160
"""Characters of a name in a message."""
LONGEST_FILE = 255
"""Bytes of a file's name, as most file systems have it."""


def shown(name: object) -> str:
    r"""A name in tables, figures and rows: one printable line; what is one already is left as it is.

    Examples
    --------
    >>> from reconstruct.images.names import shown
    >>> shown("caf\udce9.jpg"), shown("two\nlines.png"), shown("50 %.png")
    ('caf%E9.jpg', 'two%0Alines.png', '50 %.png')
    """
    return "".join(each if each.isprintable() else escaped(each) for each in str(name))


def told(name: object) -> str:
    """A name in a message: as shown, without its middle where it is longer than a line or two."""
    return cut(shown(name), LONGEST)


def reason(error: BaseException) -> str:
    """What somebody else's error says, as a part of a sentence: a file's own bytes may be in it.

    Of the system's errors the reason alone, without number and path.
    """
    said = error.strerror if isinstance(error, OSError) else None
    return cut(shown(said or words_of(error)), LONGEST)


def file_name(first: str, *parts: str) -> str:
    """The name of a file that says what it is of: picture, model, layer, and the like, with dots between.

    Each part is as shown, without separators of folders. Where all are longer than a name may be, the first one is
    cut, and a digest of it stands for the rest.

    Examples
    --------
    >>> from reconstruct.images.names import file_name
    >>> file_name("photo", "googlenet", "conv1/7x7_s2", "png")
    'photo.googlenet.conv1%2F7x7_s2.png'
    """
    begin, *rest = map(file_part, (first, *parts))
    whole = ".".join((begin, *rest))
    if len(whole.encode()) <= LONGEST_FILE:
        return whole
    digest = hashlib.sha256(begin.encode()).hexdigest()[:12]
    return ".".join((f"{begin[:40]}-{digest}", *rest))


def file_part(name: str) -> str:
    """One part of a file's name, as of ``file_name``."""
    return shown(name).replace("/", "%2F").replace("\\", "%5C")


def method_part(method: str) -> str:
    """A method in a file's name: the user's own, ``module:function``, without the colon."""
    return method.replace(":", ".")


def escaped(character: str) -> str:
    """A character by its bytes."""
    # Bytes that are not UTF-8 come from the system as lone surrogates, which stand for them.
    if "\udc80" <= character <= "\udcff":
        return f"%{ord(character) - 0xDC00:02X}"
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
