"""Which rows were forgotten: a table of digests, by which an ingest or append knows a row that must not come back.

A row id is made of the row's content, and a short text could be guessed from it. So the table has digests of
row ids, keyed with a salt of its own: nobody finds out what was forgotten, but whoever has a row finds out that it
was.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dlpipe.tables._form import RowForm, Values
from dlpipe.tables._read import read_table
from dlpipe.tables._storage import locate
from dlpipe.tables._versions import table_at, try_open
from dlpipe.tables._write import write_table

FORGOTTEN = "_forgotten"
"""The table, under the root of tables."""
BEGUN, DONE, LIFTED = "begun", "done", "lifted"
COLUMNS = ("record", "event", "at", "who", "salt", "digest", "details")
DIGEST_BYTES = 16


@dataclass(frozen=True)
class Forgetting:
    """What is kept of one call of ``dlpipe forget``: no text, no row id.

    Attributes
    ----------
    record : str
        Its id.
    at : int
        When it began, in milliseconds since 1970.
    who : str
    digests : mapping of str to mapping
        The keyed digest of each row, with what is told of it: tables, models.
    done : mapping or None
        What was done; ``None`` where it has not come to its end.
    lifted_at : int or None
        From when on the rows may come back, in milliseconds since 1970; ``None`` where they may not.
    """

    record: str
    at: int
    who: str
    digests: Mapping[str, Mapping[str, Any]]
    done: Mapping[str, Any] | None = None
    lifted_at: int | None = None

    @property
    def lifted(self) -> bool:
        """Whether the rows may come back."""
        return self.lifted_at is not None


@dataclass(frozen=True)
class ForgottenRows:
    """All records; false where there are none that hold."""

    records: tuple[Forgetting, ...] = ()
    salts: tuple[bytes, ...] = ()
    _banned: Mapping[str, Forgetting] = field(default_factory=dict, repr=False)

    def __bool__(self) -> bool:
        return bool(self._banned)

    def find(self, row_id: str) -> Forgetting | None:
        """Return the record of a row, by its id without ``-2`` and the like; of a lifted one, too."""
        digests = self.digest(row_id)
        found = (record for record in reversed(self.records) for digest in digests if digest in record.digests)
        return next(found, None)

    def describe(self, row_id: str) -> Mapping[str, Any]:
        """Return what the last record of a row tells of it, with the models that any record names."""
        digests = self.digest(row_id)
        told = [record.digests[key] for record in self.records for key in digests if key in record.digests]
        models = {uri: split for details in told for uri, split in details.get("models", {}).items()}
        return {**told[-1], "models": models} if told else {}

    def is_banned(self, values: Values, form: RowForm) -> bool:
        """Return whether a row with these inputs must stay away."""
        row_id = form.identify(values)[:8].hex()
        return any(digest in self._banned for digest in self.digest(row_id))

    def digest(self, row_id: str) -> list[str]:
        """Return the digests that stand for a row id in the records."""
        base = row_id.partition("-")[0].encode("utf-8", "surrogatepass")
        return [hashlib.blake2b(base, key=salt, digest_size=DIGEST_BYTES).hexdigest() for salt in self.salts]


def read_forgotten() -> ForgottenRows:
    """Return which rows were forgotten of the tables under the root."""
    location = locate(FORGOTTEN)
    if try_open(location) is None:
        return ForgottenRows()
    rows = read_table(table_at(location)).to_pylist()
    made: dict[str, Forgetting] = {}
    for row in rows:
        details = json.loads(row["details"])
        before = made.get(row["record"])
        if row["event"] == BEGUN:
            digests = {**(before.digests if before else {}), row["digest"]: details}
            made[row["record"]] = Forgetting(row["record"], row["at"], row["who"], digests)
        elif before is not None:
            done = details if row["event"] == DONE else before.done
            lifted_at = row["at"] if row["event"] == LIFTED and not before.lifted else before.lifted_at
            made[row["record"]] = replace(before, done=done, lifted_at=lifted_at)
    salts = tuple(bytes.fromhex(salt) for salt in dict.fromkeys(row["salt"] for row in rows))
    banned = {digest: record for record in made.values() if not record.lifted for digest in record.digests}
    return ForgottenRows(tuple(made.values()), salts, banned)


def begin_forgetting(rows: Mapping[str, Mapping[str, Any]], *, who: str) -> Forgetting:
    """Record that rows are to be forgotten, so that none comes back; the same rows again have one record.

    Parameters
    ----------
    rows : mapping of str to mapping
        Row ids, each with what may be told of it.
    who : str
    """
    known = read_forgotten()
    salt = known.salts[0] if known.salts else secrets.token_bytes(32)
    fresh = ForgottenRows(salts=(salt,))
    digests = {fresh.digest(row_id)[0]: told for row_id, told in rows.items()}
    for record in known.records:
        if set(record.digests) == set(digests) and not record.lifted:
            return record
    made, now = uuid.uuid4().hex[:12], int(time.time() * 1000)
    events = [(made, BEGUN, now, who, salt.hex(), digest, json.dumps(told)) for digest, told in digests.items()]
    _write(events, made, BEGUN)
    return Forgetting(made, now, who, digests)


def end_forgetting(forgetting: Forgetting, details: Mapping[str, Any], *, who: str) -> None:
    """Record what a forgetting has done."""
    salt = read_forgotten().salts[0]
    now = int(time.time() * 1000)
    event = (forgetting.record, DONE, now, who, salt.hex(), "", json.dumps(dict(details)))
    _write([event], forgetting.record, f"{DONE} {now}")


def lift_forgetting(record: str, *, who: str) -> bool:
    """Let the rows of a record come back, from now on; return whether there is such a record."""
    known = read_forgotten()
    found = next((there for there in known.records if there.record == record), None)
    if found is None:
        return False
    event = (record, LIFTED, int(time.time() * 1000), who, known.salts[0].hex(), "", "{}")
    _write([event], record, LIFTED)
    return True


def _write(events: Sequence[tuple[Any, ...]], record: str, what: str) -> None:
    import pyarrow as pa

    columns = dict(zip(COLUMNS, zip(*events, strict=True), strict=True))
    kinds = {name: pa.int64() if name == "at" else pa.string() for name in COLUMNS}
    table = pa.table({name: pa.array(columns[name], kinds[name]) for name in COLUMNS})
    write_table(FORGOTTEN, table, key={"forgetting": record, "event": what})


def describe_left_out(count: int) -> Iterator[str]:
    """Yield that rows of sources were forgotten before and are left out; nothing where none was."""
    if count:
        rows = "1 row of the sources was" if count == 1 else f"{count:,} rows of the sources were"
        yield (
            f"{rows} forgotten on request and left out. `dlpipe forget --records` lists the requests; "
            "`dlpipe forget --lift RECORD` lets their rows come back."
        )


def list_banned(ids: Collection[str]) -> list[str]:
    """Return those of some row ids that must stay away."""
    known = read_forgotten()
    return [row_id for row_id in ids if any(digest in known._banned for digest in known.digest(row_id))]
