"""Registered models with their versions, moves and deletions: all in a few questions, or one asked for alone."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlpipe.registry.deletion import DELETED
from dlpipe.registry.history import ChampionMove, read_moves
from dlpipe.registry.versions import ModelVersion, quote, to_version
from dlpipe.tracking import RegistryTables, open_registry_tables, open_store, tracking_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model without its versions.

    Attributes
    ----------
    name : str
    aliases : mapping of str to int
    moves : sequence of ChampionMove
        Of its champion, the oldest first.
    deletions : mapping of int to mapping of str to str
        Who deleted a version, ``why`` and when (``at``), by its number; of those that dlpipe deleted.
    """

    name: str
    aliases: Mapping[str, int]
    moves: Sequence[ChampionMove]
    deletions: Mapping[int, Mapping[str, str]]


@dataclass(frozen=True)
class ModelRecord(RegisteredModel):
    """A registered model.

    Attributes
    ----------
    versions : mapping of int to ModelVersion
    registered : mapping of int to int
        When each version was registered, in milliseconds since 1970.
    """

    versions: Mapping[int, ModelVersion]
    registered: Mapping[int, int]


@dataclass(frozen=True)
class RegisteredVersion:
    """A version, and when it was registered.

    Attributes
    ----------
    version : ModelVersion
    at : int
        In milliseconds since 1970.
    """

    version: ModelVersion
    at: int


class ModelLookup:
    """Asks the registry for single models and versions, so that an answer costs what it holds; each is asked once.

    A database in a file is read without MLflow where that is known to answer the same.

    Raises
    ------
    StoreNotFound, TrackingUnavailable
        As ``open_store`` does; the latter also later, when the registry stops to answer.
    """

    def __init__(self) -> None:
        self._store = open_store()
        with tracking_errors(self._store):
            self._registry = open_registry_tables(self._store.registry_uri) or ClientRegistry(self._store.client())
        self._models: dict[str, RegisteredModel | None] = {}
        self._versions: dict[tuple[str, int], RegisteredVersion | None] = {}
        self._tagged: dict[tuple[str, str, bool], list[RegisteredVersion]] = {}

    def find_model(self, name: str) -> RegisteredModel | None:
        """Return a model; ``None`` where none is registered under this name."""
        if name not in self._models:
            with tracking_errors(self._store):
                model = self._registry.find_model(name)
            self._models[name] = None if model is None else RegisteredModel(**_read_model(model))
        return self._models[name]

    def find_version(self, name: str, number: int) -> RegisteredVersion | None:
        """Return a version of a model; ``None`` where there is none."""
        if (name, number) not in self._versions:
            with tracking_errors(self._store):
                found = self._registry.find_version(name, number)
            self._versions[name, number] = None if found is None else _read_version(found)
        return self._versions[name, number]

    @property
    def address(self) -> str:
        """Where the registry is."""
        return self._store.registry_uri

    def read_stamp(self) -> list[int] | None:
        """Return what changes whenever the registry does; ``None`` where nothing tells."""
        if not isinstance(self._registry, RegistryTables):
            return None
        with tracking_errors(self._store):
            return self._registry.read_stamp()

    def read_tags(self, names: Sequence[str]) -> tuple[list[int] | None, list[tuple[str, int, str, str]]]:
        """Return the tags of these names that versions have, and the stamp of when they were so.

        Each is the name of the model, the version, and name and value of the tag. Where there is no stamp, there
        are none.
        """
        if not isinstance(self._registry, RegistryTables):
            return None, []
        with tracking_errors(self._store):
            return self._registry.read_tags(names)

    def find_tagged(
        self, tag: str, value: str, *, prefix: bool = False, among: Sequence[tuple[str, int]] | None = None
    ) -> list[RegisteredVersion]:
        """Return the versions of all models with a tag of this value, or of one that begins so; the oldest first.

        Parameters
        ----------
        tag, value : str
        prefix : bool, optional
            Whether the tag's value may go on.
        among : sequence of (str, int), optional
            Models and versions of which all are that have such a tag; by default the registry is searched.
        """
        if (tag, value, prefix) not in self._tagged:
            if among is None:
                with tracking_errors(self._store):
                    search = self._registry.find_tagged(tag, value, prefix=prefix)
                    found = [_read_version(version) for version in search]
            else:
                found = [entry for name, number in among if (entry := self.find_version(name, number))]
            versions = [
                entry
                for entry in found
                if (there := entry.version.tags.get(tag, "")) == value or (prefix and there.startswith(value))
            ]
            versions.sort(key=lambda entry: (entry.at, entry.version.name, entry.version.version))
            self._versions |= {(entry.version.name, entry.version.version): entry for entry in versions}
            self._tagged[tag, value, prefix] = versions
        return self._tagged[tag, value, prefix]


