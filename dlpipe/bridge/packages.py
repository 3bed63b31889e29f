"""The code package of a run: the code of its tasks, as Metaflow packed and kept it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from dlpipe.bridge.datastore import Unreadable, find_place, read_blob
from dlpipe.bridge.metadata import list_objects, read_metadata


def read_code_package(run: str) -> bytes | None:
    """Return the ``tar.gz`` with the code of the run ``Flow/run``; ``None`` where it kept none that can be read.

    Raises
    ------
    StorageUnavailable
        When the datastore does not answer.
    """
    for kind, location, digest in dict.fromkeys(list_packages(run)):
        flow = run.partition("/")[0]
        try:
            return read_blob(find_place(kind, location, flow), flow, digest)
        except Unreadable:  # removed, or damaged: another task may name another
            continue
    return None


def list_packages(run: str) -> Iterator[tuple[str, str, str]]:
    """Yield the packages that the tasks of a run name, as kind of datastore, place and SHA-1.

    A task that began while the code was packed names none.
    """
    for step in list_objects("run", "step", *run.split("/")):
        for task in list_objects("step", "task", *run.split("/"), str(step["step_name"])):
            for entry in read_metadata(f"{run}/{step['step_name']}/{task['task_id']}"):
                if entry["field_name"] == "code-package":
                    package = json.loads(entry["value"])
                    yield str(package["ds_type"]), str(package["location"]), str(package["sha"])
