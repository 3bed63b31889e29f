"""Versions taken out of the registry, with what was made from them."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dlpipe.errors import DlpipeError, PromotionRefused
from dlpipe.registry.families import made_from
from dlpipe.registry.history import LONGEST, this_user
from dlpipe.registry.names import CHAMPION, KIND, KINDS, companion_name
from dlpipe.registry.versions import ModelVersion, model_names, read_version
from dlpipe.tracking import open_store, tracking_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOGGER = logging.getLogger(__name__)
DELETED = "dlpipe.deleted."
"""How the name of the tag of a registered model begins that tells of a deletion; the version follows."""


def delete_version(
    version: ModelVersion, *, force: bool = False, who: str = "", why: str = ""
) -> tuple[ModelVersion, ...]:
    """Take ``version`` and all that was made from it out of the registry, and return them.

    Its run and its files stay where they are, until ``mlflow gc``. Numbers are not given again.

    Raises
    ------
    PromotionRefused
        When ``version`` is champion and ``force`` is not set; nothing was deleted.
    """
    store = open_store()
    with tracking_errors(store), store.lock("champion", version.name):
        client = store.client()
        now = read_version(client, version.name, version.version)
        if CHAMPION in now.aliases and not force:
            raise PromotionRefused(
                f"{version.uri} is the champion. Promote another version first, or use --force: "
                f"{version.name!r} has no champion then."
            )
        gone = (*family_of(client, now), now)  # the classifier last: called again, this goes on from there
        note = {
            "who": who or this_user(),
            "why": why[:LONGEST],
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        client.set_registered_model_tag(version.name, f"{DELETED}{version.version}", json.dumps(note))
        for one in gone:
            client.delete_model_version(one.name, str(one.version))
        return gone


def family_of(client: MlflowClient, version: ModelVersion) -> list[ModelVersion]:
    """Return what was made from ``version``."""
    if KIND in version.tags:
        return []
    names = model_names(client)
    kinds = [kind for kind in KINDS if companion_name(version.name, kind) in names]
    return [made for kind in kinds for made in made_from(client, version, kind)]


def delete_unfinished(version: ModelVersion) -> None:
    """Take back a version whose companions could not be registered; where that fails, too, it stays."""
    store = open_store()
    try:
        with tracking_errors(store):
            client = store.client()
            now = read_version(client, version.name, version.version)
            if not now.aliases:
                for one in (*family_of(client, now), now):
                    client.delete_model_version(one.name, str(one.version))
    except DlpipeError as error:
        LOGGER.warning("%s stays without what is made from it: %s", version.uri, error)
