"""Which rows of a table are to go, whatever the table is: a data set, answers, a log, or another program's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dlpipe.forgetting.asked import NO_INPUTS, AskedRow
from dlpipe.forgetting.contents import blank_content
from dlpipe.forgetting.parquet import TEXTUAL, find_columns
from dlpipe.forgetting.words import Needle, Needles

if TYPE_CHECKING:
    import pyarrow as pa

REQUESTS = frozenset({"request_id", "row", "text", "text_sha256"})
FEEDBACK = frozenset({"request_id", "row", "label"})
ANSWERS = (
    frozenset({"row_id", "model_version", "source", "source_version"}),
    frozenset({"at", "model_version", "drifted", "trained_on"}),
)
"""Tables that name rows, and have no text of one."""
Pairs = tuple[tuple[str, Any], ...]
"""Columns, each with its value."""
MANY = 20
"""With more texts than these, all values are compared instead of those that may be one."""


class RowChooser:
    """Chooses rows by their ids, their texts, or all of their values.

    Parameters
    ----------
    rows : sequence of AskedRow

    Attributes
    ----------
    answered : set of (str, int)
        Request and row of what a log has of these texts: labels for them go too.
    own_words : frozenset of str
        Words that only these rows have; see ``find_own_words``.
    """

    def __init__(self, rows: Sequence[AskedRow]) -> None:
        self.rows = [row for row in rows if row.inputs]
        self.ids = {row.row_id for row in rows}
        self._own_ids: dict[str, list[str]] = {}
        for row in rows:
            if row.own_id:
                self._own_ids.setdefault(row.table, []).append(row.own_id)
        self.answered: set[tuple[str, int]] = set()
        self.own_words: frozenset[str] = frozenset()

    @cached_property
    def needles(self) -> Needles:
        """The same rows, as they are looked for in files."""
        hashes = sorted(self._hashes)
        ids = [row.row_id for row in self.rows]
        written = (text for row in self.rows for text in list_texts(row))
        # a word or two may be a label, a setting, anything: nothing of that is blanked
        texts = [text for text in written if not Needle.from_text(text).is_short]
        return Needles.from_texts(texts, [*ids, *hashes], self.own_words)

    @cached_property
    def _quoted(self) -> Needles:
        """The same with all strings of the rows, as they are looked for where only values stand."""
        texts = [text for row in self.rows for text in (*row.texts, *list_texts(row))]
        return Needles.from_texts(texts, [*(row.row_id for row in self.rows), *self._hashes])

    @cached_property
    def _text_needles(self) -> tuple[Needle, ...]:
        return Needles.from_texts(self._whole_texts).needles

    @cached_property
    def _whole_texts(self) -> tuple[str, ...]:
        return tuple(text for row in self.rows for text in row.whole_texts)

    @cached_property
    def _texts(self) -> frozenset[str]:
        from dlpipe.tables import normalise

        return frozenset(normalise(text) for text in self._whole_texts)

    @cached_property
    def _short_texts(self) -> frozenset[str]:
        from dlpipe.tables import normalise

        return frozenset(normalise(text) for text in self._whole_texts if Needle.from_text(text).is_short)

    @cached_property
    def _inputs(self) -> frozenset[str]:
        return frozenset(["text", *(name for row in self.rows for name in row.inputs)])

    @cached_property
    def _hashes(self) -> frozenset[str]:
        return frozenset(value for text in self._whole_texts for value in _list_digests(text))

    def choose(self, batch: pa.RecordBatch, location: str) -> pa.BooleanArray:
        """Return which rows of a batch, of the table at a location, are to go."""
        import pyarrow as pa
        import pyarrow.compute as pc

        mask = pa.array([False] * batch.num_rows, pa.bool_())
        for _, some in self._find_reasons(batch, location):
            mask = pc.or_(mask, some)
        return mask

    def list_conditions(self, batch: pa.RecordBatch, location: str) -> set[Pairs]:
        """Return by which values rows of a batch were chosen; each row with all values of one is to go."""
        return {
            tuple(values.items())
            for names, mask in self._find_reasons(batch, location)
            for values in batch.filter(mask).select(list(names)).to_pylist()
        }

    def find_inside(self, batch: pa.RecordBatch) -> set[str]:
        """Return the columns of a batch that have a text or an id inside a list, a record or bytes.

        By none of these a row can be chosen: what is in them must be taken out by the program that wrote them.
        """
        names = set(batch.schema.names)
        if any(names >= own for own in (REQUESTS, FEEDBACK, *ANSWERS)):
            return set()
        nested = [field.name for field in batch.schema if _may_hide_texts(field.type)]
        if not nested:
            return set()
        needles = self.needles.without_words()
        return set(find_columns(batch.select(nested), needles, lambda value: blank_content(value, needles)))

    def _find_reasons(self, batch: pa.RecordBatch, location: str) -> Iterator[tuple[tuple[str, ...], Any]]:
        """Yield columns, and which rows are to go for what they have in these columns."""
        import pyarrow.compute as pc

        for names, mask in self._compare(batch, location):
            mask = pc.fill_null(mask, False)
            if pc.any(mask).as_py():
                yield names, mask

    def _compare(self, batch: pa.RecordBatch, location: str) -> Iterator[tuple[tuple[str, ...], Any]]:
        import pyarrow as pa
        import pyarrow.compute as pc

        names = set(batch.schema.names)
        if names >= REQUESTS:
            yield ("text_sha256",), pc.is_in(batch["text_sha256"], pa.array(self._hashes, pa.string()))
            yield ("text",), self._choose_texts("text", batch["text"])
            yield ("text",), self._choose_records(batch["text"])
            return
        if names >= FEEDBACK and "received" in names:
            # a label that names no row may be for any of its request
            answered = self.answered | {(request_id, None) for request_id, _ in self.answered}
            pairs = zip(batch["request_id"].to_pylist(), batch["row"].to_pylist(), strict=True)
            yield ("request_id", "row"), pa.array([pair in answered for pair in pairs], pa.bool_())
            return
        if "row_id" in names and _is_text(batch["row_id"]):
            yield from self._choose_ids(batch, location)
        if any(names >= answers for answers in ANSWERS):
            return
        for name in sorted(names - set(NO_INPUTS)):
            if _is_text(batch[name]):
                yield (name,), self._choose_texts(name, batch[name])
        for row in self.rows:
            if len(row.inputs) > 1 and row.inputs.keys() <= names:
                yield tuple(row.inputs), self._choose_values(batch, row.inputs)

    def _choose_ids(self, batch: pa.RecordBatch, location: str) -> Iterator[tuple[tuple[str, ...], Any]]:
        """Yield which rows have one of the ids: what another program calls its rows counts in that table alone."""
        import pyarrow as pa
        import pyarrow.compute as pc

        ids = batch["row_id"].cast(pa.string())
        base = pc.replace_substring_regex(ids, r"-\d+$", "")
        yield ("row_id",), pc.is_in(base, pa.array(self.ids, pa.string()))
        of_answers = ANSWERS[0] <= set(batch.schema.names)
        for table, own in self._own_ids.items():
            same = pc.is_in(ids, pa.array(own, pa.string()))
            if of_answers:
                yield ("row_id", "source"), pc.and_(same, pc.equal(batch["source"].cast(pa.string()), table))
            elif table == location:
                yield ("row_id",), same

    def _choose_texts(self, name: str, column: Any) -> Any:
        """Return which values of a column are one of the texts, whatever their case and white space.

        A word or two may be a label, or anything, and is only looked for where such texts stand.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        from dlpipe.tables import normalise

        wanted = self._texts if name in self._inputs else self._texts - self._short_texts
        if not wanted:
            return pa.array([False] * len(column), pa.bool_())
        plain = column.cast(pa.string())
        values = pc.unique(plain)
        longest = [needle.longest for needle in self._text_needles]
        words = [word.decode() for word in longest if word is not None]
        if len(words) <= MANY and len(words) == len(longest):
            # letters such as wide ones are the same to a reader
            may_be = pc.invert(pc.string_is_ascii(values))
            for word in words:
                may_be = pc.or_(may_be, pc.fill_null(pc.match_substring(values, word, ignore_case=True), False))
            values = values.filter(may_be)
        same = [value for value in values.to_pylist() if value is not None and normalise(value) in wanted]
        return pc.is_in(plain, pa.array(same, pa.string()))

    def _choose_records(self, column: Any) -> Any:
        """Return which values of a column are, as JSON, a row of several columns: so a log of requests has it."""
        import pyarrow as pa
        import pyarrow.compute as pc

        rows = [row.inputs for row in self.rows if not row.is_text]
        written = [value for value in pc.unique(column).to_pylist() if rows and value and value.startswith("{")]
        same = [value for value in written if any(_is_record(value, inputs) for inputs in rows)]
        return pc.is_in(column, pa.array(same, pa.string()))

    def _choose_values(self, batch: pa.RecordBatch, inputs: Mapping[str, Any]) -> Any:
        """Return which rows have all these values."""
        import pyarrow as pa
        import pyarrow.compute as pc

        mask = pa.array([True] * batch.num_rows, pa.bool_())
        for name, value in inputs.items():
            column = batch[name]
            if value is None:
                same = pc.is_null(column)
            elif isinstance(value, str) and _is_text(column):
                same = pc.equal(column.cast(pa.string()), value)
            elif pa.types.is_floating(column.type) and not isinstance(value, str):
                same = pc.equal(column, float(value)) if value == value else pc.is_nan(column)
            elif pa.types.is_signed_integer(column.type) and value == value and not isinstance(value, str):
                same = pc.equal(column, int(value) if float(value).is_integer() else None)
            else:  # a quarantine has what stood in the file
                same = pa.array([_is_same(found, value) for found in column.to_pylist()], pa.bool_())
            mask = pc.and_(mask, pc.fill_null(same, False))
        return mask

    def blank(self, value: str) -> str:
        """Return what a commit says of itself without the values and ids of the rows."""
        return self._quoted.blank(value)

    def is_secret(self, value: str) -> bool:
        """Return whether a string is one of the texts or ids, or the beginning of one."""
        # a greatest value that was cut ends with a character that is one higher
        return any(text.startswith((value, value[:-1])) for row in self.rows for text in (row.row_id, *row.texts))


