"""What lies where a set is and is no part of it: counted by kind, and told in a sentence."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath

from reconstruct.images.names import shown


def ending(name: str) -> str:
    """A name's suffix, as what is left out is counted by it."""
    return shown(PurePosixPath(name).suffix.lower()[:12]) or "without suffix"


def told_left_out(left: Counter[str]) -> str:
    """What was left out, as a sentence; the commonest five kinds by name.

    Examples
    --------
    >>> from collections import Counter
    >>> from reconstruct.images.left_out import told_left_out
    >>> told_left_out(Counter({".md": 1})), told_left_out(Counter({".txt": 2, "hidden": 1}))
    ('1 file left out: .md', '3 files left out: 2 .txt, 1 hidden')
    >>> told_left_out(Counter({"folder of results": 1, ".md": 1}))
    '2 files and folders left out: 1 folder of results, 1 .md'
    """
    total = (+left).total()
    if not total:
        return ""
    folders = any(kind.startswith("folder") for kind in +left)
    if total == 1:
        (kind,) = +left
        return f"1 {kind} left out" if folders else f"1 file left out: {kind}"
    kinds = [f"{count:,} {kind}" for kind, count in (+left).most_common(5)]
    if others := total - sum(count for _, count in (+left).most_common(5)):
        kinds.append(f"{others:,} others")
    return f"{total:,} {'files and folders' if folders else 'files'} left out: {', '.join(kinds)}"
