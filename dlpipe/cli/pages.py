"""Pages that commands write with ``--html``."""

from __future__ import annotations

import os
from pathlib import Path

from dlpipe.errors import SettingError


def check_page(file: Path) -> None:
    """Raise ``SettingError`` where a page could not be written to ``file``: said before models predict."""
    if not file.parent.is_dir():
        raise SettingError(f"--html {file} cannot be written: there is no folder {file.parent}. Make it first.")
    if not os.access(file.parent, os.W_OK) or (file.exists() and not os.access(file, os.W_OK)):
        raise SettingError(f"--html {file} cannot be written: you may not. Name a file where you may.")


def write_page(file: Path, page: str) -> None:
    """Write a page to a file, whole or not at all.

    Raises
    ------
    SettingError
        When the file cannot be written.
    """
    from dlpipe.durable import write_file

    try:
        write_file(file, page)
    except OSError as error:
        told = error.strerror or str(error)
        raise SettingError(f"--html {file} cannot be written: {told}. Name a file where you may.") from None
