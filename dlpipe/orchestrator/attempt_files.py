"""What an attempt left in files: its log, the address of its MLflow run, the cards of its Metaflow run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dlpipe.orchestrator.deployments import Version
from dlpipe.orchestrator.runs import RunAttempt

TAIL_BYTES = 64 * 1024
MLFLOW_LINE = "MLflow has this run: "


def find_log(attempt: RunAttempt) -> Path:
    """The file with everything that the attempt's launcher and tasks printed."""
    return Path(attempt.folder, "log")


def find_mlflow_run(attempt: RunAttempt) -> str:
    """Where MLflow has the attempt's run, as the bridge logged it: an address or words; empty if nowhere."""
    try:
        ended = find_log(attempt).stat()
        return _read_mlflow_line(str(find_log(attempt)), ended.st_size, ended.st_mtime_ns)
    except OSError:
        return ""


@lru_cache(maxsize=1024)
def _read_mlflow_line(log: str, size: int, changed: int) -> str:
    with open(log, "rb") as file:
        file.seek(max(0, size - TAIL_BYTES))
        text = file.read(TAIL_BYTES).decode(errors="replace")
    return text.rpartition(MLFLOW_LINE)[2].partition("\n")[0].strip() if MLFLOW_LINE in text else ""


@dataclass(frozen=True)
class CardFile:
    """A card of a task, as a file."""

    step: str
    task: str
    name: str
    file: Path


def find_cards(version: Version, attempt: RunAttempt) -> list[CardFile]:
    """The cards of an attempt's Metaflow run, by step, where they are files on this machine."""
    if not attempt.metaflow_run or "/" in attempt.metaflow_run:
        return []
    return sorted(_list_cards(find_card_root(version) / version.flow / "runs" / attempt.metaflow_run), key=_order)


def _order(card: CardFile) -> tuple[str, int, str, str]:
    return (card.step, len(card.task), card.task, card.name)


def _list_cards(run: Path) -> Iterator[CardFile]:
    for file in run.glob("steps/*/tasks/*/cards/*.html"):
        step, task = file.parts[-5], file.parts[-3]
        kind, _, name = file.stem.rpartition("-")[0].partition("-")
        yield CardFile(step, task, name or kind, file)


def find_card_root(version: Version) -> Path:
    """Where Metaflow puts cards: in the nearest ``.metaflow`` at or above the folder in which runs work."""
    named = version.variables.get("METAFLOW_CARD_LOCALROOT")
    if named:
        return Path(named)
    folder = Path(version.folder)
    homes = [home for home in (folder, *folder.parents) if (home / ".metaflow").is_dir()]
    return (homes[0] if homes else folder) / ".metaflow" / "mf.cards"


def build_card_command(version: Version, run: str, card: CardFile) -> str:
    """The command with which Metaflow opens a card."""
    script = Path(version.code, version.script)
    return shlex.join([version.python, str(script), "card", "view", f"{run}/{card.step}/{card.task}"])
