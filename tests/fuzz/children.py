"""Processes that read hostile inputs and are watched: none may hang, grow beyond its memory, or die."""

import contextlib
import faulthandler
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from reconstruct.errors import ReconstructError, ReconstructWarning

SECONDS = 10.0
"""How long an input may take, by the processor's clock: the machine may have more to do. By the wall's, five times."""
MEMORY = 2 << 30
"""How much an input may add to a process, in bytes."""
_HARD = 6 << 30  # beyond which a process is refused memory
LONGEST_MESSAGE = 2000
_RENEWED = 1000
"""Inputs of a process: libraries keep some memory of what they read."""


@dataclass(frozen=True)
class Finding:
    """An input that got past.

    Attributes
    ----------
    number : of the input; ``--only NUMBER`` makes it again.
    kind : of the input.
    what : the exception, or Hang, Memory, Ended, LongMessage, HalfWritten, Words (on standard error).
    where : the place in the package, as far as it is known.
    detail : the message.
    """

    number: int
    kind: str
    what: str
    where: str = ""
    detail: str = ""


@dataclass
class _Child:
    process: Any
    pipe: Connection
    left: list[int]
    current: int | None = None
    since: float = 0.0
    worked: float = 0.0
    trace: Path = field(default_factory=Path)


class MessageError(Exception):
    """An error of the package's own whose message is none for a person."""


def check_message(error: Exception) -> None:
    """Let an error of the package's own pass, if its message is one of bounded length."""
    if not isinstance(error, ReconstructError):
        raise error
    message = str(error)
    if len(message) > LONGEST_MESSAGE:
        raise MessageError(f"{len(message)} characters: {message[:80]}")
    if not message.strip():
        raise MessageError("an empty message")


def kind_of(number: int, kinds: list[str]) -> str:
    return kinds[number % len(kinds)]


def warm() -> None:
    """Import what readers import late, once, before the processes part."""
    for name in ("matplotlib.backends.backend_svg", "jinja2", "torch._dynamo", "scipy.special"):
        import_module(name)


def run(numbers: list[int], kinds: list[str], seed: int, processes: int, scratch: Path) -> Iterator[Finding | None]:
    """Read the inputs of these numbers, and yield for each a finding or None as they end."""
    shares = [numbers[place::processes] for place in range(processes)]
    children = [_started(share, kinds, seed, scratch) for share in shares if share]
    while children:
        ready = wait([child.pipe for child in children], timeout=0.5)
        for child in list(children):
            finding: Finding | None = None
            if child.pipe in ready:
                try:
                    begun, finding = child.pipe.recv()
                except EOFError:
                    children.remove(child)
                    child.process.join()
                    if child.current is not None:
                        yield _ended(child, kinds, "Ended", f"exit status {child.process.exitcode}")
                    if child.left:
                        children.append(_started(child.left, kinds, seed, scratch))
                    continue
                if begun is not None:
                    child.current, child.since, child.worked = begun, time.monotonic(), _worked(child)
                    child.left.remove(begun)
                else:
                    child.current = None
                    yield finding
            elif child.current is not None and _hangs(child):
                os.kill(child.process.pid, signal.SIGABRT)  # faulthandler tells where it was
                child.process.join(2)
                child.process.kill()
                child.process.join()
                children.remove(child)
                yield _ended(child, kinds, "Hang", f"more than {SECONDS:g} s")
                if child.left:
                    children.append(_started(child.left, kinds, seed, scratch))


def _hangs(child: _Child) -> bool:
    return _worked(child) - child.worked > SECONDS or time.monotonic() - child.since > 5 * SECONDS


def _worked(child: _Child) -> float:
    """Seconds of the processor that a child has taken; 0 once it has ended."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{child.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _ended(child: _Child, kinds: list[str], what: str, detail: str) -> Finding:
    lines = child.trace.read_text(errors="replace").splitlines() if child.trace.is_file() else []
    where = next((line.strip() for line in lines if "/reconstruct/" in line and "site-packages" not in line), "")
    return Finding(child.current or 0, kind_of(child.current or 0, kinds), what, where, detail)


def _started(numbers: list[int], kinds: list[str], seed: int, scratch: Path) -> _Child:
    context = get_context("fork")
    here, there = context.Pipe(duplex=False)
    trace = Path(tempfile.mkstemp(dir=scratch, prefix="trace-")[1])
    process = context.Process(
        target=_read_all, args=(numbers[:_RENEWED], kinds, seed, scratch, there, trace), daemon=True
    )
    process.start()
    there.close()
    return _Child(process, here, list(numbers), trace=trace)


def _read_all(numbers: list[int], kinds: list[str], seed: int, scratch: Path, pipe: Connection, trace: Path) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (_HARD, _HARD))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with trace.open("w") as file, tempfile.TemporaryFile(dir=scratch) as words:
        faulthandler.enable(file)
        os.dup2(words.fileno(), 2)
        sys.stderr = os.fdopen(2, "w", closefd=False, errors="replace")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        for number in numbers:
            pipe.send((number, None))
            folder = Path(tempfile.mkdtemp(dir=scratch))
            said = os.fstat(2).st_size
            finding = _read_one(number, kind_of(number, kinds), seed, folder)
            sys.stderr.flush()
            if finding is None and os.fstat(2).st_size > said:
                os.lseek(words.fileno(), said, os.SEEK_SET)
                told = os.read(words.fileno(), 300).decode(errors="replace")
                os.lseek(words.fileno(), 0, os.SEEK_END)
                finding = Finding(number, kind_of(number, kinds), "Words", "", told)
            shutil.rmtree(folder, ignore_errors=True)
            pipe.send((None, finding))
    pipe.close()
    os._exit(0)


def make(number: int, kind: str, seed: int, folder: Path) -> None:
    """Write the input of a number into a folder."""
    from tests.fuzz.kinds import KINDS

    KINDS[kind][0](folder, random.Random(f"{seed}/{number}/{kind}"))


def _read_one(number: int, kind: str, seed: int, folder: Path) -> Finding | None:
    from tests.fuzz.kinds import KINDS

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            make(number, kind, seed, folder)
    except Exception as error:  # a fault of the fuzzer's own
        return Finding(number, kind, "NotMade", "in the fuzzer", f"{type(error).__name__}: {error}"[:200])
    before = _forget_peak()
    what = None
    try:
        with warnings.catch_warnings():
            # Our own are sentences, as errors are; anybody else's are words that no user should see.
            warnings.simplefilter("ignore", ReconstructWarning)
            KINDS[kind][1](folder)
    except Exception as error:
        try:
            check_message(error)
        except Exception as past:
            what = Finding(number, kind, type(past).__name__, _place(past), " ".join(str(past).split())[:200])
    if what is None and (peak := _peak()) - before > MEMORY:
        what = Finding(number, kind, "Memory", "", f"{(peak - before) / 2**30:.1f} GiB")
    half = [path.name for path in folder.rglob(".*") if path.is_file() and path.name.count(".") > 2]
    if what is None and half:
        what = Finding(number, kind, "HalfWritten", "", ", ".join(half)[:200])
    return what


def _place(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/reconstruct/" in frame.filename]
    own = [frame for frame in frames if "site-packages" not in frame.filename]
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "in the fuzzer"


def _forget_peak() -> int:
    """Begin to count anew, where the system can; the memory that is in use."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    """The most memory that was in use, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
