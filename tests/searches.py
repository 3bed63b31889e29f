"""A search with Ray Tune that starts Ray itself, and what it leaves behind."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

from dlpipe.tables import TableVersion
from dlpipe.task.texts import TextTraining
from dlpipe.tuning import Tuned, TuningSettings, read_space, tune

SPACE = read_space(
    tomllib.loads("learning_rate = { low = 1e-5, high = 1e-2, log = true }\nbatch_size = { choices = [16, 32] }"),
    where="[search_space]",
)
SETTINGS = TuningSettings(trials=4, epochs=2, batch=2, seed=1)


@dataclass(frozen=True)
class Search:
    """What a search gave, said and left behind."""

    tuned: Tuned
    lines: list[str]
    left: list[str]


def searched(table: TableVersion, training: TextTraining) -> Search:
    """Search from the folder that the backbone stands in, naming it as a person there would."""
    before, backbone, others = Path.cwd(), Path(training.backbone), processes_of_ray()
    os.chdir(backbone.parent)
    lines: list[str] = []
    try:
        near = replace(training, backbone=backbone.name)
        tuned = tune(table, space=SPACE, settings=SETTINGS, training=near, say=lines.append)
    finally:
        os.chdir(before)
    return Search(tuned, lines, sorted(processes_of_ray() - others))


def processes_of_ray() -> set[str]:
    """Return the ids and commands of Ray's living processes that this one started."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if parent == str(os.getpid()) and "ray" in command:
            found.add(f"{entry.name} {command}")
    return found