class ClientRegistry:
    """Asks MLflow's client what ``RegistryTables`` reads.

    Parameters
    ----------
    client : MlflowClient
    """

    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def find_model(self, name: str) -> Any:
        """Return MLflow's entity of a model; ``None`` where none is registered under this name."""
        return self._ask(self._client.get_registered_model, name)

    def find_version(self, name: str, number: int) -> Any:
        """Return MLflow's entity of a version; ``None`` where there is none."""
        return self._ask(self._client.get_model_version, name, str(number))

    def find_tagged(self, tag: str, value: str, *, prefix: bool = False) -> Iterable[Any]:
        """Return MLflow's entities of the versions with a tag, and maybe of others."""
        return _search_all(self._client.search_model_versions, _make_clause(tag, value, prefix))

    def _ask(self, question: Callable[..., Any], *names: str) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return question(*names)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return None  # the second is what MLflow says of a name that it takes for no model


def _make_clause(tag: str, value: str, prefix: bool) -> str:
    """Return the clause of a search for a tag; it may find more, where a value cannot be written in it.

    Examples
    --------
    >>> _make_clause("delta.table", "/films", False), _make_clause("t", "it's", True)
    ("tags.`delta.table` = '/films'", 'tags.`t` LIKE "it\\'s%"')
    """
    if "'" in value and '"' in value:  # the search has no way to escape a quote
        value, prefix = re.sub("[^a-zA-Z0-9/]", "_", value), True
    return f"tags.`{tag}` LIKE {quote(value + '%')}" if prefix else f"tags.`{tag}` = {quote(value)}"


def list_model_records() -> list[ModelRecord]:
    """Return every registered model, by name."""
    store = open_store()
    with tracking_errors(store):
        client = store.client()
        versions: dict[str, list[Any]] = defaultdict(list)
        for found in _search_all(client.search_model_versions):
            versions[found.name].append(found)
        models = sorted(_search_all(client.search_registered_models), key=lambda model: str(model.name))
        return [_make_record(model, versions[model.name]) for model in models]


def _search_all(search: Any, clause: str = "") -> list[Any]:
    found, page = [], None
    while True:
        some = search(clause, max_results=1000, page_token=page)
        found += some
        page = some.token
        if not page:
            return found


def _make_record(model: Any, versions: Sequence[Any]) -> ModelRecord:
    made = {int(found.version): to_version(found) for found in versions}
    record = ModelRecord(**_read_model(model), versions=made, registered=_read_times(versions))
    with_aliases = {
        number: dataclasses.replace(
            made[number], aliases=tuple(alias for alias, at in record.aliases.items() if at == number)
        )
        for number in sorted(made)
    }
    return dataclasses.replace(record, versions=with_aliases)


def _read_times(versions: Sequence[Any]) -> dict[int, int]:
    return {int(found.version): int(found.creation_timestamp) for found in versions}


def _read_version(found: Any) -> RegisteredVersion:
    return RegisteredVersion(to_version(found), int(found.creation_timestamp))


def _read_model(model: Any) -> dict[str, Any]:
    """Return the attributes of a ``RegisteredModel``."""
    return {
        "name": model.name,
        "aliases": {alias: int(version) for alias, version in sorted(model.aliases.items())},
        "moves": read_moves(model.tags),
        "deletions": {
            int(name.removeprefix(DELETED)): json.loads(note)
            for name, note in model.tags.items()
            if name.startswith(DELETED)
        },
    }
