"""What versions of models were used for, and the files that taught them: what their pages in MLflow say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dlpipe.errors import DlpipeError, TableVersionNotFound
from dlpipe.lineage.graph import Edge
from dlpipe.lineage.nodes import SHORT, Node
from dlpipe.lineage.records import Records
from dlpipe.lineage.requests import to_milliseconds
from dlpipe.registry import MADE_FROM, ModelVersion, Use, VersionUses, record_uses

if TYPE_CHECKING:
    from dlpipe.lineage.catalog import TableRecord

WORDS = {"predictions": "predictions", "explanations": "explained rows", "look": "looks at drift"}
REQUESTS = "answers to requests"
ORDER = {what: place for place, what in enumerate((*WORDS.values(), REQUESTS))}
TAUGHT = ("trained on", "made from", "ingested from", "appended to")
"""Edges from a version of a model to the files that its rows came from."""


def renew_pages(records: Records, versions: Sequence[ModelVersion] | None = None) -> int:
    """Have the pages of versions in MLflow say what they were used for, and return how many have changed.

    Parameters
    ----------
    records : Records
    versions : sequence of ModelVersion, optional
        These, and what was made from them; by default all.
    """
    named = None if versions is None else {version.uri for version in versions}
    found = {
        version: find_uses(records, node)
        for node, version in records.models.list_versions()
        if "delta.table" in version.tags  # of others, no page is ours
        and (named is None or not named.isdisjoint((version.uri, version.tags.get(MADE_FROM))))
    }
    return record_uses(found) if found else 0


def find_uses(records: Records, node: Node) -> VersionUses:
    """Return the files that taught a version, and what it was used for so far."""
    found: dict[tuple[str, str], Use] = {}
    # not of all readers: a step need not look into the artifacts of runs
    edges = (
        edge
        for reader in (records.answers, records.models, records.requests)
        for edge in reader.find_results(node)
    )
    for edge in edges:
        for use in _describe_use(records, edge):
            key = (use.what, use.where)
            known = found.get(key, replace(use, count=0))
            found[key] = replace(use, count=known.count + use.count, last=max(known.last, use.last))
    uses = sorted(found.values(), key=lambda use: (not use.where, ORDER.get(use.what, 0), use.what, use.where))
    return VersionUses(tuple(_find_sources(records, node)), tuple(uses))


def _find_sources(records: Records, node: Node) -> Iterator[str]:
    waiting, seen = [node], {node}
    while waiting:
        here = waiting.pop(0)
        for edge in records.find_origins(here):
            origin = edge.origin
            if edge.how not in TAUGHT or origin in seen:
                continue
            seen.add(origin)
            waiting.append(origin)
            if origin.kind == "file":
                yield f"{origin} (SHA-256 {origin.key[:SHORT]})"


def _describe_use(records: Records, edge: Edge) -> Iterator[Use]:
    result = edge.result
    if result.kind == "model":
        yield Use(str(result), "", 1, records.describe(result).at or 0)
    elif result.kind == "requests":
        yield from _count_requests(records, result, edge.origin)
    elif result.kind in WORDS and (record := records.catalog.find(result.name)):
        commit = record.commits.get(result.number or 0, {})
        count = _count_rows(record, result)
        yield Use(WORDS[result.kind], record.name, count, int(commit.get("timestamp", 0)))


def _count_rows(record: TableRecord, node: Node) -> int:
    """Return how many rows were answered for by a commit; an explanation is many rows of its table."""
    from dlpipe.tables import read_added, read_remaining, table_at

    number = node.number or 0
    if node.kind == "look":
        return 1
    if node.kind == "explanations":
        try:
            there = table_at(record.location, version=number)
            try:
                added = read_added(there, columns=["row_id"])
            except (
                TableVersionNotFound
            ):  # a forgetting has deleted its files: the other rows are in a later version
                added = read_remaining(there, columns=["row_id"], added=True)
            return 0 if added is None else len(added["row_id"].unique())
        except DlpipeError:  # vacuumed
            return 0
    commit, before = record.commits.get(number, {}), record.commits.get(number - 1, {})
    rows = int(commit.get("rows", 0))
    return rows - int(before.get("rows", 0)) if commit.get("mode") == "Append" else rows


def _count_requests(records: Records, requests: Node, model: Node) -> Iterator[Use]:
    from dlpipe.tables import stream_table

    if (record := records.catalog.find(requests.name)) is None:
        return
    where = "version = {} and model = '{}'".format(model.number, model.name.replace("'", "''"))
    count, last = 0, 0
    for batch in stream_table(record.latest, columns=["arrived"], where=where):
        count += batch.num_rows
        last = max([last, *(to_milliseconds(at) for at in batch["arrived"].to_pylist())])
    yield Use(REQUESTS, record.name, count, last)
