"""A classifier and what is made from it, such as its pipeline and its explainer: one family, one champion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlpipe.errors import SettingError, StoreNotFound
from dlpipe.registry.names import (
    CHALLENGER,
    CHAMPION,
    KIND,
    KINDS,
    MADE_FROM,
    Kind,
    classifier_name,
    companion_name,
)
from dlpipe.registry.versions import (
    ModelVersion,
    find_aliases,
    list_model_names,
    list_version_numbers,
    read_version,
    search_versions,
)
from dlpipe.tracking import open_store, tracking_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient


def check_name_free(name: str, kind: Kind | None = None) -> None:
    """Raise ``SettingError`` where a version of ``kind`` (``None``: a classifier) cannot be called ``name``.

    A classifier beside another classifier of whose companion it has the name would become a version of that
    companion, and the other way round.
    """
    try:
        store = open_store()
    except StoreNotFound:  # before the first registration
        return
    with tracking_errors(store):
        client = store.client()
        names = list_model_names(client)
        if kind is not None:
            check_versions(client, names, name, kind)
            return
        if (base := classifier_name(name)) in names:
            raise SettingError(
                f"The model {name!r} would be a version of what is made from {base!r}. Use another name."
            )
        check_versions(client, names, name, None)
        for companion in KINDS:
            check_versions(client, names, companion_name(name, companion), companion)


def check_versions(client: MlflowClient, names: Sequence[str], name: str, kind: Kind | None) -> None:
    """Raise ``SettingError`` unless the versions of ``name``, if there are any, are of ``kind``.

    Parameters
    ----------
    client : MlflowClient
    names : sequence of str
        Of all registered models: a search for the versions of an unknown one would be in vain.
    name : str
    kind : str or None
        ``None`` for a classifier.
    """
    if name not in names:
        return
    for found in search_versions(client, name):
        if (there := found.tags.get(KIND)) != kind:
            what = f"a {there}" if there else "no pipeline or explainer"
            raise SettingError(
                f"models:/{name}/{found.version} is {what}, and a {kind or 'classifier'} cannot be a version "
                f"beside it. Use another name for the model."
            )


def list_registered_numbers(name: str) -> list[int]:
    """Return the versions of the model ``name``, ascending; none where it is not registered."""
    store = open_store()
    with tracking_errors(store):
        client = store.client()
        return list_version_numbers(client, name) if name in list_model_names(client) else []


def find_companions(client: MlflowClient, classifier: ModelVersion) -> dict[str, ModelVersion | None]:
    """Return the companions of this version by model name; ``None`` for a registered model that has none for it.

    Of several versions the champion comes first, then the challenger, then the newest.
    """
    made: dict[str, ModelVersion | None] = {}
    for kind in KINDS:
        name = companion_name(classifier.name, kind)
        if found := find_made_from(client, classifier, kind):
            made[name] = max(found, key=rank_version)
        elif find_aliases(client, name) is not None:
            made[name] = None
    return made


def find_made_from(client: MlflowClient, classifier: ModelVersion, kind: Kind) -> list[ModelVersion]:
    """Return every version of ``kind`` that was made from this version of the classifier."""
    name = companion_name(classifier.name, kind)
    found = search_versions(client, name, {MADE_FROM: classifier.uri, KIND: kind})
    return [read_version(client, name, int(version.version)) for version in found]


def rank_version(version: ModelVersion) -> tuple[bool, bool, int]:
    """Return a sort key that is greatest for the champion, then the challenger, then the newest version."""
    return CHAMPION in version.aliases, CHALLENGER in version.aliases, version.version
