"""Sums over the log of requests: by key, model, version and day, those included that are not committed yet."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe.errors import SettingError
from dlpipe.serving.guards import UNCHARGED
from dlpipe.serving.key_file import Key
from dlpipe.serving.log_rows import REFUSED, REQUESTS, name_table, to_day
from dlpipe.serving.logged import list_tables, stream_logged

if TYPE_CHECKING:
    import pyarrow as pa

GROUPS = ("key", "model", "version", "day")
READ = ("key", "model", "version", "day", "row", "rows", "tokens", "status", "duration_ms")
NO_MODEL = "(no model)"
"""Under which requests stand for models that have answered nobody: anybody can make up names."""


@dataclass(frozen=True)
class Usage:
    """Sums over requests.

    Attributes
    ----------
    group : dict
        Value of each column by which is summed.
    calls : int
        Requests, those included that got an error.
    rows, tokens : int
        That were asked.
    seconds : float
        That the requests took.
    errors : int
        Requests with a status of 400 or more.
    error_seconds : float
        That those took.
    """

    group: dict[str, Any]
    calls: int
    rows: int
    tokens: int
    seconds: float
    errors: int
    error_seconds: float

    def describe(self) -> dict[str, Any]:
        """Return all in one mapping."""
        values = asdict(self)
        return {**values.pop("group"), **values}


def sum_usage(
    by: Sequence[str] = ("model",), *, since: str = "", until: str = "", root: Path | None = None
) -> list[Usage]:
    """Return sums over all that was asked, in the order of their groups.

    Parameters
    ----------
    by : sequence of str
        Some of ``key``, ``model``, ``version`` and ``day``; none for one sum.
    since, until : str
        The first and the last day in UTC; by default all.
    root : Path, optional
        The folder of journals.

    Raises
    ------
    SettingError
        When there is no such group.
    """
    for name in by:
        if name not in GROUPS:
            raise SettingError(f"Use is not counted by {name!r}. Known: {', '.join(GROUPS)}.")
    by = list(dict.fromkeys(by))
    sums: dict[tuple[Any, ...], list[float]] = {}
    answering = set(list_tables(REQUESTS, root))
    for table in sorted({*answering, *list_tables(REFUSED, root)}):
        for rows in stream_logged(table, columns=READ, since=since, root=root):
            rows = _name_no_model(rows, answering) if table == REFUSED else rows
            for values, amounts in _sum_rows(rows, by, until):
                found = sums.setdefault(values, [0.0] * 6)
                for place, amount in enumerate(amounts):
                    found[place] += amount
    return [
        Usage(
            dict(zip(by, values, strict=True)),
            *(int(calls), int(rows), int(tokens), seconds, int(errors), error_seconds),
        )
        for values, (calls, rows, tokens, seconds, errors, error_seconds) in sorted(sums.items())
    ]


def _name_no_model(rows: pa.Table, answering: Collection[str]) -> pa.Table:
    """Return rows in which a model without a table of requests has the name ``NO_MODEL``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = [name for name in pc.unique(rows["model"]).to_pylist() if name_table(name, REQUESTS) in answering]
    known = pc.is_in(rows["model"], pa.array(names, pa.string()))
    named = pc.if_else(known, rows["model"], NO_MODEL)
    return rows.set_column(rows.column_names.index("model"), "model", named)


def _sum_rows(rows: pa.Table, by: list[str], until: str) -> list[tuple[tuple[Any, ...], list[float]]]:
    """Return the sums of some rows: what a request has once is counted in its first row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if until:
        rows = rows.filter(pc.less_equal(rows["day"], until))
    first = pc.equal(rows["row"], 0).cast(pa.int64())
    failed = pc.multiply(first, pc.greater_equal(rows["status"], 400).cast(pa.int64()))
    seconds = pc.divide(rows["duration_ms"], 1000.0)
    amounts = {
        "calls": first,
        "rows": pc.multiply(first, rows["rows"].cast(pa.int64())),
        "tokens": rows["tokens"],
        "seconds": pc.multiply(first.cast(pa.float64()), seconds),
        "errors": failed,
        "error_seconds": pc.multiply(failed.cast(pa.float64()), seconds),
    }
    named = pa.table({**{f"by_{name}": rows[name] for name in by}, **{f"sum_{n}": v for n, v in amounts.items()}})
    if not named.num_rows:
        return []
    summed = named.group_by([f"by_{name}" for name in by]).aggregate([(f"sum_{name}", "sum") for name in amounts])
    return [
        (tuple(row[f"by_{name}"] for name in by), [row[f"sum_{name}_sum"] for name in amounts])
        for row in summed.to_pylist()
    ]


def count_used_rows(key: Key, began: float, *, root: Path | None = None) -> int:
    """Return how many rows a key has asked since a moment, without those of requests that ended as ``UNCHARGED``.

    Parameters
    ----------
    key : Key
    began : float
        Seconds since the epoch.
    root : Path, optional
        The folder of journals.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    total, columns = 0, ["key", "row", "rows", "status", "arrived"]
    uncharged = pa.array(UNCHARGED, pa.int32())
    start = pa.scalar(int(began * 1e6), pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    for table in list_tables(REQUESTS, root):
        for rows in stream_logged(table, columns=columns, since=to_day(began), root=root):
            wanted = pc.and_(pc.equal(rows["key"], key.id), pc.equal(rows["row"], 0))
            wanted = pc.and_(wanted, pc.invert(pc.is_in(rows["status"], uncharged)))
            wanted = pc.and_(wanted, pc.greater_equal(rows["arrived"], start))
            total += pc.sum(rows.filter(wanted)["rows"]).as_py() or 0
    return total