def list_texts(row: AskedRow) -> list[str]:
    """Return as what a row may be written: each text of it, and all of its values one after the other."""
    if row.is_text:
        return list(row.texts)
    pairs = ((name, "" if value is None else value) for name, value in row.inputs.items())
    return [*row.whole_texts, ", ".join(f"{name}: {value}" for name, value in pairs)]


def _list_digests(text: str) -> Iterable[str]:
    return (hashlib.sha256(form.encode("utf-8", "replace")).hexdigest() for form in {text, text.strip()})


def _is_record(written: str, inputs: Mapping[str, Any]) -> bool:
    try:
        values = json.loads(written)
    except ValueError:
        return False
    return isinstance(values, dict) and all(_is_same(values.get(name), value) for name, value in inputs.items())


def _is_text(column: Any) -> bool:
    return _is_text_type(column.type)


def _is_text_type(kind: pa.DataType) -> bool:
    import pyarrow as pa

    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain))


def _may_hide_texts(kind: pa.DataType) -> bool:
    return not _is_text_type(kind) and any(part in str(kind) for part in TEXTUAL)


def _is_same(found: Any, value: Any) -> bool:
    """Return whether two values are the same, one of them perhaps as it is written: a NaN is one, too."""
    if found is None or value is None:
        return found is value
    if found == value or str(found) == str(value):
        return True
    try:
        return float(found) == float(value)
    except (TypeError, ValueError):
        return False
