"""Versions of models, what they were made from and by whom, and the moves of their champions, by the registry."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path

from dlpipe.errors import ModelNotFound, NodeNotFound, StoreNotFound, TrackingUnavailable
from dlpipe.lineage.graph import Edge, Facts, group_by_origin, select_of_table
from dlpipe.lineage.nodes import Node
from dlpipe.lineage.reader import Reader
from dlpipe.lineage.tasks import make_task_node
from dlpipe.redaction import show_address
from dlpipe.registry import (
    CHAMPION,
    MADE_FROM,
    ChampionMove,
    ModelRecord,
    ModelVersion,
    classifier_name,
    list_model_records,
    parse_uri,
)
from dlpipe.time_formats import format_moment

TRAINED_BY, REGISTERED_BY = "metaflow.pathspec", "metaflow.task"


class ModelReader(Reader):
    """Reads the registry.

    Parameters
    ----------
    until : int, optional
        In milliseconds since 1970: versions and moves that came later are passed over.
    """

    def __init__(self, until: int | None = None) -> None:
        self.until = until

    @property
    def records(self) -> Mapping[str, ModelRecord]:
        """The registered models by name, with what came later."""
        return self._reading[0]

    @property
    def problem(self) -> str:
        """Why the registry cannot be asked; empty where it can."""
        return self._reading[1]

    @cached_property
    def _reading(self) -> tuple[Mapping[str, ModelRecord], str]:
        try:
            return {record.name: record for record in list_model_records()}, ""
        except StoreNotFound:  # before the first training
            return {}, ""
        except TrackingUnavailable as error:  # tables and runs have a lineage all the same
            return {}, str(error)

    def find(self, text: str) -> Iterator[tuple[Node, ...]]:
        """Yield the version, or the move, that ``models:/reviews@champion``, ``reviews/3`` and the like mean."""
        uri, _, number = text.partition("#")
        try:
            name, version, alias = parse_uri(uri)
        except ModelNotFound:
            return
        if self.problem and uri.startswith("models:"):  # else it may be the name of something else
            raise TrackingUnavailable(self.problem)
        if (record := self.records.get(name)) is None:
            return
        if number:
            if number.isdecimal() and alias == CHAMPION:
                self._check_move(record, int(number))
                yield (Node("move", name, int(number), CHAMPION),)
            return
        at = version if alias is None else self._find_alias(record, alias, asked="@" in uri)
        if at is not None and (at in self._list_versions(record) or at in record.deletions):
            yield (Node("model", name, at),)

    def _check_move(self, record: ModelRecord, number: int) -> None:
        """Raise ``NodeNotFound`` where the champion of a model had not moved so often."""
        count = len(self._list_moves(record))
        if 1 <= number <= count:
            return
        then = "" if self.until is None else " by then"
        known = f"{record.name}@champion#1" + (f" to #{count}" if count > 1 else "")
        raise NodeNotFound(
            f"The champion of {record.name!r} has {describe_count(count)}{then}, so it has no move {number}."
            + (f" Write {known}." if count else "")
        )

    def describe(self, node: Node) -> Facts | None:
        """Return when a version was registered or a move was made, and which aliases a version has."""
        record = self.records.get(node.name)
        if node.kind == "move":
            return describe_move(record.moves[(node.number or 1) - 1]) if record else None
        if node.kind != "model":
            return None
        number = node.number or 0
        if self.problem:
            return Facts(gone="the registry cannot be asked")
        if record is None or number not in record.versions:
            note = record.deletions.get(number) if record else None
            return Facts(gone=describe_deletion(note) if note else "the registry has no such version")
        aliases = [alias for alias in record.aliases if self._find_alias(record, alias) == number]
        return Facts(record.registered[number], ", ".join(aliases))

    def find_origins(self, node: Node) -> Iterator[Edge]:
        """Yield what a version was trained on and made from, and the tasks that trained and registered it."""
        record = self.records.get(node.name)
        if record is None:
            return
        if node.kind == "move":
            yield from self._find_move_origins(node, record)
        elif node.kind == "model" and (version := self._list_versions(record).get(node.number or 0)):
            yield from find_version_origins(node, version)

    def find_results(self, node: Node) -> Iterator[Edge]:
        """Yield the versions of models that came of a node, and the moves to a version."""
        yield from self._by_origin.get(node, ())

    def find_unknown(self, node: Node) -> Iterator[str]:
        """Yield that the tags of a version do not say what it was trained on, or by whom."""
        record = self.records.get(node.name) if node.kind == "model" else None
        version = record.versions.get(node.number or 0) if record else None
        if version is None:
            return
        if "delta.table" not in version.tags:
            yield "its tags do not say what it was trained on"
        if TRAINED_BY not in version.tags:
            yield "its tags name no task that trained it"

    def list_versions(self) -> Iterator[tuple[Node, ModelVersion]]:
        """Yield the versions that there were."""
        for record in self.records.values():
            for number, version in self._list_versions(record).items():
                yield Node("model", record.name, number), version

    def find_version(self, node: Node) -> ModelVersion | None:
        """Return the version that a node is; ``None`` where the registry had none then."""
        record = self.records.get(node.name)
        return self._list_versions(record).get(node.number or 0) if record else None

    def find_results_of_table(self, location: str) -> Iterator[Edge]:
        """Yield the edges to the versions that learnt from any version of a table."""
        yield from select_of_table(self._by_origin, location)

    @cached_property
    def _by_origin(self) -> Mapping[Node, Sequence[Edge]]:
        moves = (
            Node("move", record.name, number, CHAMPION)
            for record in self.records.values()
            for number, _ in enumerate(self._list_moves(record), 1)
        )
        nodes = [*(node for node, _ in self.list_versions()), *moves]
        return group_by_origin(edge for node in nodes for edge in self.find_origins(node))

    def _list_versions(self, record: ModelRecord) -> Mapping[int, ModelVersion]:
        return {
            number: version
            for number, version in record.versions.items()
            if self.until is None or record.registered[number] <= self.until
        }

    def _list_moves(self, record: ModelRecord) -> Sequence[ChampionMove]:
        return [move for move in record.moves if self.until is None or read_time(move.at) <= self.until]

    def _find_alias(self, record: ModelRecord, alias: str, *, asked: bool = False) -> int | None:
        """Return the version that an alias stood at; ``asked`` raises where nobody knows.

        The champion of a pipeline or an explainer is the one that was made from the champion of its classifier.
        """
        if alias == CHAMPION and (base := self.records.get(classifier_name(record.name) or "")):
            at = self._find_alias(base, CHAMPION)
            made_from = f"models:/{base.name}/{at}"
            made = [
                number
                for number, version in self._list_versions(record).items()
                if version.tags.get(MADE_FROM) == made_from
            ]
            return max(made, default=None)
        if self.until is None:
            return record.aliases.get(alias)
        if alias == CHAMPION and (record.moves or alias not in record.aliases):
            moves = self._list_moves(record)
            return moves[-1].after if moves else None
        if asked and alias in record.aliases:
            raise NodeNotFound(
                f"Nobody recorded where the alias {alias!r} of {record.name!r} stood then: MLflow keeps no "
                f"history of aliases, and dlpipe that of the champion. Name a version, such as {record.name}/1."
            )
        return None

    def _find_move_origins(self, node: Node, record: ModelRecord) -> Iterator[Edge]:
        move = record.moves[(node.number or 1) - 1]
        if move.after is None:
            return
        yield Edge(node, "points to", Node("model", node.name, move.after))
        version = record.versions.get(move.after)
        if move.how == "gate" and version and (task := version.tags.get(REGISTERED_BY)):
            yield Edge(node, "moved by", *make_task_node(task))


def find_registry_address() -> str:
    """Return where models are registered, without a password.

    Examples
    --------
    >>> os.environ["MLFLOW_REGISTRY_URI"] = "http://ana:secret@models.example.org"
    >>> find_registry_address()
    'http://[redacted]@models.example.org'
    >>> del os.environ["MLFLOW_REGISTRY_URI"]
    """
    named = os.environ.get("MLFLOW_REGISTRY_URI") or os.environ.get("MLFLOW_TRACKING_URI")
    return show_address(named) if named else str(Path.cwd() / "mlflow.db")


def find_version_origins(node: Node, version: ModelVersion) -> Iterator[Edge]:
    """Yield what the tags of a version say that it came of."""
    tags = version.tags
    if made_from := parse_model_node(tags.get(MADE_FROM, "")):
        yield Edge(node, "made from", made_from)
    elif "delta.table" in tags and tags.get("delta.version", "").isdecimal():
        table = Node("table", tags["delta.table"].rstrip("/"), int(tags["delta.version"]))
        yield Edge(node, "trained on", table)
        yield Edge(node, "evaluated on", table)
    # a companion has the training task of its classifier, which made neither it nor its files
    if (trained_by := tags.get(TRAINED_BY)) and made_from is None:
        yield Edge(node, "made by", *make_task_node(f"{trained_by}/{tags.get('metaflow.attempt', '0')}"))
    if registered_by := tags.get(REGISTERED_BY):
        task, attempt = make_task_node(registered_by)
        yield Edge(node, "made by", task, ", ".join(filter(None, ("registered", attempt))))


def parse_model_node(uri: str) -> Node | None:
    """Return the node of ``models:/reviews/3``; ``None`` for anything else.

    Examples
    --------
    >>> print(parse_model_node("models:/reviews/3"), parse_model_node("models:/reviews@champion"))
    models:/reviews/3 None
    """
    try:
        name, version, _ = parse_uri(uri)
    except ModelNotFound:
        return None
    return None if version is None else Node("model", name, version)


def read_time(at: str) -> int:
    """Return the milliseconds since 1970 of a time in ISO 8601."""
    return round(datetime.fromisoformat(at).timestamp() * 1000)


def describe_count(moves: int) -> str:
    """Return how often a champion has moved.

    Examples
    --------
    >>> [describe_count(moves) for moves in (0, 1, 2)]
    ['never moved', 'moved once', 'moved 2 times']
    """
    return {0: "never moved", 1: "moved once"}.get(moves, f"moved {moves} times")


def describe_move(move: ChampionMove) -> Facts:
    """Return when and how a champion was moved, by whom and why."""
    before = "none" if move.before is None else f"v{move.before}"
    why = f": {move.why}" if move.why else ""
    return Facts(read_time(move.at), f"from {before} by {move.how}, {move.who}{why}")


def describe_deletion(note: Mapping[str, str]) -> str:
    """Return when a version was deleted, by whom and why.

    Examples
    --------
    >>> describe_deletion({"at": "2026-11-28T16:55:00+00:00", "who": "ana", "why": "leaked rows"})
    'deleted 2026-11-28 16:55 UTC by ana: leaked rows'
    """
    why = f": {note['why']}" if note.get("why") else ""
    when = format_moment(datetime.fromisoformat(note["at"]))
    return f"deleted {when} by {note.get('who', 'unknown')}{why}"
