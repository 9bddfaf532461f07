"""The command line in a process of its own."""

import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

SAMPLE = str(ROOT / "samples" / "chelsea.jpg")


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reconstruct", *arguments], check=False, capture_output=True, text=True, cwd=cwd
    )


def refused(*arguments: str, status: int = 2, cwd: Path | None = None) -> str:
    """The one line that a failing call prints."""
    done = run(*arguments, cwd=cwd)
    assert done.returncode == status, (done.stdout, done.stderr)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr
