"""What a row of a table is: its columns, what makes it valid, and what makes two rows the same.

Tables know no task. A task says in a ``RowForm`` what its rows are, and each commit records the form: an append
must know years later what a row is, without the task's package.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from dlpipe.errors import SettingError, UnsupportedFeature
from dlpipe.tables._values import format_labels, format_number, hash_text, is_number, normalise

if TYPE_CHECKING:
    import pyarrow as pa

ColumnKind = Literal["text", "category", "number"]
LabelKind = Literal["class", "labels", "number"]
Part = TypeVar("Part", bound=Any)
Values = tuple[str | float | None, ...]
"""The inputs of a row in the order of the form: texts and categories as strings, numbers as floats. What is no
number, in a column of numbers, is the string that stands there."""

OPTIONS = ("text_column", "label_column")
"""The settings that have an option of their own in flows and in `dlpipe append`."""
OF_TABLE = "--column"
"""Stands for a setting where a table has its form already: an append then says what its files call a column."""
OWN_COLUMNS = ("row_id", "label", "split")
NOT_IN_NAMES = re.compile(r"[\s,;{}()=]+")


@dataclass(frozen=True)
class Column:
    """A column that a model reads.

    Attributes
    ----------
    name : str
        In the table.
    source : str
        Its name in the files or tables that rows come from.
    kind : 'text', 'category' or 'number'
        Texts that differ only in case, white space or Unicode form are the same; categories are strings that are
        compared as they stand; numbers are finite.
    optional : bool
        Whether a row may lack a value.
    setting : str
        The setting of ``[data]`` that names ``source``, for messages; ``OF_TABLE`` where the form is a table's.
    """

    name: str
    source: str
    kind: ColumnKind
    optional: bool = False
    setting: str = ""


@dataclass(frozen=True)
class Label:
    """What is true of a row: the column ``label`` of the table.

    In between, a label is a string: a class as it is; several labels as a JSON list, sorted, each once; a number
    as Python writes it.

    Attributes
    ----------
    sources : tuple of str
        One column of the files; of several labels also one column of 0 and 1 for each, called as the label.
    kind : 'class', 'labels' or 'number'
        One class of several (a string in the table), any number of labels (a list of strings), or a number.
    separator : str
        What stands between several labels in a string; a JSON list is read as well.
    setting : str
        The setting of ``[data]`` that names ``sources``, for messages; ``OF_TABLE`` where the form is a table's.
    """

    sources: tuple[str, ...]
    kind: LabelKind
    separator: str = "|"
    setting: str = "label_column"

    def to_string(self, value: Any) -> str | None:
        """Return the string of what a table holds; None where it holds no label.

        Examples
        --------
        >>> Label(("genres",), "labels").to_string(["war", "drama"]), Label(("stars",), "number").to_string(4.0)
        ('["drama", "war"]', '4.0')
        """
        if value is None or value == "":
            return None
        if self.kind == "labels":
            return format_labels(value)
        if self.kind == "number":
            return None if value != value else format_number(value)
        return str(value)

    def from_string(self, label: str) -> Any:
        """Return what a table holds for the string of a label: a string, a list of strings, a float."""
        if self.kind == "labels":
            return json.loads(label)
        return float(label) if self.kind == "number" else label

    def list_strata(self, label: str) -> Sequence[str]:
        """Return what a label counts as where splits are looked at: its class, each of its labels, or nothing."""
        if self.kind == "labels":
            return list(json.loads(label))
        return (label,) if self.kind == "class" else ()

    def spell(self, label: str, spelling: Callable[[str], str]) -> str:
        """Return a label with its class, or each of its labels, spelled by ``spelling``."""
        if self.kind == "labels":
            return format_labels(spelling(stratum) for stratum in self.list_strata(label))
        return spelling(label) if self.kind == "class" else label

    def is_valid(self, label: str) -> bool:
        """Return whether what was read is a label of this kind."""
        if self.kind == "labels":
            return label.startswith("[")
        return self.kind == "class" or is_number(label)


@dataclass(frozen=True)
class RowForm:
    """What a row is: inputs and a label.

    Attributes
    ----------
    inputs : tuple of Column
    label : Label
    repeats : bool
        Whether different things may have the same inputs, as two people of one age and town have. Then the same
        inputs with another label are no conflict, and may stand in two splits that were given as files. An append
        still adds them once.

    Examples
    --------
    >>> form = RowForm((Column("text", "review", "text"),), Label(("sentiment",), "class"))
    >>> form.columns, form.identify(("Good film",)) == form.identify(("good  FILM",))
    (('row_id', 'text', 'label', 'split'), True)
    >>> RowForm.from_json(form.to_json()) == form
    True
    """

    inputs: tuple[Column, ...]
    label: Label
    repeats: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the table's columns."""
        return ("row_id", *(column.name for column in self.inputs), "label", "split")

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the columns that are read: those of the inputs, then those of the label."""
        return (*(column.source for column in self.inputs), *self.label.sources)

    @cached_property
    def text_places(self) -> tuple[int, ...]:
        """Which of the inputs are texts."""
        return tuple(at for at, column in enumerate(self.inputs) if column.kind == "text")

    @property
    def text_names(self) -> tuple[str, ...]:
        """The names of the inputs that are texts."""
        return tuple(self.inputs[at].name for at in self.text_places)

    @cached_property
    def is_text(self) -> bool:
        """Whether a row is one text and nothing else."""
        return len(self.inputs) == 1 and self.inputs[0].kind == "text"

    def schema(self) -> pa.Schema:
        """Return the schema of the table."""
        import pyarrow as pa

        labels = {"class": pa.string(), "labels": pa.list_(pa.string()), "number": pa.float64()}
        kinds = {column.name: pa.float64() if column.kind == "number" else pa.string() for column in self.inputs}
        kinds["label"] = labels[self.label.kind]
        return pa.schema([(name, kinds.get(name, pa.string())) for name in self.columns])

    def make_batch(
        self,
        row_ids: Sequence[str],
        values: Sequence[Values],
        labels: Sequence[Any],
        splits: Sequence[str | None],
    ) -> pa.RecordBatch:
        """Return rows of the table.

        Parameters
        ----------
        row_ids : sequence of str
        values : sequence of tuple
            The inputs of each row.
        labels : sequence
            What ``Label.read`` returns, or None for a row without a label.
        splits : sequence of str or None
        """
        import pyarrow as pa

        schema = self.schema()
        inputs = [[row[at] for row in values] for at in range(len(self.inputs))]
        columns = [row_ids, *inputs, labels, splits]
        arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def count_characters(self, values: Values) -> int:
        """Return how many characters a row has: its text where it is one, else its inputs as JSON.

        An ingest compares it between its two readings of a source.
        """
        return len(values[0] or "") if self.is_text else len(json.dumps(values))  # type: ignore[arg-type]

    def identify(self, values: Values) -> bytes:
        """Return the SHA-256 of what makes two rows the same: texts levelled, other values exactly.

        Row ids and the split by hash are made of it. If it changed, rows of tables that exist would be added again
        and land in other splits.
        """
        if self.is_text:  # as tables had it before rows had forms
            return hash_text(str(values[0] or ""))
        named = {column.name: _level(value, column) for column, value in zip(self.inputs, values, strict=True)}
        return hashlib.sha256(json.dumps(named, ensure_ascii=False, sort_keys=True).encode()).digest()

    def count_words(self, values: Values) -> int:
        """Return how many words the texts of a row have."""
        if self.is_text:
            return len(values[0].split()) if values[0] else 0  # type: ignore[union-attr]
        return sum(len(str(values[at] or "").split()) for at in self.text_places)

    def format_values(self, values: Values) -> str:
        """Return the inputs as a person reads them."""
        if self.is_text:
            return str(values[0] or "")
        pairs = zip(self.inputs, values, strict=True)
        return ", ".join(f"{column.name}: {'' if value is None else value}" for column, value in pairs)

    def has_same_rows(self, other: RowForm) -> bool:
        """Return whether rows of the other form can stand in the same table, wherever they come from."""

        def rows(form: RowForm) -> tuple[Any, ...]:
            return form.label.kind, *((column.name, column.kind) for column in form.inputs)

        return rows(self) == rows(other)

    def rename_sources(self, sources: Mapping[str, str]) -> RowForm:
        """Return the form with other names in the files, by column of the table (``label`` is one too).

        Raises
        ------
        SettingError
            When the table has no such column, or its label is read from several.
        """
        if unknown := sorted(set(sources) - {column.name for column in self.inputs} - {"label"}):
            there = ", ".join(name for name in self.columns if name not in ("row_id", "split"))
            raise SettingError(f"The table has no column {unknown[0]!r} that files have; it has: {there}.")
        if "label" in sources and len(self.label.sources) > 1:
            raise SettingError(
                f"The label of this table is read from {len(self.label.sources)} columns of 0 and 1, which are "
                "called as the labels; it has no other name."
            )
        inputs = tuple(replace(column, source=sources.get(column.name, column.source)) for column in self.inputs)
        label = replace(self.label, sources=(sources["label"],)) if "label" in sources else self.label
        return replace(self, inputs=inputs, label=label)

    def forget_settings(self) -> RowForm:
        """Return the form as a table has it, whose columns no setting names: ``--column`` of an append does."""
        inputs = tuple(replace(column, setting=OF_TABLE) for column in self.inputs)
        return replace(self, inputs=inputs, label=replace(self.label, setting=OF_TABLE))

    def suggest_settings(self, *, options: bool = True) -> str:
        """Return what to set so that the right columns of files are read, as a sentence begins.

        Examples
        --------
        >>> text = Column("text", "review", "text", setting="text_column")
        >>> age = Column("age", "age", "number", setting="number_columns")
        >>> form = RowForm((text, age), Label(("paid",), "class", setting=""))
        >>> form.suggest_settings()
        'Set text_column and number_columns (--text-column, --set data.number_columns=...)'
        >>> form.forget_settings().suggest_settings()
        'Say with --column COLUMN=NAME what the file calls it'
        """
        every = [column.setting for column in self.inputs] + [self.label.setting]
        names = list(dict.fromkeys(name for name in every if name))
        if names == [OF_TABLE]:
            return "Say with --column COLUMN=NAME what the file calls it"
        if not names:
            return "Name other columns"
        return f"Set {join_words(names)}" + (f" ({', '.join(map(to_option, names))})" if options else "")

    def name_columns(self) -> str:
        """Return the columns that files have, as a sentence names them: ``text and label``."""
        return join_words([*(column.name for column in self.inputs), "label"])

    def to_json(self) -> str:
        """Return the form as JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, written: str, *, where: str = "A form of rows") -> RowForm:
        """Return the form that ``to_json`` wrote; ``where`` is what to call it in errors.

        Raises
        ------
        UnsupportedFeature
            When a newer dlpipe wrote it: with half of a form, rows would be taken for others.
        """
        try:
            given = json.loads(written)
            label = _make(Label, {**given["label"], "sources": tuple(given["label"]["sources"])})
            inputs = tuple(_make(Column, column) for column in given["inputs"])
            form = _make(cls, {**given, "inputs": inputs, "label": label})
        except (ValueError, TypeError, KeyError) as error:
            problem = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
            raise UnsupportedFeature(
                f"{where} was written by a newer dlpipe ({problem}). Update dlpipe."
            ) from None
        return form


