"""Moving an alias of several models as one, if it still points where it did when the caller looked.

A database does it in one transaction, with MLflow's own classes: its client has no call that compares, or that
moves several aliases. A server has none either: there callers hold a lock of this machine, the alias of the first
model moves first and decides, and the others follow. ``resolve`` goes by the first one, so that a process killed
in between changes no answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlpipe.registry.versions import read_aliases

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Move:
    """Where an alias of some models is to point.

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
    """Move the alias, unless that of the first model no longer points at ``expected``; return whether it moved.

    Parameters
    ----------
    client : MlflowClient
    move : Move
    expected : int or None
        The version that the alias of the first model must point at; ``None`` if it must not exist.
    """
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    registry = client._get_registry_client().store
    if isinstance(registry, SqlAlchemyStore):
        return move_in_database(registry, move, expected)
    return move_by_calls(client, move, expected)


def move_in_database(registry: Any, move: Move, expected: int | None) -> bool:
    """Move the alias in one transaction, as ``move_alias`` does: all of it, or nothing where another was first.

    Parameters
    ----------
    registry : SqlAlchemyStore
        MLflow's registry store.
    move : Move
    expected : int or None
    """
    from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModel

    with registry.ManagedSessionMaker(read_only=False) as session:
        # the row is written before anything is read, so that of two moves the second waits for the first
        row = registry._get_query(session, SqlRegisteredModel).filter(SqlRegisteredModel.name == move.first)
        row.update({SqlRegisteredModel.last_updated_time: SqlRegisteredModel.last_updated_time})
        there = registry._get_registered_model_alias(session, move.first, move.alias)
        if (there.version if there else None) != expected:
            return False
        for name, version in move.to.items():
            write_alias(registry, session, name, move.alias, version)
        if move.tag is not None:
            write_tag(registry, session, move.first, *move.tag)
    return True


def write_alias(registry: Any, session: Any, name: str, alias: str, version: int | None) -> None:
    """Point the alias of model ``name`` at ``version`` within a transaction; ``None`` deletes the alias."""
    from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModelAlias

    if version is None:
        if there := registry._get_registered_model_alias(session, name, alias):
            session.delete(there)
        return
    found = registry._get_sql_model_version(session, name, version)  # raises if somebody deleted it meanwhile
    session.merge(SqlRegisteredModelAlias(workspace=found.workspace, name=name, alias=alias, version=version))


def write_tag(registry: Any, session: Any, name: str, key: str, value: str) -> None:
    """Set a tag of model ``name`` within a transaction."""
    from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModelTag

    workspace = registry._get_registered_model(session, name).workspace
    session.merge(SqlRegisteredModelTag(workspace=workspace, name=name, key=key, value=value))


def move_by_calls(client: MlflowClient, move: Move, expected: int | None) -> bool:
    """Move the alias call by call, the model that decides first.

    Between the comparison and the first call another machine may move it too: a window that no lock of one machine
    closes.
    """
    if read_aliases(client, move.first).get(move.alias) != expected:
        return False
    # before the alias: killed in between, a record without its move does no harm (the version that it names is no
    # champion), while a move without its record could not be taken back
    if move.tag is not None:
        client.set_registered_model_tag(move.first, *move.tag)
    for name, version in move.to.items():
        if version is None:
            client.delete_registered_model_alias(name, move.alias)
        else:
            client.set_registered_model_alias(name, move.alias, str(version))
    return True
