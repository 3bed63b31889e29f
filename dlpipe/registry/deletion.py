"""Deleting versions from the registry, together with their companions."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dlpipe.errors import DlpipeError, PromotionRefused
from dlpipe.registry.families import find_made_from
from dlpipe.registry.history import LONGEST, get_user
from dlpipe.registry.names import CHAMPION, KIND, KINDS, companion_name
from dlpipe.registry.versions import ModelVersion, list_model_names, read_version
from dlpipe.tracking import open_store, tracking_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOGGER = logging.getLogger(__name__)
DELETED = "dlpipe.deleted."
"""Prefix of the tag of a registered model that records a deletion; the version follows."""


def delete_version(
    version: ModelVersion, *, force: bool = False, who: str = "", why: str = ""
) -> tuple[ModelVersion, ...]:
    """Delete ``version`` and its companions from the registry, and return what was deleted.

    Runs and files stay until ``mlflow gc``. Numbers are not used again.

    Parameters
    ----------
    version : ModelVersion
    force : bool, optional
        Delete it even if it is the champion; the model then has none.
    who, why : str, optional
        Recorded with the time in a tag of the registered model. By default the current user, and no reason.

    Raises
    ------
    PromotionRefused
        When ``version`` is champion and ``force`` is not set; nothing was deleted.
    """
    store = open_store()
    with tracking_errors(store), store.lock("champion", version.name):
        client = store.client()
        deleted = _list_deleted(client, version, force)
        note = {
            "who": who or get_user(),
            "why": why[:LONGEST],
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        # first: after the deletion nobody would call again to write it
        client.set_registered_model_tag(version.name, f"{DELETED}{version.version}", json.dumps(note))
        for member in deleted:
            client.delete_model_version(member.name, str(member.version))
        return deleted


def list_deleted(version: ModelVersion, *, force: bool = False) -> tuple[ModelVersion, ...]:
    """Return what ``delete_version`` would delete, or raise as it would; the classifier comes last."""
    store = open_store()
    with tracking_errors(store):
        return _list_deleted(store.client(), version, force)


def _list_deleted(client: MlflowClient, version: ModelVersion, force: bool) -> tuple[ModelVersion, ...]:
    now = read_version(client, version.name, version.version)
    if CHAMPION in now.aliases and not force:
        raise PromotionRefused(
            f"{version.uri} is the champion. Promote another version first, or use --force: "
            f"{version.name!r} has no champion then."
        )
    # the classifier last: killed before it, a second call still finds it and deletes the rest
    return (*find_family(client, now), now)


def find_family(client: MlflowClient, version: ModelVersion) -> list[ModelVersion]:
    """Return the companions of ``version``; none for a version that is a companion itself."""
    if KIND in version.tags:
        return []
    names = list_model_names(client)
    kinds = [kind for kind in KINDS if companion_name(version.name, kind) in names]
    return [made for kind in kinds for made in find_made_from(client, version, kind)]


def delete_unfinished(version: ModelVersion) -> None:
    """Delete a version whose companions could not be registered; a failure to do so is only logged."""
    store = open_store()
    try:
        with tracking_errors(store):
            client = store.client()
            now = read_version(client, version.name, version.version)
            if not now.aliases:  # somebody who gave it one meanwhile wants it
                for member in (*find_family(client, now), now):
                    client.delete_model_version(member.name, str(member.version))
    except DlpipeError as error:
        LOGGER.warning("%s stays without what is made from it: %s", version.uri, error)
