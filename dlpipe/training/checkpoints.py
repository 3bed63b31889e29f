"""Where checkpoints go. A checkpoint is a folder of files; half of one is never seen."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol

from dlpipe.durable import move_folder


class Checkpoints(Protocol):
    """Keeps the state of a training so that it can go on after a kill."""

    def latest(self) -> Path | None:
        """Return a folder with the newest state, or ``None`` to start from the beginning."""

    def save(self, folder: Path) -> None:
        """Keep a copy of the files in ``folder`` as the newest state, durably, before returning."""


class FolderCheckpoints:
    """Checkpoints in one local folder; a new one replaces the old one by a rename."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def latest(self) -> Path | None:
        """Return the folder of the newest complete checkpoint."""
        kept = sorted(self._folder.glob("step-*"))
        return kept[-1] if kept else None

    def save(self, folder: Path) -> None:
        """Copy under a temporary name, rename, then remove the older one."""
        old = sorted(self._folder.glob("step-*"))
        number = int(old[-1].name.removeprefix("step-")) + 1 if old else 0
        half = self._folder / "half-written"
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(folder, half)
        move_folder(half, self._folder / f"step-{number:06d}")
        for one in old:
            shutil.rmtree(one)
