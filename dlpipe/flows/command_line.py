"""What is put right before Metaflow reads a command line: where runs are kept, and which run is resumed."""

from __future__ import annotations

import sys
from pathlib import Path

from dlpipe.errors import RunNotFound
from dlpipe.flows.changes import join_changes

BEGINS_RUNS = {"run", "create", "launch"}
"""Commands that make runs, or a deployment that will."""
ELSEWHERE = {"--datastore", "--datastore-root", "--metadata"}
"""Options that name another place for runs: there Metaflow is left alone."""
ORIGIN = "--origin-run-id"


def prepare(flow: str, words: list[str]) -> None:
    """Prepare the command line ``words`` of ``flow``, which is changed in place.

    Raises
    ------
    RunNotFound
        When it resumes a run that is not there.
    """
    words[:] = join_changes(words)  # first: it is needed wherever runs are kept, and for every command
    if ELSEWHERE & {word.partition("=")[0] for word in words}:
        return
    if BEGINS_RUNS & set(words):
        keep_runs_here()
    if "resume" in words:
        words[:] = separate_origin(words)
        check_origin(flow, words)


def keep_runs_here() -> None:
    """Make ``.metaflow`` in the working directory, and say so where Metaflow would use one further up.

    Tables, models and MLflow's runs are in the working directory; runs in another folder would be shared with the
    projects beside this one, and none of those would find all of its own.
    """
    from metaflow.metaflow_config import DATASTORE_LOCAL_DIR, DATASTORE_SYSROOT_LOCAL

    here = Path.cwd() / DATASTORE_LOCAL_DIR
    if DATASTORE_SYSROOT_LOCAL or here.is_dir():
        return
    above = next((folder for folder in Path.cwd().parents if (folder / DATASTORE_LOCAL_DIR).is_dir()), None)
    try:
        here.mkdir(exist_ok=True)  # another first run may make it at this moment
    except OSError:  # no place to write: Metaflow, or the look at the tables, says so
        return
    if above:
        print(
            f"The runs of this project are in {here}, beside its tables and models; those in "
            f"{above / DATASTORE_LOCAL_DIR} are another project's.",
            file=sys.stderr,
        )


def separate_origin(words: list[str]) -> list[str]:
    """Return the words with the number of the run to resume in a word of its own.

    Written with ``=``, Metaflow would take the settings of the latest run instead of that run's.

    Examples
    --------
    >>> separate_origin(["train_flow.py", "resume", "--origin-run-id=17"])
    ['train_flow.py', 'resume', '--origin-run-id', '17']
    """
    start = f"{ORIGIN}="
    return [
        part
        for word in words
        for part in ([ORIGIN, word.removeprefix(start)] if word.startswith(start) else [word])
    ]


def check_origin(flow: str, words: list[str]) -> None:
    """Raise ``RunNotFound`` unless Metaflow has the run that is resumed, and what it began with."""
    import metaflow
    from metaflow.exception import MetaflowNotFound
    from metaflow.util import get_latest_run_id

    from dlpipe.bridge.metadata import find_runs

    given = words[words.index(ORIGIN) + 1 :] if ORIGIN in words else []
    if given and not given[0].strip():
        raise RunNotFound(f"{ORIGIN} is empty. Give the number of a run, or leave it out for the latest run.")
    origin = given[0] if given else get_latest_run_id(_ignore, flow)
    if not origin:  # Metaflow has a line for that
        return
    seen_by = metaflow.get_namespace()
    try:
        find_runs(f"{flow}/{origin}")
        metaflow.Step(f"{flow}/{origin}/_parameters")
    except MetaflowNotFound:
        raise RunNotFound(
            f"{flow}'s run {origin} ended before it began: there is nothing to resume. Start it anew with `run`."
        ) from None
    finally:
        metaflow.namespace(seen_by)


def _ignore(*args: object, **more: object) -> None:
    """Say nothing."""
