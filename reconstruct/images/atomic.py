"""Files written whole or not at all, and what stands in their names."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary file beside ``path``, then rename: a full disk or a kill leaves nothing half-written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def file_part(method: str) -> str:
    """A method's name in names of files: that of the user's own, ``module:function``, without the colon."""
    return method.replace(":", ".")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
