"""How many threads this process keeps busy: told to torch, NumPy and SciPy before they are imported."""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def hold(count: int | None = None) -> None:
    """Hold the libraries to so many threads, which give up their core while they wait for each other.

    By default as many as they would start themselves, one a core, but not more than a container's CPU quota has room
    for, of which they know nothing: threads beyond it stop the others. What the user's own variables say is kept.

    Waiting, threads spin unless they are told not to: beside another busy process that takes two to four times as
    long, for some 5 % that it saves alone.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if count is not None:
        os.environ |= dict.fromkeys(VARIABLES, str(count))
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(count)
        return
    quota = cpu_quota()
    if quota is not None and quota < (os.cpu_count() or 1) and VARIABLES[0] not in os.environ:
        hold(max(1, int(quota)))


def cpu_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """How many cores a container may keep busy, as Linux's control groups say; None where nothing holds it back.

    Parameters
    ----------
    root : where control groups are mounted, of version 2 or 1.
    """
    try:
        if (new := root / "cpu.max").is_file():
            quota, period = new.read_text().split()[:2]
        else:
            old = root / "cpu"
            quota, period = ((old / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        share = float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such files, or "max"
        return None
    return share if share > 0 else None