TEXT_FORM = RowForm((Column("text", "text", "text", setting="text_column"),), Label(("label",), "class"))
"""That of a table with these columns which says nothing of its form: another program has written it."""


def _make(made: type[Part], given: Mapping[str, Any]) -> Part:
    """Return a form, or a part of one; ``ValueError`` where it has something that nobody here knows."""
    unknown = sorted(set(given) - set(made.__dataclass_fields__))
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r}")
    kinds = {Column: ColumnKind, Label: LabelKind}.get(made)
    if kinds is not None and given["kind"] not in get_args(kinds):
        raise ValueError(f"unknown kind {given['kind']!r}")
    return made(**given)


def check_form(form: RowForm) -> None:
    """Raise ``SettingError`` where a form is none: columns read twice, or names that tables cannot have."""
    named = [(column.name, column.source) for column in form.inputs]
    named += [("label", source) for source in form.label.sources]
    if not form.inputs or not form.label.sources:
        raise SettingError(f"A row needs an input and a label. {form.suggest_settings()}.")
    seen: dict[str, str] = {}
    for name, source in named:
        if source in seen:
            raise SettingError(
                f"{seen[source].capitalize()} and {name} are the same column, {source!r}. "
                f"{form.suggest_settings(options=False)}."
            )
        seen[source] = name
    # Delta compares the names of columns without their case
    names = [column.name.casefold() for column in form.inputs]
    for name in names:
        if name in OWN_COLUMNS or names.count(name) > 1 or NOT_IN_NAMES.search(name) or not name:
            raise SettingError(
                f"An input cannot be called {name!r} in a table: names differ by more than their case, have no "
                f"blanks or signs of ',;{{}}()=', and are none of {', '.join(OWN_COLUMNS)}."
            )
    if form.label.kind != "labels" and len(form.label.sources) > 1:
        raise SettingError(
            f"A label that is one {form.label.kind} stands in one column. Set {form.label.setting}."
        )


