import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.fuzz.children import check_message
from tests.fuzz.kinds import KINDS
from tests.fuzz.mutations import bytes_of, tree

COUNT = 200


def test_hostile_inputs_are_told_in_a_sentence() -> None:
    """A slice of ``make fuzz``: no traceback, no hang, nothing half-written, nothing on standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--count", str(COUNT)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{COUNT} inputs (")
    assert done.stdout.endswith(": 0 findings\n")


@pytest.mark.slow
def test_what_gets_past_is_found(tmp_path: Path) -> None:
    """A reader that fails, ends its process, hangs, grows, says too much or leaves half a file behind."""
    faults = {
        "raise": "raise KeyError('x')",
        "end": "import os; os._exit(3)",
        "hang": "while True: pass",
        "grow": "x = b'a' * (128 << 20)",
        "talk": "import os; os.write(2, b'libtiff says')",
        "long": "from reconstruct.errors import CallError; e = CallError(); e.args = ('a' * 9999,); raise e",
        "half": "(folder / '.a.png.xyz').write_bytes(b'')",
        "fine": "pass",
    }
    script = [
        "import sys", "from pathlib import Path", "from tests.fuzz import children, kinds",
        f"faults = {faults!r}", "children.SECONDS, children.MEMORY = 2.0, 64 << 20", "kinds.KINDS.clear()",
        "def reader(text): return lambda folder: exec(text, {'folder': folder})",
        "kinds.KINDS.update({name: (lambda folder, rng: None, reader(text)) for name, text in faults.items()})",
        "names = list(faults)",
        f"found = list(children.run(list(range(len(names))), names, 0, 2, Path({str(tmp_path)!r})))",
        "print(sorted((each.kind, each.what) for each in found if each is not None), len(found))",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(script)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = [
        ("end", "Ended"), ("grow", "Memory"), ("half", "HalfWritten"), ("hang", "Hang"), ("long", "MessageError"),
        ("raise", "KeyError"), ("talk", "Words"),
    ]  # fmt: skip
    assert done.stdout == f"{found} {len(faults)}\n"


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_follow_from_the_seed(kind: str, tmp_path: Path) -> None:
    """So that a finding can be made again: twice the same files, to the byte."""
    made = []
    for _ in range(2):
        folder = tmp_path / "a"
        folder.mkdir()
        KINDS[kind][0](folder, random.Random(5))
        made.append({path: path.read_bytes() for path in folder.rglob("*") if path.is_file()})
        shutil.rmtree(folder)
    assert made[0] == made[1]


def test_mutations_leave_the_original() -> None:
    content, found = b"0123456789" * 10, {"a": [1, {"b": 2}]}
    for seed in range(100):
        bytes_of(content, random.Random(seed), b"other")
        tree(found, random.Random(seed))
    assert (content, found) == (b"0123456789" * 10, {"a": [1, {"b": 2}]})
    with pytest.raises(KeyError):
        check_message(KeyError("x"))
