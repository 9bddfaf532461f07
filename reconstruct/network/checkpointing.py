"""Reentrant checkpointing, left out: it saves memory in training, gives the same numbers, and hides the gradient."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils import checkpoint

_REENTRANT: Any = checkpoint.CheckpointFunction
_HERE = threading.local()
_LOCK = threading.Lock()
_running = 0


class _Plain:
    """In place of torch's function; other threads than those that leave checkpointing out have torch's own."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve_rng_state: bool, *inputs: Any) -> Any:
        if getattr(_HERE, "depth", 0):
            return function(*inputs)
        return _REENTRANT.apply(function, preserve_rng_state, *inputs)


@contextmanager
def without_checkpointing() -> Iterator[None]:
    """Within it ``torch.utils.checkpoint.checkpoint(..., use_reentrant=True)`` runs what it is given, and no more."""
    global _running  # noqa: PLW0603  # torch's name is everybody's
    with _LOCK:
        _running += 1
        checkpoint.CheckpointFunction = _Plain  # type: ignore[misc,assignment]
    _HERE.depth = getattr(_HERE, "depth", 0) + 1
    try:
        yield
    finally:
        _HERE.depth -= 1
        with _LOCK:
            _running -= 1
            if not _running:
                checkpoint.CheckpointFunction = _REENTRANT  # type: ignore[misc]
