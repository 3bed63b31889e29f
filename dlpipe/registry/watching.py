"""Where the aliases of models point, seen as cheaply as can be: a server asks twice a second."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dlpipe.registry.names import classifier_name
from dlpipe.registry.versions import find_aliases
from dlpipe.tracking import TrackingStore, find_sqlite_path, open_store, tracking_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

Aliases = Mapping[str, int]


class AliasWatcher:
    """Reads the aliases of models through a connection that stays open."""

    def __init__(self) -> None:
        self._opened: tuple[TrackingStore, MlflowClient] | None = None

    def read(self, names: Collection[str]) -> dict[str, tuple[Aliases, Aliases]]:
        """Return for each name its aliases and those of the classifier that it may be a companion of.

        Two equal readings mean that ``resolve`` would find the same version, unless one was deleted meanwhile.

        Raises
        ------
        TrackingUnavailable
            When the registry does not answer.
        """
        if self._opened is None or not is_there(self._opened[0].registry_uri):  # a file that is gone can be read
            store = open_store()
            self._opened = store, store.client()
        store, client = self._opened
        try:
            with tracking_errors(store):
                bases = {name: classifier_name(name) for name in names}
                found = self._read_all(client, {*names, *(base for base in bases.values() if base)})
        except BaseException:
            self._opened = None
            raise
        return {name: (found.get(name, {}), found.get(base, {}) if base else {}) for name, base in bases.items()}

    def _read_all(self, client: MlflowClient, names: Collection[str]) -> dict[str, dict[str, int]]:
        from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

        registry = client._get_registry_client().store
        if not isinstance(registry, SqlAlchemyStore):
            return {name: find_aliases(client, name) or {} for name in names}
        from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModelAlias

        with registry.ManagedSessionMaker(read_only=True) as session:
            rows = registry._get_query(session, SqlRegisteredModelAlias).filter(
                SqlRegisteredModelAlias.name.in_(names)
            )
            made: dict[str, dict[str, int]] = {}
            for row in rows:
                made.setdefault(row.name, {})[row.alias] = int(row.version)
            return made


def is_there(uri: str) -> bool:
    """Return whether a store that was open is where it was: of a file, whether it exists; of others, always."""
    return urlsplit(uri).scheme.partition("+")[0] != "sqlite" or find_sqlite_path(uri).exists()
