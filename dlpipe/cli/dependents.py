"""What depends on a table, a version of a model or a run, as far as records say: named before it is deleted."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from dlpipe.cli.printing import say
from dlpipe.errors import DlpipeError, SettingError, StoreNotFound
from dlpipe.terminal import format_table

if TYPE_CHECKING:
    from dlpipe.registry import ModelVersion


class Dependent(NamedTuple):
    """Something that names what is to be deleted.

    Attributes
    ----------
    what : str
        ``model``, ``table``, ``deployment``, ``run``.
    name : str
    how : str
        Why it depends.
    """

    what: str
    name: str
    how: str


def confirm_deletion(what: str, dependents: Sequence[Dependent], *, yes: bool, many: bool = False) -> None:
    """Print what depends on ``what``, and ask.

    Parameters
    ----------
    what : str
        What is to be deleted, and how much that is.
    dependents : sequence of Dependent
    yes : bool
        Whether nobody is asked.
    many : bool
        Whether ``what`` is several.

    Raises
    ------
    SettingError
        When nobody can be asked.
    Abort
        When the answer is no.
    """
    say(f"{what} {'are' if many else 'is'} to be deleted.", err=True)
    if dependents:
        say(f"These depend on {'them' if many else 'it'}, and stay:", err=True)
        say("\n".join(f"  {line}" for line in format_table([found._asdict() for found in dependents])), err=True)
    else:
        say(f"Nothing that is recorded depends on {'them' if many else 'it'}.", err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise SettingError("Nothing was deleted: there is nobody to ask. Pass --yes to delete.")
    click.confirm("Delete?", abort=True, err=True)


def find_table_dependents(location: str) -> list[Dependent]:
    """Return the models, tables and deployments that name the table at ``location``."""
    return [
        *(Dependent("model", version.line(), how) for version, how in _find_models(location)),
        *_find_tables(location),
        *_find_deployments(location),
    ]


def _find_models(location: str) -> Iterator[tuple[ModelVersion, str]]:
    for version in _list_versions():
        if version.tags.get("delta.table", "").rstrip("/") == location:
            yield version, f"learnt from its version {version.tags.get('delta.version', '?')}"


def _find_tables(location: str) -> Iterator[Dependent]:
    from dlpipe.tables import history, list_tables

    for name, other in list_tables():
        if other == location:
            continue
        with suppress(DlpipeError):  # a damaged table names nothing
            commits = history(other)
            if how := next(filter(None, (describe_use(commit, location) for commit in commits)), ""):
                yield Dependent("table", name, how)
            elif other == f"{location}_quarantine":
                yield Dependent("table", name, "bad rows of its last ingest")


def describe_use(commit: Mapping[str, Any], location: str) -> str:
    """Return how a commit of another table used the table at ``location``; nothing where it did not.

    Examples
    --------
    >>> describe_use({"key": {"source": "/t/films", "source_version": "2", "model": "models:/a/1"}}, "/t/films")
    'computed from its version 2 by models:/a/1'
    """
    key = commit.get("key") or {}
    if str(key.get("source", "")).rstrip("/") == location:
        by = f" by {key['model']}" if "model" in key else ""
        return f"computed from its version {key.get('source_version', '?')}{by}"
    start = f"{Path(location).name}@v"
    for source in commit.get("sources") or []:
        if str(source.get("name", "")).startswith(start):
            return f"ingested from {source['name']}"
    return ""


def _find_deployments(location: str) -> Iterator[Dependent]:
    from dlpipe.cli.deployed_uses import find_uses_of_table

    for use in find_uses_of_table(location):
        yield Dependent("deployment", use.deployment, use.line())


def find_model_dependents(uris: set[str]) -> list[Dependent]:
    """Return the tables that versions of models computed, and the deployments that work with them."""
    from dlpipe.cli.deployed_uses import find_uses_of_models

    uses = find_uses_of_models(uris)
    return [
        *_find_tables_of_models(uris),
        *(Dependent("deployment", use.deployment, use.line()) for use in uses),
    ]


def find_run_dependents(run: str) -> list[Dependent]:
    """Return the models that the run ``FLOW/ID`` registered, their tables, its resumes and its deployment."""
    from dlpipe.bridge.deletion import list_made_models, list_resumes

    models = [version for version in _list_versions() if is_from_run(version.tags, run)]
    return [
        *(Dependent("model", version.line(), f"registered from {run}") for version in models),
        # of a version that was deleted, the run alone still tells
        *_find_tables_of_models({*(version.uri for version in models), *list_made_models(run)}),
        *(Dependent("run", later, f"resumed {run}") for later in list_resumes(run)),
        *_find_scheduled(run),
    ]


def _list_versions() -> list[ModelVersion]:
    from dlpipe.registry import list_versions

    try:
        return [version for version, _ in list_versions()]
    except StoreNotFound:
        return []


def is_from_run(tags: Mapping[str, str], run: str) -> bool:
    """Return whether a version's tags say that a task of ``run`` made it.

    Examples
    --------
    >>> is_from_run({"metaflow.pathspec": "TrainFlow/17/register/8"}, "TrainFlow/17")
    True
    """
    return f"{tags.get('metaflow.pathspec', '')}/".startswith(f"{run}/")


def _find_tables_of_models(uris: set[str]) -> Iterator[Dependent]:
    from dlpipe.tables import history, list_tables

    for name, location in list_tables() if uris else ():
        with suppress(DlpipeError):
            by = {str((commit.get("key") or {}).get("model", "")) for commit in history(location)} & uris
            if by:
                yield Dependent("table", name, f"computed by {min(by)}")


def _find_scheduled(run: str) -> Iterator[Dependent]:
    from dlpipe.cli.scheduler_state import open_state
    from dlpipe.errors import RunNotFound
    from dlpipe.orchestrator.state import has_state

    if has_state():
        with open_state() as state, suppress(RunNotFound):
            found = state.find_run(run)
            yield Dependent("deployment", found.deployment, f"its run {found.number} is {run}")
