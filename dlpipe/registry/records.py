"""Every registered model with its versions, its moves and what was deleted of it, in a few questions."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlpipe.registry.deletion import DELETED
from dlpipe.registry.history import ChampionMove, read_moves
from dlpipe.registry.versions import ModelVersion, to_version
from dlpipe.tracking import open_store, tracking_errors


@dataclass(frozen=True)
class ModelRecord:
    """A registered model.

    Attributes
    ----------
    name : str
    aliases : mapping of str to int
    versions : mapping of int to ModelVersion
    registered : mapping of int to int
        When each version was registered, in milliseconds since 1970.
    moves : sequence of ChampionMove
        Of its champion, the oldest first.
    deletions : mapping of int to mapping of str to str
        Who deleted a version, ``why`` and when (``at``), by its number; of those that dlpipe deleted.
    """

    name: str
    aliases: Mapping[str, int]
    versions: Mapping[int, ModelVersion]
    registered: Mapping[int, int]
    moves: Sequence[ChampionMove]
    deletions: Mapping[int, Mapping[str, str]]


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


def _search_all(search: Any) -> list[Any]:
    found, page = [], None
    while True:
        some = search(max_results=1000, page_token=page)
        found += some
        page = some.token
        if not page:
            return found


def _make_record(model: Any, versions: Sequence[Any]) -> ModelRecord:
    aliases = {alias: int(version) for alias, version in sorted(model.aliases.items())}
    made = {int(found.version): to_version(found) for found in versions}
    return ModelRecord(
        name=model.name,
        aliases=aliases,
        versions={
            number: dataclasses.replace(
                made[number], aliases=tuple(alias for alias, at in aliases.items() if at == number)
            )
            for number in sorted(made)
        },
        registered={int(found.version): int(found.creation_timestamp) for found in versions},
        moves=read_moves(model.tags),
        deletions={
            int(name.removeprefix(DELETED)): json.loads(note)
            for name, note in model.tags.items()
            if name.startswith(DELETED)
        },
    )
