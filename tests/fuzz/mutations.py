"""Damage: to bytes, to trees of values, and to headers whose sums have to be right for anybody to read on."""

import random
import struct
from collections.abc import Callable
from typing import Any

DEEP = "@deep@"
"""A word that stands for lists in lists in lists, deeper than Python goes; ``deepened`` puts them into a text."""
WORDS = [
    "", "a", "\0", "..", "../../x", "/dev/zero", "a" * 300, "a" * 5000, "all", "nan", "é\u202e\n", "1" * 400, "0", "-1",
    "conv1", "features", "\ud7ff", "{}", "%s%n", "x.png", "<script>",
]  # fmt: skip
NUMBERS: list[Any] = [
    0, -1, 1, 2, 255, 256, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 10**20, 10**400, -(10**400), 1e300, 1e-320,
    -1e300, 1e39, 0.5, 1e-46, float("inf"), float("nan"), True, False, None,
]  # fmt: skip
SHAPES: list[Any] = [[], {}, [[]], [None], ["a"] * 50, [1] * 5000, {"a": 1}, [0.5, 0.5, 0.5], {"0": {"1": []}}]
_BITS = (b"\0", b"\xff", b"\x7f", b"\x80", b"\1", b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f")


def bytes_of(content: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """A few changes somewhere, more of them in the beginning, where headers are."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if not data:
            return bytes(rng.randbytes(rng.randrange(64)))
        near = min(len(data), rng.choice((16, 64, 256, len(data))))
        at = rng.randrange(near) if rng.random() < 0.8 else len(data) - 1 - rng.randrange(near)
        match rng.randrange(9):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at] = rng.randrange(256)
            case 2:
                bits = rng.choice(_BITS)
                data[at : at + len(bits)] = bits
            case 3:
                del data[at:]
            case 4:
                del data[at : at + rng.randrange(1, 64)]
            case 5:
                data[at:at] = data[at : at + rng.randrange(1, 200)] * rng.choice((1, 1, 40))
            case 6:
                data[at:at] = rng.choice(_BITS) * rng.choice((1, 100))
            case 7:
                data[at : at + 4] = struct.pack(rng.choice("<>") + "I", rng.choice((0, 1, 65535, 2**31 - 1, 2**32 - 1)))
            case _:
                start = rng.randrange(len(other)) if other else 0
                data[at : at + 50] = other[start : start + rng.randrange(1, 500)]
    return bytes(data)


def value(rng: random.Random) -> Any:
    """A value that nobody expects."""
    match rng.randrange(8):
        case 0 | 1:
            return rng.choice(WORDS)
        case 2:
            return rng.choice(SHAPES)
        case 3:
            deep: Any = 1
            for _ in range(rng.choice((3, 30))):
                deep = [deep] if rng.random() < 0.5 else {"a": deep}
            return rng.choice((deep, DEEP))
        case _:
            return rng.choice(NUMBERS)


def deepened(text: str) -> str:
    return text.replace(f'"{DEEP}"', "[" * 5000 + "]" * 5000)


def tree(found: Any, rng: random.Random, make: Callable[[random.Random], Any] = value) -> Any:
    """A tree of dictionaries and lists with another value, key or length somewhere; the original stays."""
    if isinstance(found, dict) and found and rng.random() < 0.85:
        key, how = rng.choice(list(found)), rng.randrange(12)
        if how == 0:
            return {name: each for name, each in found.items() if name != key}
        return found | ({rng.choice(WORDS): make(rng)} if how == 1 else {key: tree(found[key], rng, make)})
    if isinstance(found, list) and found and rng.random() < 0.8:
        at, how = rng.randrange(len(found)), rng.randrange(10)
        inside = {0: [], 1: [found[at], *found[at:]]}.get(how) if how < 2 else [tree(found[at], rng, make)]
        return [*found[:at], *(inside or []), *found[at + 1 :]]
    return make(rng)


def tar_header(content: bytes, rng: random.Random) -> bytes:
    """An archive with one header changed and its sum right again."""
    places = [at for at in range(0, len(content) - 511, 512) if content[at + 257 : at + 262] == b"ustar"]
    if not places:
        return bytes_of(content, rng)
    at = rng.choice(places)
    header = bytearray(content[at : at + 512])
    field, width = rng.choice(((0, 100), (100, 8), (124, 12), (124, 12), (136, 12), (156, 1), (157, 100), (345, 155)))
    match rng.randrange(5):
        case 0:
            new = rng.choice((b"\x80", b"\xff")) + rng.randbytes(width - 1)
        case 1:
            new = rng.choice((b"77777777777\0", b"00000000000\0", b"-1\0", b"9x\0", b"\xff\xff\xff\xff"))
        case 2:
            new = rng.choice(WORDS).encode("utf-8", "surrogatepass")
        case 3:
            new = rng.choice((b"L", b"K", b"x", b"g", b"S", b"1", b"2", b"5", b"7", b"V", b"\0"))
        case _:
            new = rng.randbytes(width)
    new = new[:width]
    header[field : field + len(new)] = new
    header[148:156] = b"%06o\0 " % (sum(header) - sum(header[148:156]) + 8 * 32)
    return content[:at] + bytes(header) + content[at + 512 :]
