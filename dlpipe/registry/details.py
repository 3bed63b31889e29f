"""All that the registry knows of one version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dlpipe.registry.families import find_companions
from dlpipe.registry.history import ChampionMove, read_moves
from dlpipe.registry.names import KIND
from dlpipe.registry.versions import ModelVersion, resolve
from dlpipe.tracking import open_store, tracking_errors


@dataclass(frozen=True)
class VersionDetails:
    """A version with what stands beside it.

    Attributes
    ----------
    version : ModelVersion
    registered : int
        When, in milliseconds since 1970.
    description : str
        In Markdown; what people wrote, too.
    moves : sequence of ChampionMove
        Those that made it champion or another one in its place, oldest first.
    companions : sequence of ModelVersion
        The pipeline and the explainer that were made from it.
    """

    version: ModelVersion
    registered: int
    description: str
    moves: Sequence[ChampionMove]
    companions: Sequence[ModelVersion]


def read_details(uri: str) -> VersionDetails:
    """Return what the registry knows of the version that ``uri`` names, in the forms that ``resolve`` takes."""
    version = resolve(uri)
    store = open_store()
    with tracking_errors(store):
        client = store.client()
        found = client.get_model_version(version.name, str(version.version))
        moves = read_moves(client.get_registered_model(version.name).tags)
        made = {} if KIND in version.tags else find_companions(client, version)
        return VersionDetails(
            version=version,
            registered=int(found.creation_timestamp),
            description=found.description or "",
            moves=[move for move in moves if version.version in (move.before, move.after)],
            companions=[companion for companion in made.values() if companion is not None],
        )
