"""Model versions: what they are, and finding them by URI, alias or key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dlpipe.errors import ModelNotFound
from dlpipe.tracking import open_store, tracking_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHALLENGER, CHAMPION = "challenger", "champion"
KEY, WEIGHTS, MODEL_ID = "dlpipe.key", "dlpipe.weights", "dlpipe.model_id"


@dataclass(frozen=True)
class ModelVersion:
    """A registered version of a model.

    Attributes
    ----------
    name, version : str and int
        As in the registry.
    uri : str
        ``models:/name/3``, which always means this version.
    digest : str
        SHA-256 of the weights; empty for a version that dlpipe did not register.
    run_id, model_id : str
        The MLflow run and the logged model that it came from.
    aliases : tuple of str
        The aliases that pointed here when this was read.
    tags : mapping of str to str
        Lineage, such as ``metaflow.pathspec``, ``delta.table`` and ``delta.version``.
    """

    name: str
    version: int
    uri: str
    digest: str
    run_id: str
    model_id: str
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"


def resolve(uri: str) -> ModelVersion:
    """Return the version that ``uri`` names.

    Parameters
    ----------
    uri : str
        ``models:/name@champion``, ``models:/name/3``, both also without ``models:/``, or a bare name, which
        means its champion.

    Raises
    ------
    ModelNotFound
        When there is no such model, version or alias; the message says which there are.
    """
    name, version, alias = parse_uri(uri)
    store = open_store()
    with tracking_errors(store):
        client = store.client()
        aliases = model_aliases(client, name)
        if alias is not None:
            if alias not in aliases:
                raise ModelNotFound(f"{name!r} has no alias {alias!r}; {said_aliases(name, aliases)}")
            version = aliases[alias]
        numbers = version_numbers(client, name)
        if version not in numbers:
            there = f"it has {', '.join(map(str, numbers))}" if numbers else "it has none"
            raise ModelNotFound(f"{name!r} has no version {version}; {there}. `dlpipe models` lists them.")
        return read_version(client, name, int(version))


def champion(name: str) -> ModelVersion | None:
    """Return the champion of the model ``name``; ``None`` when there is no such model or it has no champion."""
    store = open_store()
    with tracking_errors(store):
        client = store.client()
        if name not in model_names(client) or CHAMPION not in (aliases := model_aliases(client, name)):
            return None
        return read_version(client, name, aliases[CHAMPION])


def list_models() -> list[tuple[ModelVersion, dict[str, float]]]:
    """Return every version of every registered model with its metrics, newest first within a model."""
    store = open_store()
    with tracking_errors(store):
        client = store.client()
        versions = [
            read_version(client, name, number)
            for name in model_names(client)
            for number in reversed(version_numbers(client, name))
        ]
        return [(version, model_metrics(client, version)) for version in versions]


def model_metrics(client: MlflowClient, version: ModelVersion) -> dict[str, float]:
    """Return the metrics that ``version`` was logged with."""
    if not version.model_id:
        return {}
    points = client.get_logged_model(version.model_id).metrics or []
    return {point.key: point.value for point in sorted(points, key=lambda point: point.timestamp)}


def parse_uri(uri: str) -> tuple[str, int | None, str | None]:
    """Return the name, the version and the alias (one of the two) that ``uri`` names.

    Examples
    --------
    >>> parse_uri("models:/reviews@challenger"), parse_uri("reviews/3"), parse_uri("reviews")
    (('reviews', None, 'challenger'), ('reviews', 3, None), ('reviews', None, 'champion'))
    """
    match = re.fullmatch(r"(?:models:/+)?([^/@:]+)(?:/(\d+)|@([^/@:]+))?", uri.strip())
    if match is None:
        raise ModelNotFound(f"{uri!r} names no model. Write models:/NAME@champion or models:/NAME/3.")
    name, version, alias = match.groups()
    return name, int(version) if version else None, alias or (None if version else CHAMPION)


def model_names(client: MlflowClient) -> list[str]:
    """Return the names of all registered models, sorted."""
    names, page = [], None
    while True:
        found = client.search_registered_models(max_results=1000, page_token=page)
        names += [one.name for one in found]
        page = found.token
        if not page:
            return sorted(names)


def model_aliases(client: MlflowClient, name: str) -> dict[str, int]:
    """Return the aliases of the model ``name`` and the versions that they point to."""
    names = model_names(client)
    if name not in names:
        there = f"there are {', '.join(names)}" if names else "there is none yet"
        raise ModelNotFound(f"No model {name!r} is registered; {there}. Register one with flows/train_flow.py.")
    aliases = client.get_registered_model(name).aliases
    return {alias: int(version) for alias, version in sorted(aliases.items())}


def version_numbers(client: MlflowClient, name: str) -> list[int]:
    """Return the versions of the model ``name``, ascending."""
    return sorted(int(one.version) for one in client.search_model_versions(f"name = '{name}'"))


def said_aliases(name: str, aliases: Mapping[str, int]) -> str:
    """Return the end of a message about an alias that is not there.

    Examples
    --------
    >>> said_aliases("reviews", {"challenger": 2})
    'it has challenger (v2). Use one of them, or a version such as models:/reviews/2.'
    """
    if not aliases:
        return f"it has none. Use a version, such as models:/{name}/1."
    there = ", ".join(f"{alias} (v{version})" for alias, version in aliases.items())
    return f"it has {there}. Use one of them, or a version such as models:/{name}/{max(aliases.values())}."


def version_with_key(client: MlflowClient, name: str, key: str) -> ModelVersion | None:
    """Return the lowest version of ``name`` that carries ``key``, or ``None``."""
    found = client.search_model_versions(f"name = '{name}' and tags.`{KEY}` = '{key}'")
    numbers = [int(one.version) for one in found]
    return read_version(client, name, min(numbers)) if numbers else None


def read_version(client: MlflowClient, name: str, version: int) -> ModelVersion:
    """Return version ``version`` of ``name`` as the registry has it now."""
    return as_version(client.get_model_version(name, str(version)))


def as_version(found: Any) -> ModelVersion:
    """Return MLflow's entity ``found`` as a ``ModelVersion``."""
    return ModelVersion(
        name=found.name,
        version=int(found.version),
        uri=f"models:/{found.name}/{found.version}",
        digest=found.tags.get(WEIGHTS, ""),
        run_id=found.run_id or "",
        model_id=found.tags.get(MODEL_ID, ""),
        aliases=tuple(sorted(found.aliases)),
        tags=dict(found.tags),
    )