def to_column_name(source: str) -> str:
    """Return a name that a table's column can have for a column of a file.

    Examples
    --------
    >>> to_column_name("mean radius (mm)"), to_column_name("split")
    ('mean_radius_mm', 'split_')
    """
    name = NOT_IN_NAMES.sub("_", source.strip()).strip("_") or "column"
    return f"{name}_" if name.casefold() in OWN_COLUMNS else name


def to_option(setting: str) -> str:
    """Return how a setting of ``[data]`` that names columns is given on a flow's command line.

    Examples
    --------
    >>> to_option("text_column"), to_option("number_columns")
    ('--text-column', '--set data.number_columns=...')
    """
    return f"--{setting.replace('_', '-')}" if setting in OPTIONS else f"--set data.{setting}=..."


def suggest_column(name: str, setting: str) -> str:
    """Return the sentence, after a blank, on how a file's column ``name`` is named; nothing where no setting does.

    Examples
    --------
    >>> suggest_column("text", "text_column"), suggest_column("text", OF_TABLE)
    (' Name the text column with text_column (--text-column).', ' Name the text column with --column text=NAME.')
    """
    if not setting:
        return ""
    how = f"{OF_TABLE} {name}=NAME" if setting == OF_TABLE else f"{setting} ({to_option(setting)})"
    return f" Name the {name} column with {how}."


def join_words(words: Sequence[str]) -> str:
    """Return words as a sentence lists them.

    Examples
    --------
    >>> join_words(["text"]), join_words(["text", "other", "label"])
    ('text', 'text, other and label')
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _level(value: str | float | None, column: Column) -> str | float | None:
    if column.kind == "text":
        return normalise(str(value or ""))
    return value + 0.0 if isinstance(value, float) else value
