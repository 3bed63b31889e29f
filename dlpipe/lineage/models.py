"""Versions of models, what they were made from and by whom, and the moves of their champions, by the registry."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from dlpipe.errors import ModelNotFound, NodeNotFound, StoreNotFound, TrackingUnavailable
from dlpipe.lineage.graph import Edge, Facts
from dlpipe.lineage.indexed_models import REGISTERED_BY, TRAINED_BY, ModelIndex
from dlpipe.lineage.moves import describe_count, describe_deletion, describe_move, read_time
from dlpipe.lineage.nodes import OF_TABLES, Node
from dlpipe.lineage.reader import Reader
from dlpipe.lineage.tasks import find_registration, find_training, make_task_node
from dlpipe.redaction import show_address
from dlpipe.registry import (
    CHAMPION,
    MADE_FROM,
    ChampionMove,
    ModelLookup,
    ModelRecord,
    ModelVersion,
    RegisteredModel,
    RegisteredVersion,
    classifier_name,
    list_model_records,
    parse_uri,
)

Answer = TypeVar("Answer")


class ModelReader(Reader):
    """Asks the registry, for no more than what it is asked itself.

    Parameters
    ----------
    index : ModelIndex
    until : int, optional
        In milliseconds since 1970: versions and moves that came later are passed over.
    """

    def __init__(self, index: ModelIndex, until: int | None = None) -> None:
        self.index, self.until, self._problem = index, until, ""
        self._companions: dict[str, dict[str, list[Node]]] = {}

    @cached_property
    def records(self) -> Mapping[str, ModelRecord]:
        """All registered models by name, with what came later: for who looks at each of them."""
        return {record.name: record for record in self._ask(lambda _: list_model_records(), list[ModelRecord]())}

    @property
    def problem(self) -> str:
        """Why the registry cannot be asked; empty where it can."""
        return self._lookup[1] or self._problem

    @cached_property
    def _lookup(self) -> tuple[ModelLookup | None, str]:
        try:
            return ModelLookup(), ""
        except StoreNotFound:  # before the first training
            return None, ""
        except TrackingUnavailable as error:  # tables and runs have a lineage all the same
            return None, str(error)

    def _ask(self, question: Callable[[ModelLookup], Answer], otherwise: Answer) -> Answer:
        lookup = self._lookup[0]
        if lookup is None or self._problem:
            return otherwise
        try:
            return question(lookup)
        except TrackingUnavailable as error:
            self._problem = str(error)
            return otherwise

    def find_model(self, name: str) -> RegisteredModel | None:
        """Return a registered model, with what came later; ``None`` where there is none, or nobody can say."""
        return self._ask(lambda lookup: lookup.find_model(name), None)

    def find_version(self, node: Node) -> ModelVersion | None:
        """Return the version that a node is, with its aliases of today; ``None`` where there was none then."""
        found = self._ask(lambda lookup: lookup.find_version(node.name, node.number or 0), None)
        if found is None or not self._is_there(found):
            return None
        model = self.find_model(node.name)  # MLflow's search tells of no aliases
        aliases = [alias for alias, at in model.aliases.items() if at == node.number] if model else []
        return replace(found.version, aliases=tuple(aliases))

    def find_trained(self, location: str) -> Iterator[tuple[Node, ModelVersion]]:
        """Yield the versions whose tags name any version of the table at a location, the oldest first."""
        yield from self._find_tagged("delta.table", location)
        yield from self._find_tagged("delta.table", f"{location}/")

    def _find_trained_on(self, table: Node) -> Iterator[Node]:
        """Yield the versions that may have been trained on a version of a table."""

        def find(lookup: ModelLookup) -> list[RegisteredVersion] | None:
            among = self.index.find_trained(lookup, table.name, table.number or 0)
            found = None if among is None else (lookup.find_version(*version) for version in among)
            return None if found is None else [version for version in found if version is not None]

        if (known := self._ask(find, None)) is None:
            yield from (found for found, _ in self.find_trained(table.name))
            return
        known.sort(key=lambda found: (found.at, found.version.name, found.version.version))
        there = (found.version for found in known if self._is_there(found))
        yield from (Node("model", version.name, version.version) for version in there)

    def _find_tagged(self, tag: str, value: str, *, prefix: bool = False) -> Iterator[tuple[Node, ModelVersion]]:
        no_versions: list[RegisteredVersion] = []

        def find(lookup: ModelLookup) -> list[RegisteredVersion]:
            among = self.index.find(lookup, tag, value, prefix=prefix)
            return lookup.find_tagged(tag, value, prefix=prefix, among=among)

        for found in self._ask(find, no_versions):
            if self._is_there(found):
                yield Node("model", found.version.name, found.version.version), found.version

    def _is_there(self, found: RegisteredVersion) -> bool:
        return self.until is None or found.at <= self.until

    def find(self, text: str) -> Iterator[tuple[Node, ...]]:
        """Yield the version, or the move, that ``models:/reviews@champion``, ``reviews/3`` and the like mean."""
        uri, _, number = text.partition("#")
        try:
            name, version, alias = parse_uri(uri)
        except ModelNotFound:
            return
        model = self.find_model(name)
        if self.problem and uri.startswith("models:"):  # else it may be the name of something else
            raise TrackingUnavailable(self.problem)
        if model is None:
            return
        if number:
            named = "@" in uri or uri.startswith("models:")  # else it is a row of the table of this name
            if named and number.isdecimal() and alias == CHAMPION:
                self._check_move(model, int(number))
                yield (Node("move", name, int(number), CHAMPION),)
            return
        at = version if alias is None else self._find_alias(model, alias, asked="@" in uri)
        if at is not None:
            node = Node("model", name, at)
            if self.find_version(node) or at in model.deletions:
                yield (node,)

    def _check_move(self, model: RegisteredModel, number: int) -> None:
        """Raise ``NodeNotFound`` where the champion of a model had not moved so often."""
        count = len(self._list_moves(model))
        if 1 <= number <= count:
            return
        then = "" if self.until is None else " by then"
        known = f"{model.name}@champion#1" + (f" to #{count}" if count > 1 else "")
        raise NodeNotFound(
            f"The champion of {model.name!r} has {describe_count(count)}{then}, so it has no move {number}."
            + (f" Write {known}." if count else "")
        )

    def describe(self, node: Node) -> Facts | None:
        """Return when a version was registered or a move was made, and which aliases a version has."""
        if node.kind not in ("model", "move"):
            return None
        model = self.find_model(node.name)
        if self.problem:
            return Facts(gone="the registry cannot be asked")
        if node.kind == "move":
            return describe_move(model.moves[(node.number or 1) - 1]) if model else None
        found = self._ask(lambda lookup: lookup.find_version(node.name, node.number or 0), None)
        if model is None or found is None:
            note = model.deletions.get(node.number or 0) if model else None
            return Facts(gone=describe_deletion(note) if note else "the registry has no such version")
        aliases = [alias for alias in model.aliases if self._find_alias(model, alias) == node.number]
        return Facts(found.at, ", ".join(aliases))

    def is_deleted(self, node: Node) -> bool:
        """Return whether a version is gone by ``dlpipe models delete``, which says who did it and why."""
        model = self.find_model(node.name) if node.kind == "model" else None
        return model is not None and node.number in model.deletions

    def find_origins(self, node: Node) -> Iterator[Edge]:
        """Yield what a version was trained on and made from, and the tasks that trained and registered it."""
        if node.kind == "move" and (model := self.find_model(node.name)):
            yield from self._find_move_origins(node, model)
        elif node.kind == "model" and (version := self.find_version(node)):
            yield from find_version_origins(node, version)

    def find_results(self, node: Node) -> Iterator[Edge]:
        """Yield the versions of models that came of a node, and the moves to a version."""
        for found in dict.fromkeys(self._list_candidates(node)):
            yield from (edge for edge in self.find_origins(found) if edge.origin == node)

    def _list_candidates(self, node: Node) -> Iterator[Node]:
        """Yield the versions and moves of which one may have come of a node."""
        if node.kind == "table":
            yield from self._find_trained_on(node)
        elif node.kind == "model":
            version = self.find_version(node)
            if version is None or MADE_FROM not in version.tags:  # nothing is made from what was made from another
                yield from self._find_companions(node.name).get(str(node), ())
            yield from self._list_moves_to(node)
        elif node.kind == "task":
            yield from (found for found, _ in self._find_tagged(TRAINED_BY, str(node)))
            registered = [found for found, _ in self._find_tagged(REGISTERED_BY, f"{node}/", prefix=True)]
            yield from registered
            for found in registered:
                yield from self._list_moves_to(found)

    def _find_companions(self, name: str) -> Mapping[str, Sequence[Node]]:
        """Return what was made from the versions of a model, by their URIs.

        They are asked for in one question: the versions of a model are seldom looked at alone.
        """
        if name not in self._companions:
            self._companions[name] = defaultdict(list)
            for found, companion in self._find_tagged(MADE_FROM, f"models:/{name}/", prefix=True):
                self._companions[name][companion.tags[MADE_FROM]].append(found)
        return self._companions[name]

    def _list_moves_to(self, node: Node) -> Iterator[Node]:
        if model := self.find_model(node.name):
            for number, move in enumerate(self._list_moves(model), 1):
                if move.after == node.number:
                    yield Node("move", node.name, number, CHAMPION)

    def find_unknown(self, node: Node) -> Iterator[str]:
        """Yield that the tags of a version do not say what it was trained on, or by whom."""
        if node.kind != "model" or (version := self.find_version(node)) is None:
            return
        if "delta.table" not in version.tags:
            yield "its tags do not say what it was trained on"
        if not find_training(version.tags):
            yield "its tags name no task that trained it"

    def list_versions(self) -> Iterator[tuple[Node, ModelVersion]]:
        """Yield all versions that there were."""
        for record in self.records.values():
            for number, version in record.versions.items():
                if self.until is None or record.registered[number] <= self.until:
                    yield Node("model", record.name, number), version

    def find_results_of_table(self, location: str) -> Iterator[Edge]:
        """Yield the edges to the versions that learnt from any version of a table, its first version first."""
        edges = [edge for node, _ in self.find_trained(location) for edge in self.find_origins(node)]
        there = [edge for edge in edges if edge.origin.kind in OF_TABLES and edge.origin.name == location]
        yield from sorted(there, key=lambda edge: edge.origin)

    def _list_moves(self, model: RegisteredModel) -> Sequence[ChampionMove]:
        return [move for move in model.moves if self.until is None or read_time(move.at) <= self.until]

    def _find_alias(self, model: RegisteredModel, alias: str, *, asked: bool = False) -> int | None:
        """Return the version that an alias stood at; ``asked`` raises where nobody knows.

        The champion of a pipeline or an explainer is the one that was made from the champion of its classifier.
        """
        if alias == CHAMPION and (base := self._find_base(model)):
            made_from = f"models:/{base.name}/{self._find_alias(base, CHAMPION)}"
            made = self._find_tagged(MADE_FROM, made_from)
            return max((version.version for _, version in made if version.name == model.name), default=None)
        if self.until is None:
            return model.aliases.get(alias)
        if alias == CHAMPION and (model.moves or alias not in model.aliases):
            moves = self._list_moves(model)
            return moves[-1].after if moves else None
        if asked and alias in model.aliases:
            raise NodeNotFound(
                f"Nobody recorded where the alias {alias!r} of {model.name!r} stood then: MLflow keeps no "
                f"history of aliases, and dlpipe that of the champion. Name a version, such as {model.name}/1."
            )
        return None

    def _find_base(self, model: RegisteredModel) -> RegisteredModel | None:
        """Return the classifier of a pipeline or an explainer."""
        base = classifier_name(model.name)
        return self.find_model(base) if base else None

    def _find_move_origins(self, node: Node, model: RegisteredModel) -> Iterator[Edge]:
        move = model.moves[(node.number or 1) - 1]
        if move.after is None:
            return
        yield Edge(node, "points to", Node("model", node.name, move.after))
        version = self.find_version(Node("model", node.name, move.after)) if move.how == "gate" else None
        if version and (task := find_registration(version.tags)):
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
    if (trained_by := find_training(tags)) and made_from is None:
        yield Edge(node, "made by", *make_task_node(trained_by))
    if registered_by := find_registration(tags):
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
