"""Which features of Delta's protocol dlpipe has; what lacks one is refused before a row is read or written.

delta-rs looks at the features that a table lists, and not at those that an older protocol brings along: it reads
every value of a renamed column as null, and commits rows that break a constraint.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dlpipe.errors import UnsupportedFeature

if TYPE_CHECKING:
    from deltalake import DeltaTable

# each is tried on a table made for it; deletion vectors are absent: the rows that they take out would be read
READS = frozenset(
    [
        "columnMapping",
        "timestampNtz",
        "typeWidening",
        "typeWidening-preview",
        "v2Checkpoint",
        "vacuumProtocolCheck",
    ]
)
# those that ask something of a writer are looked at one by one, see _find_rules
WRITES = frozenset(
    [
        "appendOnly",
        "changeDataFeed",
        "checkConstraints",
        "columnMapping",
        "generatedColumns",
        "invariants",
        "timestampNtz",
    ]
)
READER_VERSION, WRITER_VERSION = 3, 7
"""The last ones: from them on, a table lists its features."""
IDENTITY_COLUMNS = 6
"""The writer version that brings them, without a list."""
MAPPING = "delta.columnMapping"
COLUMN_RULES = {
    "delta.invariants": "invariants",
    "delta.generationExpression": "generatedColumns",
    "delta.identity.start": "identityColumns",
}


def check_readable(table: DeltaTable, name: str) -> None:
    """Raise ``UnsupportedFeature`` where a reader must know of something that dlpipe does not know.

    Parameters
    ----------
    table : deltalake.DeltaTable
    name : str
        What to call it in the error.
    """
    protocol = table.protocol()
    missing = _find_not_read(protocol.min_reader_version, protocol.reader_features or ())
    mode = find_mapping_mode(table)
    if mode not in ("none", "name", "id"):
        missing.append(f"{MAPPING}.mode={mode}")
    if missing:
        raise make_not_read_error(name, missing)


def check_writable(table: DeltaTable, name: str, *, overwrite: bool) -> None:
    """Raise ``UnsupportedFeature`` where a commit would break a rule of the table.

    Parameters
    ----------
    table : DeltaTable
        The latest version.
    name : str
        The table's, for the error.
    overwrite : bool
        Whether the commit takes rows away, which an append-only table forbids.
    """
    protocol = table.protocol()
    listed = set(protocol.writer_features or ())
    missing = sorted(listed - WRITES)
    if protocol.min_writer_version > WRITER_VERSION or protocol.min_writer_version == IDENTITY_COLUMNS:
        missing.append(f"writer version {protocol.min_writer_version}")
    missing += [feature for feature in _find_rules(table, overwrite=overwrite) if feature not in missing]
    if missing:
        raise UnsupportedFeature(
            f"{name} has rules of Delta that dlpipe cannot keep when it writes: {', '.join(missing)}; nothing was "
            "written. Pass another table, for example a new one that this one is ingested into."
        )


def find_mapping_mode(table: DeltaTable) -> str:
    """Return how columns are found in the files of the table: none (by their name), name or id."""
    return str(table.metadata().configuration.get(f"{MAPPING}.mode") or "none").lower()


def find_missing_features(lines: Iterable[bytes], error: str = "") -> list[str]:
    """Return what a table that cannot be opened asks of its reader and dlpipe does not have.

    Parameters
    ----------
    lines : iterable of bytes
        Lines of its log, the latest commit first.
    error : str
        What delta-rs said; it names a feature too where the log does not begin at version 0.

    Examples
    --------
    >>> protocol = b'{"protocol": {"minReaderVersion": 3, "readerFeatures": ["columnMapping", "magic"]}}'
    >>> find_missing_features([b"{}", protocol])
    ['magic']
    >>> find_missing_features([], "Unsupported: Feature 'magic' is not supported")
    ['magic']
    """
    for action in _read_actions(lines):
        if isinstance(found := action.get("protocol"), dict):
            return _find_not_read(found.get("minReaderVersion", 1), found.get("readerFeatures") or ())
    return re.findall(r"Feature '([^']+)' is not supported", error)


def make_not_read_error(name: str, missing: Iterable[str]) -> UnsupportedFeature:
    """Return the error that names what of a table cannot be read."""
    listed = ", ".join(missing)
    return UnsupportedFeature(
        f"{name} needs what dlpipe does not read of Delta: {listed}. Rewrite it without (in Spark: "
        "ALTER TABLE ... DROP FEATURE), or export its rows to Parquet."
    )


def _find_not_read(version: int, features: Iterable[str]) -> list[str]:
    missing = sorted(set(features) - READS)
    return [*missing, *([f"reader version {version}"] if version > READER_VERSION else [])]


def _find_rules(table: DeltaTable, *, overwrite: bool) -> Iterator[str]:
    """Yield the rules that the table's properties and columns set, whatever its protocol lists."""
    properties: Mapping[str, Any] = table.metadata().configuration
    if find_mapping_mode(table) != "none":
        yield "columnMapping"
    if overwrite and str(properties.get("delta.appendOnly")).lower() == "true":
        yield "appendOnly"
    yield from sorted(f"checkConstraints ({key})" for key in properties if key.startswith("delta.constraints."))
    rules = {rule for field in table.schema().fields for rule in field.metadata}
    yield from (feature for rule, feature in COLUMN_RULES.items() if rule in rules)


def _read_actions(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            action = json.loads(line)
        except ValueError:
            continue
        if isinstance(action, dict):
            yield action
