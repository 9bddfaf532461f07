"""Build hook: a wheel carries ``models/`` inside the package.

In a checkout it lies at the top, and an editable install reads it there, so only a real wheel gets a copy.
"""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PackageData(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the folder that moves."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            build_data["force_include"] |= {"models": "reconstruct/models"}
