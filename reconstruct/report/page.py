"""Placeholder."""

from collections.abc import Sequence
from pathlib import Path


def write_report(folders: Sequence[Path], target: Path) -> None:
    target.write_text("placeholder")
