"""Versions that were trained on rows which were forgotten since: a tag for each record, and a line of the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dlpipe.registry.versions import ModelVersion
from dlpipe.tracking import open_store, tracking_errors

PREFIX = "dlpipe.forgotten."
"""How these tags begin; the record follows."""
LINE = "Rows forgotten since: "
SPLITS = {"train": "trained on", "valid": "validated on", "test": "tested on"}


def read_forgotten_rows(tags: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return what was forgotten of the rows that a version had, the earliest first.

    Each has ``record``, ``at`` (in ISO 8601) and ``rows``, the number of rows by split.
    """
    found = [
        {"record": name.removeprefix(PREFIX), **json.loads(value)}
        for name, value in tags.items()
        if name.startswith(PREFIX)
    ]
    return sorted(found, key=lambda one: str(one["at"]))


def describe_forgotten(tags: Mapping[str, str]) -> str:
    """Return on how many rows, forgotten since, a version was trained; empty where on none.

    Examples
    --------
    >>> tags = {"dlpipe.forgotten.ab12": '{"at": "2026-11-29T02:00:00+00:00", "rows": {"train": 2, "test": 1}}'}
    >>> describe_forgotten(tags)
    'trained on 2 rows forgotten since, tested on 1 (record ab12, 2026-11-29)'
    """
    found = read_forgotten_rows(tags)
    if not found:
        return ""
    counts = {split: sum(one["rows"].get(split, 0) for one in found) for split in SPLITS}
    parts: list[str] = []
    for split, how in SPLITS.items():
        if count := counts[split]:
            parts.append(
                f"{how} {count:,}" + ("" if parts else f" row{'' if count == 1 else 's'} forgotten since")
            )
    records = "; ".join(f"record {one['record']}, {str(one['at'])[:10]}" for one in found)
    return f"{', '.join(parts) or 'had rows forgotten since'} ({records})"


def mark_forgotten(version: ModelVersion, record: str, rows: Mapping[str, int], *, at: int) -> None:
    """Record on a version how many of its rows a forgetting took away; again is harmless.

    Parameters
    ----------
    version : ModelVersion
    record : str
    rows : mapping of str to int
        By split.
    at : int
        When, in milliseconds since 1970.
    """
    store = open_store()
    with tracking_errors(store):
        client = store.client()
        there = client.get_model_version(version.name, str(version.version))
        when = datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="seconds")
        value = json.dumps({"at": when, "rows": dict(rows)})
        if not rows and f"{PREFIX}{record}" in there.tags:
            return
        client.set_model_version_tag(version.name, str(version.version), f"{PREFIX}{record}", value)
        tags = {**there.tags, f"{PREFIX}{record}": value}
        described = add_forgotten(there.description or "", tags)
        if described != there.description:
            client.update_model_version(version.name, str(version.version), described)


def add_forgotten(description: str, tags: Mapping[str, str]) -> str:
    """Return a description that says so below its first line, which says what the version was trained on.

    Examples
    --------
    >>> tags = {"dlpipe.forgotten.ab12": '{"at": "2026-11-29T02:00:00+00:00", "rows": {"train": 1}}'}
    >>> made = add_forgotten("Trained on reviews@v0.\\n\\nGate: passed", tags)
    >>> print(made)
    Trained on reviews@v0.
    <BLANKLINE>
    Rows forgotten since: trained on 1 row forgotten since (record ab12, 2026-11-29)
    <BLANKLINE>
    Gate: passed
    >>> add_forgotten(made, tags) == made
    True
    """
    if not (told := describe_forgotten(tags)):
        return description
    first, _, rest = description.partition("\n\n")
    if rest.startswith(LINE):
        _, _, rest = rest.partition("\n\n")
    return "\n\n".join(filter(None, (first, f"{LINE}{told}", rest)))
