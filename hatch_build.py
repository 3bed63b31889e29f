"""Writes into the wheel what Metaflow looks for: a list of the packages at its top level, as setuptools has it."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGES = "metaflow_extensions/top_level.txt"


class TopLevel(BuildHookInterface):
    """Adds ``top_level.txt``: by that file Metaflow knows that dlpipe extends it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the file to a wheel; an editable one is found by its path."""
        if version == "standard":
            folder = f"{self.metadata.name}-{self.metadata.version}.dist-info"
            build_data["force_include"][PACKAGES] = f"{folder}/top_level.txt"
