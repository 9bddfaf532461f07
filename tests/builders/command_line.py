"""The command line in a process of its own, and calls of it that are refused."""

import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT, Call

SAMPLE = str(ROOT / "samples" / "chelsea.jpg")


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Where the process itself matters; ``call``, in the tests' own process, is quicker by seconds."""
    return subprocess.run(
        [sys.executable, "-m", "reconstruct", *arguments], check=False, capture_output=True, text=True, cwd=cwd
    )


def refused(call: Call, *arguments: str | Path | int, status: int = 2) -> str:
    """What a failing call prints, all of it on standard error."""
    found, out, err = call(*arguments)
    assert (found, out) == (status, ""), err
    assert "Traceback" not in err
    return err
