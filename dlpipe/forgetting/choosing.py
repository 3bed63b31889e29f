"""Which rows of a table are to go, whatever the table is: a data set, answers, a log, or another program's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dlpipe.forgetting.asked import NO_INPUTS, AskedRow
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
LABELS = ("label", "split")
MANY_WORDS = 3
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
        self.ids = {row.row_id for row in rows} | {row.own_id for row in rows if row.own_id}
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
    def _text_needles(self) -> tuple[Needle, ...]:
        return Needles.from_texts(self._whole_texts).needles

    @cached_property
    def _whole_texts(self) -> tuple[str, ...]:
        """The texts that are somebody's by themselves: beside other columns, those of more than a word or two."""
        return tuple(
            text
            for row in self.rows
            for text in row.texts
            if len(row.inputs) == 1 or len(text.split()) > MANY_WORDS
        )

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

    def choose(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Return which rows of a batch are to go."""
        import pyarrow as pa
        import pyarrow.compute as pc

        names = set(batch.schema.names)
        masks = []
        if names >= REQUESTS:
            masks = [pc.is_in(batch["text_sha256"], pa.array(self._hashes, pa.string()))]
            masks += [self._choose_texts("text", batch["text"]), self._choose_records(batch["text"])]
        elif names >= FEEDBACK and "received" in names:
            # a label that names no row may be for any of its request
            answered = self.answered | {(request_id, None) for request_id, _ in self.answered}
            pairs = zip(batch["request_id"].to_pylist(), batch["row"].to_pylist(), strict=True)
            masks = [pa.array([pair in answered for pair in pairs], pa.bool_())]
        else:
            if "row_id" in names and _is_text(batch["row_id"]):
                base = pc.replace_substring_regex(batch["row_id"].cast(pa.string()), r"-\d+$", "")
                masks.append(pc.is_in(base, pa.array(self.ids, pa.string())))
                masks.append(pc.is_in(batch["row_id"].cast(pa.string()), pa.array(self.ids, pa.string())))
            if not any(names >= answers for answers in ANSWERS):
                columns = [name for name in sorted(names - set(NO_INPUTS)) if _is_text(batch[name])]
                masks += [self._choose_texts(name, batch[name]) for name in columns]
                masks += [self._choose_values(batch, row.inputs) for row in self.rows if len(row.inputs) > 1]
        mask = pa.array([False] * batch.num_rows, pa.bool_())
        for some in masks:
            mask = pc.or_(mask, pc.fill_null(some, False))
        return mask

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

        rows = [row.inputs for row in self.rows if len(row.inputs) > 1]
        written = [value for value in pc.unique(column).to_pylist() if rows and value and value.startswith("{")]
        same = [value for value in written if any(_is_record(value, inputs) for inputs in rows)]
        return pc.is_in(column, pa.array(same, pa.string()))

    def _choose_values(self, batch: pa.RecordBatch, inputs: Mapping[str, Any]) -> Any:
        """Return which rows have all these values."""
        import pyarrow as pa
        import pyarrow.compute as pc

        mask = pa.array([set(inputs) <= set(batch.schema.names)] * batch.num_rows, pa.bool_())
        for name, value in inputs.items() if set(inputs) <= set(batch.schema.names) else ():
            column = batch[name]
            if value is None:
                mask = pc.and_(mask, pc.is_null(column))
            elif isinstance(value, str) == _is_text(column):
                same = pc.equal(column.cast(pa.string()) if isinstance(value, str) else column, value)
                mask = pc.and_(mask, pc.fill_null(same, False))
            else:  # a quarantine has what stood in the file
                written = [str(found) == str(value) or _is_number(found, value) for found in column.to_pylist()]
                mask = pc.and_(mask, pa.array(written, pa.bool_()))
        return mask

    def list_conditions(self, batch: pa.RecordBatch) -> set[tuple[str, str]]:
        """Return column and value of the strings by which rows of a batch were chosen."""
        from dlpipe.tables import normalise

        found = set()
        for name in batch.schema.names:
            if not _is_text(batch[name]):
                continue
            for value in batch[name].to_pylist():
                by_id = name == "row_id" and value in self.ids
                wanted = self._texts if name in self._inputs else self._texts - self._short_texts
                if value is not None and name not in LABELS and (by_id or normalise(str(value)) in wanted):
                    found.add((name, str(value)))
        return found

    def blank(self, value: str) -> str:
        """Return a string without the texts and ids of the rows."""
        return self.needles.blank(value)

    def is_secret(self, value: str) -> bool:
        """Return whether a string is one of the texts or ids, or the beginning of one."""
        # a greatest value that was cut ends with a character that is one higher
        return any(text.startswith((value, value[:-1])) for row in self.rows for text in (row.row_id, *row.texts))


def list_texts(row: AskedRow) -> list[str]:
    """Return as what a row may be written: each text of it, and all of its values one after the other."""
    if len(row.inputs) == 1:
        return list(row.texts)
    pairs = ((name, "" if value is None else value) for name, value in row.inputs.items())
    long = [text for text in row.texts if len(text.split()) > MANY_WORDS]
    return [*long, ", ".join(f"{name}: {value}" for name, value in pairs)]


def _list_digests(text: str) -> Iterable[str]:
    return (hashlib.sha256(form.encode("utf-8", "replace")).hexdigest() for form in {text, text.strip()})


def _is_record(written: str, inputs: Mapping[str, Any]) -> bool:
    try:
        values = json.loads(written)
    except ValueError:
        return False
    return isinstance(values, dict) and all(
        values.get(name) == value or str(values.get(name)) == str(value) or _is_number(values.get(name), value)
        for name, value in inputs.items()
    )


def _is_text(column: Any) -> bool:
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(found: Any, value: Any) -> bool:
    try:
        return float(found) == float(value)
    except (TypeError, ValueError):
        return False
