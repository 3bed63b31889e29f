"""Writes into a wheel what is of no package: a list of the packages for Metaflow, the flows for `dlpipe init`."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGES = "metaflow_extensions/top_level.txt"


class MoreFiles(BuildHookInterface):
    """Adds ``top_level.txt``, by which Metaflow knows that dlpipe extends it, and the flows to the template."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files to a wheel; of an editable one, package and flows are found where they are."""
        if version == "standard":
            folder = f"{self.metadata.name}-{self.metadata.version}.dist-info"
            build_data["force_include"][PACKAGES] = f"{folder}/top_level.txt"
            build_data["force_include"]["flows"] = "dlpipe/templates/project/flows"
