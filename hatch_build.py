"""Build hook: a wheel carries ``models/`` and the photograph of ``reconstruct demo`` inside the package.

In a checkout they lie at the top, and an editable install reads them there, so only a real wheel gets copies.
"""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PackageData(BuildHookInterface):  # type: ignore[type-arg]
    """Adds what moves."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            build_data["force_include"] |= {
                "models": "reconstruct/models",
                "samples/chelsea.jpg": "reconstruct/samples/chelsea.jpg",
            }
