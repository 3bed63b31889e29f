"""Bringing the pages of versions up to date with what they were used for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlpipe.registry.descriptions import describe_companion, renew_description
from dlpipe.registry.names import KIND, MADE_FROM, USES
from dlpipe.registry.uses import VersionUses, describe_uses, make_uses_tag, read_uses
from dlpipe.registry.versions import ModelVersion, parse_uri, read_version
from dlpipe.tracking import open_store, tracking_errors


def record_uses(found: Mapping[ModelVersion, VersionUses]) -> int:
    """Have the page of each version say what it was used for, and return how many pages have changed.

    What people wrote into a description stays; where nothing has changed nothing is written.

    Parameters
    ----------
    found : mapping of ModelVersion to VersionUses
    """
    store = open_store()
    with tracking_errors(store):
        client = store.client()
        return sum(_record(client, version, uses) for version, uses in found.items())


def _record(client: Any, version: ModelVersion, uses: VersionUses) -> bool:
    from mlflow.exceptions import MlflowException

    name, number = version.name, str(version.version)
    if read_uses(version.tags) == uses:
        return False
    try:
        there = client.get_model_version(name, number)
        before, tags = there.description or "", dict(there.tags)
        tag = make_uses_tag(uses)
        if KIND in tags:
            renewed = _renew_companion(client, before, tags, {**tags, tag[0]: tag[1]})
        else:
            renewed = renew_description(before, {**tags, tag[0]: tag[1]})
        if renewed != before:
            client.update_model_version(name, number, renewed)
        # last: a kill in between writes the same description again
        client.set_model_version_tag(name, number, *tag)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # deleted meanwhile
            raise
        return False
    return True


def _renew_companion(client: Any, before: str, tags: Mapping[str, str], renewed: Mapping[str, str]) -> str:
    """Return the description of a companion with what its tags say by now; one that is not ours as it is."""
    name, number, _ = parse_uri(tags.get(MADE_FROM, ""))
    classifier = read_version(client, name, int(number or 0))
    base = describe_companion(tags[KIND], classifier.uri, classifier.tags)  # type: ignore[arg-type]
    if not before.startswith(base):
        return before
    rest = before.removeprefix(base)
    # a kill may have left the new text beside the old tag
    for known in (tags, renewed):
        block = spell_block(known)
        if block and rest.startswith(block):
            rest = rest.removeprefix(block)
            break
    return f"{base}{spell_block(renewed)}{rest}"


def spell_block(tags: Mapping[str, str]) -> str:
    """Return what the tags say of uses as paragraphs that follow others; nothing where they say nothing."""
    return "".join(f"\n\n{paragraph}" for paragraph in describe_uses(tags)) if USES in tags else ""
