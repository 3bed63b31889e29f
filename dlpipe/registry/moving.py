"""An alias of several models moved as one, if it still stands where it was seen.

A database does it in one transaction. A server has no call for that: there the first model decides, it is moved
under a lock of this machine, and the others follow; ``resolve`` goes by the first one, so that a process killed in
between changes no answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlpipe.registry.versions import model_aliases

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Move:
    """Where an alias of some models is to stand.

    Attributes
    ----------
    alias : str
        Such as ``champion``.
    to : mapping of model name to version
        The model that decides comes first; ``None`` takes the alias away.
    tag : tuple of str and str, optional
        Name and value of a tag of the first model that records the move.
    """

    alias: str
    to: Mapping[str, int | None]
    tag: tuple[str, str] | None = None

    @property
    def first(self) -> str:
        """The model whose alias decides."""
        return next(iter(self.to))


def move_alias(client: MlflowClient, move: Move, *, expected: int | None) -> bool:
    """Move the alias if that of the first model stands at ``expected`` (``None``: nowhere), and return whether."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    registry = client._get_registry_client().store
    if isinstance(registry, SqlAlchemyStore):
        return move_in_database(registry, move, expected)
    return move_by_calls(client, move, expected)


def move_in_database(registry: Any, move: Move, expected: int | None) -> bool:
    """Move the alias in one transaction: all of it, or nothing at all where another was first."""
    from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModel

    with registry.ManagedSessionMaker(read_only=False) as session:
        # the row is written before anything is read, so that of two moves the second waits for the first
        row = registry._get_query(session, SqlRegisteredModel).filter(SqlRegisteredModel.name == move.first)
        row.update({SqlRegisteredModel.last_updated_time: SqlRegisteredModel.last_updated_time})
        there = registry._get_registered_model_alias(session, move.first, move.alias)
        if (there.version if there else None) != expected:
            return False
        for name, version in move.to.items():
            put_alias(registry, session, name, move.alias, version)
        if move.tag is not None:
            put_tag(registry, session, move.first, *move.tag)
    return True


def put_alias(registry: Any, session: Any, name: str, alias: str, version: int | None) -> None:
    """Have the alias of ``name`` stand at ``version`` when the transaction ends."""
    from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModelAlias

    if version is None:
        if there := registry._get_registered_model_alias(session, name, alias):
            session.delete(there)
        return
    found = registry._get_sql_model_version(session, name, version)  # which raises where it was deleted
    session.merge(SqlRegisteredModelAlias(workspace=found.workspace, name=name, alias=alias, version=version))


def put_tag(registry: Any, session: Any, name: str, key: str, value: str) -> None:
    """Have the model ``name`` carry a tag when the transaction ends."""
    from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModelTag

    workspace = registry._get_registered_model(session, name).workspace
    session.merge(SqlRegisteredModelTag(workspace=workspace, name=name, key=key, value=value))


def move_by_calls(client: MlflowClient, move: Move, expected: int | None) -> bool:
    """Move the alias call by call, the model that decides first."""
    if model_aliases(client, move.first).get(move.alias) != expected:
        return False
    if move.tag is not None:  # a record of a move that never was names a version that is no champion
        client.set_registered_model_tag(move.first, *move.tag)
    for name, version in move.to.items():
        if version is None:
            client.delete_registered_model_alias(name, move.alias)
        else:
            client.set_registered_model_alias(name, move.alias, str(version))
    return True
