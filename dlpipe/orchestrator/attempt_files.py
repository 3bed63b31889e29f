"""What an attempt left in files: its log, the address of its MLflow run, the cards of its Metaflow run."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dlpipe.orchestrator.deployments import Version
from dlpipe.orchestrator.runs import RunAttempt

TAIL_BYTES = 64 * 1024
MLFLOW_LINE = "MLflow has this run: "
CARD_HEAD_BYTES = 256 * 1024
CARD_DATA = re.compile(rb'__MF_DATA__\["[^"]*"\] = "([A-Za-z0-9+/=]{0,8192})"')
"""What the page of Metaflow's own cards is drawn from, where it is little."""


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


def find_running_mlflow_run(version: Version, attempt: RunAttempt) -> str:
    """The address of the MLflow run of an attempt that goes on, as the bridge notes it; empty if there is none."""
    if not attempt.metaflow_run or "/" in attempt.metaflow_run:
        return ""
    note = find_home(version) / version.flow / attempt.metaflow_run / "_bridge" / "mlflow.json"
    try:
        return str(json.loads(note.read_bytes())["address"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


@dataclass(frozen=True)
class CardFile:
    """A card of a task, as a file."""

    step: str
    task: str
    name: str
    file: Path


def find_cards(version: Version, attempt: RunAttempt) -> list[CardFile]:
    """The cards of an attempt's Metaflow run, by step, where they are files on this machine and show something."""
    if not attempt.metaflow_run or "/" in attempt.metaflow_run:
        return []
    return sorted(_list_cards(find_card_root(version) / version.flow / "runs" / attempt.metaflow_run), key=_order)


def _order(card: CardFile) -> tuple[str, int, str, str]:
    return (card.step, len(card.task), card.task, card.name)


def _list_cards(run: Path) -> Iterator[CardFile]:
    for file in run.glob("steps/*/tasks/*/cards/*.html"):
        step, task = file.parts[-5], file.parts[-3]
        kind, _, name = file.stem.rpartition("-")[0].partition("-")
        try:
            found = file.stat()
        except OSError:  # it was drawn anew meanwhile
            continue
        if not _is_blank(file, found.st_size, found.st_mtime_ns):
            yield CardFile(step, task, name or kind, file)


@lru_cache(maxsize=4096)
def _is_blank(file: Path, _size: int, _changed: int) -> bool:
    """Whether a card is a page of Metaflow's with nothing on it."""
    try:
        with file.open("rb") as opened:
            data = CARD_DATA.search(opened.read(CARD_HEAD_BYTES))
        pages = json.loads(base64.b64decode(data[1]))["components"] if data else []
        return bool(pages) and all(page["type"] == "page" and not page["contents"] for page in pages)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def find_card_root(version: Version) -> Path:
    """Where Metaflow puts cards: in the nearest ``.metaflow`` at or above the folder in which runs work."""
    named = version.variables.get("METAFLOW_CARD_LOCALROOT")
    if named:
        return Path(named)
    return find_home(version) / "mf.cards"


def find_home(version: Version) -> Path:
    """The nearest ``.metaflow`` at or above the folder in which runs work."""
    folder = Path(version.folder)
    homes = [home for home in (folder, *folder.parents) if (home / ".metaflow").is_dir()]
    return (homes[0] if homes else folder) / ".metaflow"


def build_card_command(version: Version, run: str, card: CardFile) -> str:
    """The command with which Metaflow opens a card."""
    script = Path(version.code, version.script)
    return shlex.join([version.python, str(script), "card", "view", f"{run}/{card.step}/{card.task}"])
