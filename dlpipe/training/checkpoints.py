"""Where checkpoints go. A checkpoint is a folder of files, and half of one is never read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol

from dlpipe.durable import move_folder


class Checkpoints(Protocol):
    """Saves the state of a training, so that it can resume after a kill."""

    def latest(self) -> Path | None:
        """Return a folder with the newest state, or ``None`` to start from the beginning."""

    def save(self, folder: Path) -> None:
        """Copy the files in ``folder`` as the newest state; they are on the disk when this returns."""


class FolderCheckpoints:
    """Checkpoints in one local folder; a new one replaces the old one by a rename."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def latest(self) -> Path | None:
        """Return the folder of the newest complete checkpoint."""
        folders = sorted(self._folder.glob("step-*"))
        return folders[-1] if folders else None

    def save(self, folder: Path) -> None:
        """Copy under a temporary name, rename, then remove the older one."""
        older = sorted(self._folder.glob("step-*"))
        number = int(older[-1].name.removeprefix("step-")) + 1 if older else 0
        half = self._folder / "half-written"
        shutil.rmtree(half, ignore_errors=True)  # of a process that was killed while it copied
        shutil.copytree(folder, half)
        move_folder(half, self._folder / f"step-{number:06d}")
        # only now, so that there is always a whole one; killed here, both stay, and the next call removes them
        for checkpoint in older:
            shutil.rmtree(checkpoint)
