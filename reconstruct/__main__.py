"""The console script's entry, and the only module that knows where the command line lies."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType


def main() -> None:
    """Run the command line."""
    _command_line().main()


def _command_line() -> ModuleType:
    """``cli.py``: inside the package in a wheel, at the top of the repository in a checkout."""
    here = Path(__file__).parent
    if (here / "cli.py").is_file():
        return import_module("reconstruct.cli")
    name = "reconstruct.cli"
    if name not in sys.modules:
        spec = spec_from_file_location(name, here.parent / "cli.py")
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


if __name__ == "__main__":
    main()
