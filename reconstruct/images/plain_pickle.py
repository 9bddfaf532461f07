"""Pickles of plain data, read without pickle: dictionaries, lists, numbers, text, bytes, and arrays of whole numbers.

CIFAR is published as pickles, and a pickle is a program. The standard machine for it runs what it is allowed to, and
NumPy's own part of it can be led to make arrays of objects at addresses of a file's choice, which ends the process.
This reader knows the few instructions that data needs. A name that a pickle calls is a word here, compared with a few.
"""

from __future__ import annotations

import pickletools
from typing import Any, NamedTuple

import numpy

from reconstruct.errors import words_of

MOST_INSTRUCTIONS = 3_000_000
"""Instructions that are read: CIFAR-100's training pictures have some 500,000, and one takes a microsecond."""

_MARK = object()
_TYPES = {f"{kind}{size}": numpy.dtype(f"{kind}{size}") for kind in "ui" for size in (1, 2, 4, 8)}
_RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_BYTES = ("__builtin__ bytes", "builtins bytes")
_NAMES = (*_RECONSTRUCT, *_BYTES, "numpy ndarray", "numpy dtype", "_codecs encode")


class PlainPickleError(ValueError):
    """A pickle that holds more than plain data, or is damaged."""


class _Name(NamedTuple):
    """What a pickle would call."""

    text: str


class _Array:
    """An array that a pickle makes first and fills later."""

    values: numpy.ndarray | None = None

    def fill(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        if not isinstance(kind, _Kind) or not isinstance(content, bytes):
            raise PlainPickleError("an array is not of whole numbers")
        flat = numpy.frombuffer(content, kind.dtype)
        self.values = flat.reshape(shape, order="F" if fortran else "C")


class _Kind:
    """The type of an array's numbers, of which a pickle says the byte order later."""

    def __init__(self, name: Any) -> None:
        name = name.decode("latin-1") if isinstance(name, bytes) else name
        if name not in _TYPES:
            raise PlainPickleError(f"an array is of the type {name!r:.40}, and none but whole numbers are read")
        self.dtype = _TYPES[name]

    def fill(self, state: Any) -> None:
        order = state[1].decode() if isinstance(state[1], bytes) else state[1]
        self.dtype = self.dtype.newbyteorder(">" if order == ">" else "<" if order == "<" else "=")


def read_plain_pickle(content: bytes) -> Any:
    """What a pickle holds; strings of Python 2 are bytes.

    Raises
    ------
    PlainPickleError : it holds something else than plain data, or is damaged. Nothing of it was run.
    """
    try:
        return _values(_interpreted(content))
    except PlainPickleError:
        raise
    except Exception as error:  # a damaged pickle may ask for anything
        raise PlainPickleError(f"it is damaged ({words_of(error, 100)})") from error


def _values(found: Any) -> Any:
    """Arrays in place of what was filled, in a dictionary or by itself."""
    if isinstance(found, dict):
        return {key: _values(value) if isinstance(value, _Array) else value for key, value in found.items()}
    return found.values if isinstance(found, _Array) else found


def _interpreted(content: bytes) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for count, (code, argument, _) in enumerate(pickletools.genops(content)):
        if count > MOST_INSTRUCTIONS:
            raise PlainPickleError(f"it has more than {MOST_INSTRUCTIONS:,} instructions")
        name = code.name
        if name in _PLAIN:
            stack.append(argument)
        elif name in _PYTHON_2_TEXT:
            stack.append(argument.encode("latin-1"))
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[argument])
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            _step(name, argument, stack)
    raise PlainPickleError("it has no end")


def _step(name: str, argument: Any, stack: list[Any]) -> None:
    """An instruction that takes what others have put on the stack."""
    match name:
        case "APPEND":
            value = stack.pop()
            _of(stack[-1], list).append(value)
        case "APPENDS":
            values = _to_mark(stack)
            _of(stack[-1], list).extend(values)
        case "SETITEM":
            value, key = stack.pop(), stack.pop()
            _of(stack[-1], dict)[_key(key)] = value
        case "SETITEMS":
            values = _to_mark(stack)
            _of(stack[-1], dict).update(zip(map(_key, values[::2]), values[1::2], strict=True))
        case "TUPLE" | "LIST":
            values = _to_mark(stack)
            stack.append(tuple(values) if name == "TUPLE" else values)
        case "TUPLE1" | "TUPLE2" | "TUPLE3":
            values = [stack.pop() for _ in range(int(name[-1]))]
            stack.append(tuple(values[::-1]))
        case "DICT":
            values = _to_mark(stack)
            stack.append(dict(zip(map(_key, values[::2]), values[1::2], strict=True)))
        case "GLOBAL":
            stack.append(_name(argument))
        case "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_name(f"{module} {attribute}"))
        case "REDUCE":
            arguments, called = stack.pop(), stack.pop()
            stack.append(_called(called, arguments))
        case "BUILD":
            state = stack.pop()
            _of(stack[-1], (_Array, _Kind)).fill(state)
        case _:
            raise PlainPickleError(f"it holds an instruction that data does not need, {name}")


def _called(called: Any, arguments: Any) -> Any:
    if called in map(_Name, _RECONSTRUCT):
        return _Array()
    if called == _Name("numpy dtype"):
        return _Kind(arguments[0])
    if called == _Name("_codecs encode"):
        return _of(arguments[0], str).encode("latin-1")
    if called in map(_Name, _BYTES) and arguments == ():
        return b""
    raise PlainPickleError("it would call what is no function of data")


def _name(text: str) -> _Name:
    if text not in _NAMES:
        raise PlainPickleError(f"it would run {text.replace(' ', '.'):.100}")
    return _Name(text)


def _of(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise PlainPickleError("it is damaged: an instruction has nothing that it fits")
    return value


def _key(key: Any) -> bytes:
    """A dictionary's key; text, as Python 3 writes it, is taken for Python 2's."""
    # Of another type none is needed, and one that is nested deeply is not to be hashed.
    return key.encode() if isinstance(key, str) else _of(key, bytes)


def _to_mark(stack: list[Any]) -> list[Any]:
    """What lies above the uppermost mark, both taken off."""
    values = []
    while (value := stack.pop()) is not _MARK:
        values.append(value)
    return values[::-1]


_CONSTANTS: dict[str, Any] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "MARK": lambda: _MARK,
}
_PLAIN = frozenset(
    ("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE",
     "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8")
)  # fmt: skip
_PYTHON_2_TEXT = frozenset(("STRING", "BINSTRING", "SHORT_BINSTRING"))
