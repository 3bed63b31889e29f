"""The page of a version in MLflow after a step has used it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from dlpipe.errors import DlpipeError

if TYPE_CHECKING:
    from dlpipe.registry import ModelVersion


def renew_page(version: ModelVersion) -> None:
    """Have the page of a version say what it was used for; where that cannot be, `dlpipe bridge sync` does it."""
    from dlpipe.lineage import Records, renew_pages

    with suppress(DlpipeError):
        renew_pages(Records(), [version])
