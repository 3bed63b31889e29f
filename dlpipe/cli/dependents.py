"""What depends on a table, a version of a model or a run, as far as records say: named before it is deleted."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import click

from dlpipe.cli.printing import say
from dlpipe.errors import SettingError
from dlpipe.terminal import format_table

if TYPE_CHECKING:
    from dlpipe.lineage import Edge, Node, Records


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
    from dlpipe.lineage import OF_TABLES, Records

    records = Records()
    edges = [edge for edge in records.find_results_of_table(location) if edge.result.name != location]
    return [
        *_list_models(records, [edge for edge in edges if edge.how == "trained on"]),
        *_list_tables(records, [edge for edge in edges if edge.result.kind in OF_TABLES], location),
        *_find_deployments(location),
    ]


def _list_models(records: Records, edges: Sequence[Edge]) -> Iterator[Dependent]:
    """Yield the versions that learnt from a table, each with what was made from it."""
    for edge in edges:
        yield from _describe_model(records, edge.result, f"learnt from its version {edge.origin.number}")
        for made in records.models.find_results(edge.result):
            if made.how == "made from":
                yield from _describe_model(records, made.result, f"made from {edge.result}")


def _describe_model(records: Records, node: Node, how: str) -> Iterator[Dependent]:
    if version := records.models.find_version(node):
        yield Dependent("model", version.line(), how)


def _list_tables(records: Records, edges: Sequence[Edge], location: str) -> Iterator[Dependent]:
    """Yield each table that came of another one, by its latest commit that did, and the bad rows of its ingest."""
    latest: dict[str, Edge] = {}
    for edge in sorted(edges, key=lambda edge: edge.result.number or 0):
        latest[edge.result.name] = edge
    for name, place in records.catalog.list_names():
        if place in latest:
            yield Dependent("table", name, describe_use(records, latest[place]))
        elif place == f"{location}_quarantine":
            yield Dependent("table", name, "bad rows of its last ingest")


def describe_use(records: Records, edge: Edge) -> str:
    """Return how a commit of one table used a version of another."""
    if edge.how == "ingested from":
        return f"ingested from {edge.origin}"
    if edge.how == "compared":
        return f"compared its version {edge.origin.number}"
    by = [made.origin for made in records.answers.find_origins(edge.result) if made.origin.kind == "model"]
    return f"computed from its version {edge.origin.number}" + "".join(f" by {model}" for model in by)


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
    from dlpipe.bridge.deletion import list_made_models
    from dlpipe.lineage import Records, make_run_node

    records, node = Records(), make_run_node(run)
    made = list(_find_models_of_run(records, node))
    return [
        *(found for model in made for found in _describe_model(records, model, f"registered from {run}")),
        # of a version that was deleted, the run alone still tells
        *_find_tables_of_models({*map(str, made), *list_made_models(run)}),
        *(
            Dependent("run", str(edge.result), f"resumed {run}")
            for edge in records.find_results(node)
            if edge.how == "resumed from"
        ),
        *_find_scheduled(run),
    ]


def _find_models_of_run(records: Records, run: Node) -> Iterator[Node]:
    """Yield the versions that tasks of a run trained, and what was made from these."""
    from dlpipe.lineage import make_run_node

    for node, _ in records.models.list_versions():
        edges = list(records.models.find_origins(node))
        # a companion names the version that it was made from, or the task that registered it, or both
        makers = [edge.origin for edge in edges if edge.how in ("made by", "made from")]
        of_made = [origin for model in makers if model.kind == "model" for origin in _list_makers(records, model)]
        if any(make_run_node(str(task)) == run for task in (*makers, *of_made) if task.kind == "task"):
            yield node


def _list_makers(records: Records, model: Node) -> list[Node]:
    return [edge.origin for edge in records.models.find_origins(model) if edge.how == "made by"]


def _find_tables_of_models(uris: set[str]) -> Iterator[Dependent]:
    from dlpipe.lineage import Records, parse_model_node

    records = Records()
    by: dict[str, set[str]] = {}
    for uri in uris:
        if node := parse_model_node(uri):
            for edge in records.answers.find_results(node):
                if edge.how != "compared":
                    by.setdefault(edge.result.name, set()).add(uri)
    for name, place in records.catalog.list_names() if by else ():
        if place in by:
            yield Dependent("table", name, f"computed by {min(by[place])}")


def _find_scheduled(run: str) -> Iterator[Dependent]:
    from dlpipe.cli.scheduler_state import open_state
    from dlpipe.errors import RunNotFound
    from dlpipe.orchestrator.state import has_state

    if has_state():
        with open_state() as state, suppress(RunNotFound):
            found = state.find_run(run)
            yield Dependent("deployment", found.deployment, f"its run {found.number} is {run}")
