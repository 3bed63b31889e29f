"""Labels for what was asked: by request id and row, into the Delta table ``<model>_feedback``, each once.

A label may come late, twice, or contradict an earlier one: all stay, and the last one that came counts. One whose
request is not in the log is kept too: its request may come later, or never.
"""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe.errors import BadSource, SettingError
from dlpipe.scratch import open_scratch
from dlpipe.serving.asked import write_asked
from dlpipe.serving.counting import (
    ID,
    LABEL,
    ROW,
    Counting,
    Place,
    count_rows,
    find_counting,
    find_first_day,
    find_place,
)
from dlpipe.serving.log_rows import FEEDBACK, REQUESTS, dump, make_feedback_rows, name_table
from dlpipe.serving.logged import read_logged, read_logged_at, stream_logged
from dlpipe.tables import (
    Append,
    TableVersion,
    append,
    append_by_day,
    locate,
    open_row_file,
    read_last_settings,
    retry_on_latest,
    stream_table,
    table_at,
    to_records,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from dlpipe.serving.request_log import RequestLog

LONGEST_LABEL = 10_000
MAX_ROW = 1_000_000
ASKED_FOR = ("predict",)
"""Kinds of requests whose rows labels are for."""


@dataclass(frozen=True)
class Given:
    """A label that somebody gave.

    Attributes
    ----------
    request_id : str
        Of the answer.
    label : str
        As tables hold it: a class, a number, several labels as a JSON list.
    row : int
        Of the request, from 0.
    names_row : bool
        Whether whoever gave it said which row; else it counts only where the request had one alone.
    """

    request_id: str
    label: str
    row: int = 0
    names_row: bool = True

    @property
    def named(self) -> int | None:
        """The row as tables hold it: ``None`` where nobody said which."""
        return self.row if self.names_row else None


@dataclass(frozen=True)
class Feedback:
    """What became of labels.

    Attributes
    ----------
    table : TableVersion or None
        Where they are; None where there is none yet.
    added : int
    known : int
        Labels that said what is there already, and were not added again.
    changed : int
        Labels among the added that contradict an earlier one.
    unknown : int
        Labels among all of them whose row is not in the log.
    """

    table: TableVersion | None
    added: int
    known: int
    changed: int
    unknown: int


def read_given(record: Mapping[str, Any], *, where: str) -> Given:
    """Return a label from a record with ``request_id``, ``label`` and, perhaps, ``row``.

    Parameters
    ----------
    record : mapping
    where : str
        What to call it in errors, such as ``line 3 of labels.csv``.

    Raises
    ------
    SettingError
        When one is missing or is something else.

    Examples
    --------
    >>> read_given({"request_id": "01a221e0-e8fb-7abc-8def-0123456789ab", "label": 4}, where="the body")
    Given(request_id='01a221e0-e8fb-7abc-8def-0123456789ab', label='4', row=0, names_row=False)
    """
    if ID not in record or LABEL not in record:
        raise SettingError(
            f"{where} lacks {ID if ID not in record else LABEL!r}: pass {ID}, {LABEL} and perhaps {ROW}."
        )
    row = record.get(ROW)
    names_row = row not in (None, "")
    number = _read_row(row, where) if names_row else 0
    return Given(_read_id(record[ID], where), _read_label(record[LABEL], where), number, names_row)


def _read_id(value: Any, where: str) -> str:
    try:
        return str(uuid.UUID(value))
    except (ValueError, TypeError, AttributeError):
        raise SettingError(
            f"{where} has no request id but {str(value)[:60]!r}. Pass the one of the answer."
        ) from None


def _read_row(value: Any, where: str) -> int:
    try:
        number = int(value)
        if isinstance(value, bool) or number != float(value) or not 0 <= number < MAX_ROW:
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise SettingError(f"{where} has the row {str(value)[:60]!r}. Pass a number from 0.") from None
    return number


def _read_label(value: Any, where: str) -> str:
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return json.dumps(sorted(set(value)), ensure_ascii=False)
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        return str(value)
    if not isinstance(value, str) or not value.strip() or len(value) > LONGEST_LABEL:
        raise SettingError(
            f"{where} has no label but {str(value)[:60]!r}. Pass a class, a number or a list of labels."
        )
    return value.strip()


def write_feedback(
    log: RequestLog, model: str, given: Sequence[Given], *, key: str = "", source: str = "http"
) -> None:
    """Return when labels survive a kill of this process; seconds later they are in the table.

    Parameters
    ----------
    log : RequestLog
        That has been started.
    model : str
    given : sequence of Given
        All of them, or none where it raises.
    key : str
        Id of the key that was presented.
    source : str
        Whence they came.

    Raises
    ------
    StorageFull
        When they cannot be written.
    """
    now, first, table = time.time(), time.time_ns(), name_table(model, FEEDBACK)
    rows = [
        [one.request_id, one.named, one.label, source, key, now, first + place] for place, one in enumerate(given)
    ]
    log.write_lines(table, [dump(row) for row in rows])


def read_labels(source: str | Path, columns: Mapping[str, str] | None = None) -> Iterator[Given]:
    """Yield the labels in a CSV, JSON Lines or Parquet file.

    Parameters
    ----------
    source : str or Path
    columns : mapping, optional
        What the file calls ``request_id``, ``row`` and ``label``.

    Raises
    ------
    SourceNotFound, BadSource, SettingError
        The message names the line.
    """
    file = open_row_file(source, columns=[ID, LABEL, *(columns or {}).values()])
    for rows in file.read(4096):
        for line, record in zip(rows.lines, rows.records, strict=True):
            where = f"{file.unit.capitalize()} {line} of {str(source)!r}"
            yield read_given(_rename(record, columns, where), where=where)


def read_table_labels(table: str | Path, columns: Mapping[str, str] | None = None) -> Iterator[Given]:
    """Yield the labels in the latest version of a table; rows without one are passed over.

    Parameters
    ----------
    table, columns
        As for ``read_labels``.
    """
    version, called = table_at(table), {name: name for name in (ID, ROW, LABEL)} | dict(columns or {})
    there = dict(version.columns)
    wanted = [called[name] for name in (ID, ROW, LABEL) if name != ROW or called[ROW] in there]
    number = 0
    for batch in stream_table(version, columns=wanted):
        for record in to_records(batch):
            number += 1
            where = f"Row {number} of {str(version)!r}"
            if record[called[LABEL]] is not None:
                yield read_given(_rename(record, columns, where), where=where)


def _rename(record: Mapping[str, Any], columns: Mapping[str, str] | None, where: str) -> Mapping[str, Any]:
    for name, called in (columns or {}).items():
        if called not in record:
            raise BadSource(
                f"{where} has no column {called!r}, which was to be the {name}; it has {', '.join(record)}."
            )
    return {**record, **{name: record[called] for name, called in (columns or {}).items()}}


def add_feedback(model: str, given: Iterable[Given], *, source: str, root: Path | None = None) -> Feedback:
    """Add labels to the table of a model in one commit, and return what became of them.

    A label that says what already counts for its row is not added again: the same labels twice add nothing, and a
    command that was killed is run again.

    Parameters
    ----------
    model : str
    given : iterable of Given
        In their order: of two for one row, the later counts.
    source : str
        Whence they came, such as the name of a file.
    root : Path, optional
        The folder of journals.

    Raises
    ------
    SettingError
        When one names no row, and its request had several; nothing is added.
    """
    labels, table = list(given), name_table(model, FEEDBACK)
    counts = count_rows(model, {one.request_id for one in labels}, root=root)
    _check_rows_named(labels, counts)
    places = [find_place(one.request_id, one.named, counts.get(one.request_id)) for one in labels]
    logged = _find_logged(model, places, root)
    unknown = sum(place not in logged for place in places)

    def commit(before: TableVersion | None) -> Feedback:
        there, seen = read_logged_at(table, root=root)
        now, first = time.time(), time.time_ns()
        rows, changed = [], 0
        last = {place: one.label for place, one in find_counting(model, there, root=root).items()}
        for number, (one, place) in enumerate(zip(labels, places, strict=True)):
            if last.get(place) == one.label:
                continue
            changed += place in last
            last[place] = one.label
            rows.append(dump([*place, one.label, source, "", now, first + number]))
        version = seen
        if rows:
            at = 0 if seen is None else seen.version + 1
            version = append_by_day(table, make_feedback_rows(rows), at=at)
        return Feedback(version, len(rows), len(labels) - len(rows), changed, unknown)

    return retry_on_latest(locate(table), commit)


def join_feedback(model: str, *, since: str = "", root: Path | None = None) -> pa.Table:
    """Return the rows that were asked of a model and answered, with the labels that count.

    Parameters
    ----------
    model : str
    since : str
        The first day of requests, such as ``2026-01-31``; by default all.
    root : Path, optional
        The folder of journals.

    Returns
    -------
    pyarrow.Table
        The columns of the log, and ``label``, ``label_received``, ``label_source``, and ``labels``: how many
        different ones the row has had. They are null (``labels`` is 0) where no label has come.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    counting = _read_counting(model, root)
    asked = read_logged(name_table(model, REQUESTS), since=since, root=root)
    answered = pc.and_(pc.is_in(asked["kind"], pa.array(ASKED_FOR)), pc.is_valid(asked["answer"]))
    asked = asked.filter(answered)
    places = zip(asked[ID].to_pylist(), asked[ROW].to_pylist(), strict=True)
    found = [counting.get(place) for place in places]
    columns = {
        LABEL: pa.array([one and one.label for one in found], pa.string()),
        "label_received": pa.array([one and one.received for one in found], pa.timestamp("us", tz="UTC")),
        "label_source": pa.array([one and one.source for one in found], pa.string()),
        "labels": pa.array([one.different if one else 0 for one in found], pa.int64()),
    }
    for name, values in columns.items():
        asked = asked.append_column(name, values)
    return asked


@dataclass(frozen=True)
class FeedbackState:
    """How many rows of a model have labels.

    Attributes
    ----------
    answered, labelled : int
        Rows that were answered, and those of them that have a label.
    contradictory : int
        Rows that have had different labels.
    unknown : int
        Labels that count for a row that is not among the answered, or do not say for which of several.
    """

    answered: int
    labelled: int
    contradictory: int
    unknown: int


def describe_feedback(model: str, *, root: Path | None = None) -> FeedbackState:
    """Return how many rows of a model have labels, and how many labels have no row."""
    counting = _read_counting(model, root)
    joined = join_feedback(model, root=root)
    labelled = joined.num_rows - joined[LABEL].null_count
    different = sum(one.different > 1 for one in counting.values())
    return FeedbackState(joined.num_rows, labelled, different, len(counting) - labelled)


def append_labelled(model: str, table: str, *, since: str = "", root: Path | None = None) -> Append | None:
    """Add the rows that were asked and have a label to a table for training; ``None`` where there is none.

    A row that the table has is not added again, however often it is called. Of one row that was asked several
    times, the label that came last counts.

    Parameters
    ----------
    model, since, root
        As for ``join_feedback``.
    table : str
        A table of rows that the model reads.

    Raises
    ------
    SchemaMismatch
        When its rows are something else.
    BadRows
        When too many contradict the table; nothing is added.
    """
    settings = read_last_settings(locate(table))
    last: dict[str, tuple[Any, str]] = {}
    joined = join_feedback(model, since=since, root=root)
    for text, label, received in zip(
        *(joined[name].to_pylist() for name in ("text", LABEL, "label_received")), strict=True
    ):
        if text is not None and label is not None and (text not in last or received >= last[text][0]):
            last[text] = received, label
    if not last:
        return None
    with open_scratch() as folder:
        path = Path(folder, f"feedback-{name_table(model, '')}.jsonl")
        write_asked(path, ((text, label) for text, (_, label) in last.items()), settings.form)
        return append([str(path)], table, settings=replace(settings, max_bad_share=1.0), labelled=True, named=[])


def _read_counting(model: str, root: Path | None) -> dict[Place, Counting]:
    return find_counting(model, read_logged(name_table(model, FEEDBACK), root=root), root=root)


def _find_logged(model: str, places: Sequence[Place], root: Path | None) -> set[Place]:
    """Return the rows that the log has of the requests that labels are for."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not places:
        return set()
    requests = {request_id for request_id, _ in places}
    wanted, table = pa.array(sorted(requests)), name_table(model, REQUESTS)
    there: set[Place] = set()
    for rows in stream_logged(table, columns=[ID, ROW], since=find_first_day(requests), root=root):
        found = rows.filter(pc.is_in(rows[ID], wanted))
        there.update(zip(found[ID].to_pylist(), found[ROW].to_pylist(), strict=True))
    return there


def _check_rows_named(labels: Sequence[Given], counts: Mapping[str, int]) -> None:
    """Raise ``SettingError`` for a label that names no row, where its request had several."""
    for number, one in enumerate(labels, 1):
        if not one.names_row and counts.get(one.request_id, 1) > 1:
            why = describe_missing_row(counts[one.request_id])
            raise SettingError(f"Label {number}, for {one.request_id}: {why} Nothing was added.")


def describe_missing_row(rows: int) -> str:
    """Return what to say of a label that names no row of a request that had several.

    Examples
    --------
    >>> describe_missing_row(3)
    'its request had 3 rows: give the number of the row, `row`, from 0 to 2.'
    """
    return f"its request had {rows} rows: give the number of the row, `row`, from 0 to {rows - 1}."


def take_labels(given: Iterable[Given], *, most: int = 1_000_000) -> list[Given]:
    """Return labels as a list of at most ``most``; more would not fit into one commit."""
    taken = list(itertools.islice(given, most + 1))
    if len(taken) > most:
        raise SettingError(f"More than {most:,} labels at once are refused. Give them in several files.")
    return taken
