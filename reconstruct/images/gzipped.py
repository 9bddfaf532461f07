"""Files packed by gzip, read at any place without a copy of what they hold.

gzip can only be unpacked from its beginning on. Where a reader has been, the state of the unpacking is kept every few
megabytes, so that what lies behind is reached from there. A file a thousand times as long as it is packed is refused.
"""

from __future__ import annotations

import io
import threading
import zlib
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, NamedTuple

from reconstruct.images.content import GZIP
from reconstruct.images.limits import MOST_TIMES_UNPACKED, MOST_UNPACKED

_CHUNK = 1 << 14  # of the packed file: at most 16 MB unpacked
_MOST_STATES = 1024  # of some 50 kB each
_BETWEEN = 1 << 22
_WITH_HEADER = 31  # of zlib: gzip's own form


class _State(NamedTuple):
    """Where unpacking can go on: the place in what is unpacked, that in the file, and zlib's state there."""

    unpacked: int
    packed: int
    inflate: Any


class Gzipped:
    """A packed file, and the states that its readers have left; a copy sent to another process has none of them.

    Parameters
    ----------
    opened : opens the file, which can be read and sought in.
    """

    def __init__(self, opened: Callable[[], Any]) -> None:
        self.opened = opened
        self._start()

    def reader(self) -> Reader:
        """What it holds, as a file of its own; each thread takes one."""
        return Reader(self)

    def before(self, place: int) -> _State:
        """The last state that is not behind a place of what is unpacked."""
        with self._lock:
            found = self._states[bisect_right(self._states, place, key=lambda state: state.unpacked) - 1]
            return found._replace(inflate=found.inflate.copy())

    def keep(self, state: _State, size: int) -> None:
        """Keep a copy of a state where the last one is far enough behind; ``size``: bytes of the packed file."""
        between = max(_BETWEEN, size // _MOST_STATES * 4)
        with self._lock:
            if state.unpacked >= self._states[-1].unpacked + between and len(self._states) < _MOST_STATES:
                self._states.append(state._replace(inflate=state.inflate.copy()))

    def __getstate__(self) -> dict[str, Any]:
        return {"opened": self.opened}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.opened = state["opened"]
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._states = [_State(0, 0, zlib.decompressobj(_WITH_HEADER))]


class Reader(io.RawIOBase):
    """What a packed file holds; reading raises ``OSError`` where it is damaged, cut off or too long."""

    def __init__(self, whole: Gzipped) -> None:
        self._whole, self._file = whole, whole.opened()
        self._size = self._file.seek(0, io.SEEK_END)
        self._at, self._piece = 0, b""
        self._go_to(0)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET:
            raise OSError("its end is not known before it is reached")
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        self._go_to(self._at)
        found = []
        while size:
            ahead = self._piece[self._at - self._begin :]
            if not ahead:
                if not self._next_piece():
                    break
                continue
            ahead = ahead if size < 0 else ahead[:size]
            found.append(ahead)
            self._at += len(ahead)
            size -= len(ahead) if size > 0 else 0
        return b"".join(found)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _go_to(self, place: int) -> None:
        """Unpack until a place lies in the piece, or right behind it, or behind the end."""
        state = self._whole.before(place)
        end = getattr(self, "_begin", -1) + len(self._piece)
        if not getattr(self, "_begin", place + 1) <= place or state.unpacked > end:
            self._begin, self._packed, self._inflate = state
            self._piece, self._over = b"", False
            self._file.seek(self._packed)
        while place > self._begin + len(self._piece) and self._next_piece():
            pass

    def _next_piece(self) -> bool:
        """Unpack on; whether there was more."""
        if self._over:
            return False
        content = self._file.read(_CHUNK)
        if not content:
            raise OSError("it is cut off")
        self._begin += len(self._piece)
        try:
            self._piece = self._inflate.decompress(content)
        except zlib.error as error:
            raise OSError(f"it is damaged: {error}") from error
        self._packed += len(content) - len(self._inflate.unused_data)
        if self._begin + len(self._piece) > max(MOST_UNPACKED, MOST_TIMES_UNPACKED * self._size):
            raise OSError(f"unpacked it has more than {max(MOST_UNPACKED, MOST_TIMES_UNPACKED * self._size):,} bytes")
        if self._inflate.eof:  # another may follow, or zeros
            self._file.seek(self._packed)
            self._over = self._file.read(2) != GZIP
            self._file.seek(self._packed)
            self._inflate = zlib.decompressobj(_WITH_HEADER)
        if not self._over:
            self._whole.keep(_State(self._begin + len(self._piece), self._packed, self._inflate), self._size)
        return True
