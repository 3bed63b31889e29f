"""Model versions: what they are, and finding them by URI, alias or key.

Functions that take a client are called with one that is open; the others open the store themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dlpipe.errors import ModelNotFound, StoreNotFound
from dlpipe.registry.names import CHAMPION, DIGEST, KEY, MADE_FROM, MODEL_ID, TASK, classifier_name
from dlpipe.task import DEFAULT_TASK
from dlpipe.terminal import is_utf8
from dlpipe.tracking import open_store, tracking_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient


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
    created : int
        When it was registered, in milliseconds since 1970; 0 where that is not known.
    """

    name: str
    version: int
    uri: str
    digest: str
    run_id: str
    model_id: str
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    created: int = field(default=0, compare=False, repr=False)

    @property
    def identity(self) -> tuple[object, ...]:
        """What no two versions share: once a model was deleted, MLflow gives its name and numbers to others.

        Examples
        --------
        >>> one, other = (ModelVersion("reviews", 1, "models:/reviews/1", "", run, "") for run in ("a", "b"))
        >>> one.identity == other.identity, one.identity == one.identity
        (False, True)
        """
        return self.name, self.version, self.digest, self.run_id, self.model_id, self.created

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"

    def line(self) -> str:
        """Return the URI and the aliases for a summary.

        Examples
        --------
        >>> ModelVersion("reviews", 1, "models:/reviews/1", "", "", "", ("champion",)).line()
        'models:/reviews/1 (champion)'
        >>> ModelVersion("reviews", 2, "models:/reviews/2", "", "", "").line()
        'models:/reviews/2'
        """
        return f"{self.uri} ({', '.join(self.aliases)})" if self.aliases else self.uri

    @property
    def task(self) -> str:
        """The name of the task; the default one for a version that does not say."""
        return self.tags.get(TASK, DEFAULT_TASK)


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
        aliases = read_aliases(client, name)
        if alias is not None:
            if alias not in aliases:
                raise ModelNotFound(f"{name!r} has no alias {alias!r}; {describe_aliases(name, aliases)}")
            version = aliases[alias] if alias != CHAMPION else resolve_champion(client, name, aliases[alias])
        numbers = list_version_numbers(client, name)
        if version not in numbers:
            there = f"it has {', '.join(map(str, numbers))}" if numbers else "it has none"
            raise ModelNotFound(f"{name!r} has no version {version}; {there}. `dlpipe models` lists them.")
        return read_version(client, name, int(version))


def find_champion(name: str) -> ModelVersion | None:
    """Return the champion of the model ``name``; ``None`` when there is no such model or it has no champion."""
    try:
        store = open_store()
    except StoreNotFound:  # before the first training
        return None
    with tracking_errors(store):
        client = store.client()
        aliases = find_aliases(client, name)
        if aliases is None or CHAMPION not in aliases:
            return None
        return read_version(client, name, resolve_champion(client, name, aliases[CHAMPION]))


def resolve_champion(client: MlflowClient, name: str, version: int) -> int:
    """Return the version that is champion of ``name``: for a companion, one made from its classifier's champion.

    The alias of a companion can point elsewhere: somebody moved one alone or deleted a version in MLflow, or a
    promotion at a server was killed between two calls.

    Parameters
    ----------
    client : MlflowClient
    name : str
    version : int
        That the alias ``champion`` of ``name`` points at.

    Raises
    ------
    ModelNotFound
        When nothing was made from the classifier's champion, or there is none.
    """
    made_from, base = read_version(client, name, version).tags.get(MADE_FROM), classifier_name(name)
    if made_from is None or base is None or (aliases := find_aliases(client, base)) is None:
        return version
    at = aliases.get(CHAMPION)
    if made_from == to_uri(base, at):
        return version
    made = search_versions(client, name, {MADE_FROM: to_uri(base, at)})
    if made:
        return max(int(found.version) for found in made)
    there = f"v{at} is" if at else "it has none"
    raise ModelNotFound(
        f"The champion of {name!r} was made from {made_from}, which is not the champion of {base!r} ({there}), "
        f"and nothing else is there. Promote a version of {base!r}: dlpipe models promote {base}/1."
    )


def to_uri(name: str, version: int | str | None) -> str:
    """Return the URI that always means this version.

    Examples
    --------
    >>> to_uri("reviews", 3)
    'models:/reviews/3'
    """
    return f"models:/{name}/{version}"


def list_versions() -> list[tuple[ModelVersion, dict[str, float]]]:
    """Return every version of every registered model with its metrics, newest first within a model."""
    store = open_store()
    with tracking_errors(store):
        client = store.client()
        versions = [
            read_version(client, name, number)
            for name in list_model_names(client)
            for number in reversed(list_version_numbers(client, name))
        ]
        return [(version, read_metrics(client, version)) for version in versions]


def read_metrics(client: MlflowClient, version: ModelVersion) -> dict[str, float]:
    """Return the metrics that ``version`` was logged with."""
    from mlflow.exceptions import MlflowException

    if not version.model_id:
        return {}
    try:
        points = client.get_logged_model(version.model_id).metrics or []
    except MlflowException as error:  # what somebody deleted must not keep the others from being listed
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}
    return {point.key: point.value for point in sorted(points, key=lambda point: point.timestamp)}


def parse_uri(uri: str) -> tuple[str, int | None, str | None]:
    """Return the name, the version and the alias (one of the two) that ``uri`` names.

    Examples
    --------
    >>> parse_uri("models:/reviews@challenger"), parse_uri("reviews/3"), parse_uri("reviews")
    (('reviews', None, 'challenger'), ('reviews', 3, None), ('reviews', None, 'champion'))
    """
    match = re.fullmatch(r"(?:models:/+)?([^/@:]+)(?:/(\d+)|@([^/@:]+))?", uri.strip())
    # of ".." MLflow makes paths
    if match is None or match[1].startswith("..") or match[1] == "." or not is_utf8(uri):
        raise ModelNotFound(f"{uri!r} names no model. Write models:/NAME@champion or models:/NAME/3.")
    name, version, alias = match.groups()
    return name, int(version) if version else None, alias or (None if version else CHAMPION)


def list_model_names(client: MlflowClient) -> list[str]:
    """Return the names of all registered models, sorted."""
    names, page = [], None
    while True:
        found = client.search_registered_models(max_results=1000, page_token=page)
        names += [model.name for model in found]
        page = found.token
        if not page:
            return sorted(names)


def list_aliases() -> dict[str, dict[str, int]]:
    """Return the aliases of every registered model, and the version that each points at."""
    store = open_store()
    with tracking_errors(store):
        client = store.client()
        return {name: find_aliases(client, name) or {} for name in list_model_names(client)}


def point_alias(name: str, alias: str, version: int | None) -> None:
    """Point an alias of a model at a version, or take it away; for the champion there is ``promote``.

    Parameters
    ----------
    name, alias : str
    version : int or None
        ``None`` takes it away, if it exists.

    Raises
    ------
    ModelNotFound
        When the model is not registered.
    """
    store = open_store()
    with tracking_errors(store):
        client = store.client()
        known = read_aliases(client, name)
        if version is not None:
            client.set_registered_model_alias(name, alias, str(version))
        elif alias in known:
            client.delete_registered_model_alias(name, alias)


def read_aliases(client: MlflowClient, name: str) -> dict[str, int]:
    """Return the aliases of the model ``name`` and their versions, or raise ``ModelNotFound``."""
    if (aliases := find_aliases(client, name)) is not None:
        return aliases
    names = list_model_names(client)
    there = f"there are {', '.join(names)}" if names else "there is none yet"
    raise ModelNotFound(f"No model {name!r} is registered; {there}. Register one with flows/train_flow.py.")


def find_aliases(client: MlflowClient, name: str) -> dict[str, int] | None:
    """Return the aliases of the model ``name`` and their versions; ``None`` where it is not registered."""
    from mlflow.exceptions import MlflowException

    try:
        aliases = client.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None  # the second is what MLflow says of a name that it takes for no model
    return {alias: int(version) for alias, version in sorted(aliases.items())}


def list_version_numbers(client: MlflowClient, name: str) -> list[int]:
    """Return the versions of the model ``name``, ascending."""
    return sorted(int(found.version) for found in search_versions(client, name))


def search_versions(client: MlflowClient, name: str, tags: Mapping[str, str] | None = None) -> list[Any]:
    """Return MLflow's entities of the versions of ``name`` that have these tags, in no order.

    Parameters
    ----------
    client : MlflowClient
    name : str
    tags : mapping of str to str, optional
        All must match; by default all versions are returned.
    """
    clauses = [make_name_clause(name), *(f"tags.`{tag}` = {quote(value)}" for tag, value in (tags or {}).items())]
    found, page = [], None
    while True:
        some = client.search_model_versions(" and ".join(clauses), page_token=page)
        found += [version for version in some if version.name == name]  # see make_name_clause
        page = some.token
        if not page:
            return found


def make_name_clause(name: str) -> str:
    """Return the clause of a search for the model ``name``; with both quotes in the name it finds others too.

    Examples
    --------
    >>> make_name_clause("reviews"), make_name_clause("it's")
    ("name = 'reviews'", 'name = "it\\'s"')
    """
    if "'" in name and '"' in name:  # the search has no way to escape a quote
        return f"name LIKE '{re.sub('[^a-zA-Z0-9]', '_', name)}'"
    return f"name = {quote(name)}"


def quote(text: str) -> str:
    """Return ``text`` between those quotes that it does not hold itself."""
    mark = '"' if "'" in text else "'"
    return f"{mark}{text}{mark}"


def describe_aliases(name: str, aliases: Mapping[str, int]) -> str:
    """Return the end of a message about an alias that does not exist.

    Examples
    --------
    >>> describe_aliases("reviews", {"challenger": 2})
    'it has challenger (v2). Use one of them, or a version such as models:/reviews/2.'
    """
    if not aliases:
        return f"it has none. Use a version, such as models:/{name}/1."
    there = ", ".join(f"{alias} (v{version})" for alias, version in aliases.items())
    return f"it has {there}. Use one of them, or a version such as models:/{name}/{max(aliases.values())}."


def find_version(client: MlflowClient, name: str, key: str) -> ModelVersion | None:
    """Return the lowest version of ``name`` with the key of a registration, or ``None``."""
    numbers = [int(found.version) for found in search_versions(client, name, {KEY: key})]
    return read_version(client, name, min(numbers)) if numbers else None


def read_version(client: MlflowClient, name: str, version: int) -> ModelVersion:
    """Return version ``version`` of model ``name`` as the registry has it now."""
    return to_version(client.get_model_version(name, str(version)))


def to_version(found: Any) -> ModelVersion:
    """Return MLflow's entity ``found`` as a ``ModelVersion``."""
    return ModelVersion(
        name=found.name,
        version=int(found.version),
        uri=to_uri(found.name, found.version),
        digest=found.tags.get(DIGEST, ""),
        run_id=found.run_id or "",
        model_id=found.tags.get(MODEL_ID, ""),
        aliases=tuple(sorted(found.aliases)),
        tags=dict(found.tags),
        created=int(found.creation_timestamp or 0),
    )
