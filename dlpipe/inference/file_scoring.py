"""Score a file: the same rows with their predictions, as another file.

The file is read twice. The first reading finds columns and rows that cannot be scored before a model is loaded and
hours are spent; the second predicts and writes batch by batch, so that memory does not grow with the file.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe.errors import BadSource, DlpipeError, SettingError
from dlpipe.inference.loading import is_pipeline, load_predictor, read_card
from dlpipe.inference.packing import list_outputs
from dlpipe.inference.pipeline import load_pipeline
from dlpipe.inference.pyfunc import predict_frame
from dlpipe.parts.progress import RowProgress
from dlpipe.registry import ModelVersion
from dlpipe.tables import (
    FileRows,
    RowFile,
    SchemaFinder,
    TableSettings,
    check_csv_records,
    check_row_file,
    make_batch,
    open_row_file,
    read_form,
    table_at,
    to_column_name,
    to_records,
    write_row_file,
)
from dlpipe.task import Inputs, find_task
from dlpipe.task.requests import TEXT, is_missing

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 4096
NOT_WRITTEN = ("cached", "model_version")
"""Columns of a pipeline's answers that say nothing about a row."""
TYPES = {"string": "string", "float": "float32", "double": "float64", "boolean": "bool", "long": "int64"}
NO_TEXT = "it has no text"
Rows = Sequence[Any]


@dataclass
class BadRows:
    """Rows that cannot be scored: how many, and where and why the first ones."""

    path: str
    unit: str
    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, line: int, reason: str) -> None:
        """Count a row."""
        self.count += 1
        if len(self.first) < 3:
            self.first.append(f"{self.unit} {line} ({reason})")

    def __str__(self) -> str:
        more = f" and {self.count - len(self.first):,} more" if self.count > len(self.first) else ""
        rows = "1 row" if self.count == 1 else f"{self.count:,} rows"
        return f"{rows} of {self.path!r} cannot be scored: {', '.join(self.first)}{more}"


@dataclass(frozen=True)
class FileScores:
    """What scoring a file did.

    Attributes
    ----------
    model : ModelVersion
    output : Path
    rows : int
        All rows, which the output has too.
    bad_rows : int
        Those of them that have no prediction.
    note : str
        Which these are; empty where there are none.
    """

    model: ModelVersion
    output: Path
    rows: int
    bad_rows: int = 0
    note: str = ""


def score_file(
    file: str | Path,
    output: str | Path,
    *,
    model: ModelVersion,
    engine: str | None = None,
    columns: Mapping[str, str] | None = None,
    settings: TableSettings | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
    batch_rows: int = BATCH_ROWS,
    say: Callable[[str], None] | None = print,
) -> FileScores:
    """Write the rows of ``file`` with what ``model`` predicts of them to ``output``.

    All columns stay, in their order; those of the model's ``predict`` follow them. The output
    gets its name when it is whole.

    Parameters
    ----------
    file, output : str or Path
        CSV, JSON Lines or Parquet, by their endings.
    model : ModelVersion
        A model or a pipeline.
    engine : str, optional
        By default the one chosen at registration.
    columns : mapping of str to str, optional
        What the file calls columns that the model reads. A column that is not named is looked for under its own
        name, and then under the one that it had in the files of the table that the model learnt from.
    settings : TableSettings, optional
        Separator and encoding of a text file.
    skip_bad : bool
        Write rows that cannot be scored without a prediction.
    overwrite : bool
        Replace ``output`` if it exists.
    batch_rows : int
        Rows that are held in memory and sorted by length together.
    say : callable, optional
        Gets a line on the progress every ten seconds where there is no terminal for a bar; None keeps silent.

    Raises
    ------
    BadSource
        When the file cannot be read, or rows of it cannot be scored; the message names their lines.
    SettingError
        When the file lacks a column or has one that a prediction is called by, or ``output`` cannot be written.
    """
    output = check_row_file(output, overwrite=overwrite)
    if os.path.realpath(Path(file).expanduser()) == str(output):
        raise SettingError(f"{str(output)!r} is the file that is read. Name another one to write to.")
    known = {**_find_learnt_names(model), **(columns or {})}
    source = open_row_file(file, settings=settings, columns=[TEXT, *known.values()])
    scorer: _Scorer = (_PipelineScorer if is_pipeline(model) else _ModelScorer)(model, engine, source, known)
    is_csv = output.suffix.lower() == ".csv"
    schema, rows, bad = _look_through(source, scorer, batch_rows, named=columns or {}, is_csv=is_csv)
    if bad.count and not skip_bad:
        raise BadSource(f"{bad}. Mend them, or write such rows without a prediction: --skip-bad.")
    scorer.load()
    progress = RowProgress(f"scoring {source.path}", total=rows, say=say)
    separator = source.format.separator if source.kind == "csv" else ","
    whole = _add_fields(schema, scorer.fields)
    with write_row_file(output, whole, overwrite=overwrite, separator=separator) as writer:
        for some in source.read(batch_rows):
            predicted = scorer.predict(some)
            if output.suffix.lower() == ".parquet":
                writer.write(_join(make_batch(some, schema), predicted, whole))
            else:
                pairs = zip(some.records, to_records(predicted), strict=True)
                writer.write_records([{**record, **found} for record, found in pairs])
            progress.add(predicted.num_rows)
    progress.end()
    return FileScores(model, output, writer.rows, bad.count, str(bad) if bad.count else "")


def _look_through(
    source: RowFile, scorer: _Scorer, batch_rows: int, *, named: Mapping[str, str], is_csv: bool
) -> tuple[pa.Schema, int, BadRows]:
    """Return the columns of a file, how many rows it has, and which cannot be scored.

    ``is_csv`` says whether the output is one.
    """
    finder, bad, rows = SchemaFinder(), BadRows(source.path, source.unit), 0
    for some in source.read(batch_rows):
        finder.add(some)
        if not rows:
            scorer.choose_columns(list(dict.fromkeys(name for record in some.records for name in record)), named)
        scorer.find_bad(some, bad)
        if is_csv:
            check_csv_records(some.records)
        rows += len(some.records)
    if not rows:
        raise BadSource(f"{source.path!r} has no rows. Pass a file with rows.")
    schema = finder.make_schema()
    if taken := [name for name in scorer.fields.names if name in schema.names]:
        raise SettingError(
            f"{source.path!r} has a column {taken[0]!r} already, which is what a prediction is called. Give it "
            "another name."
        )
    return schema, rows, bad


class _Scorer(ABC):
    """Reads rows of a file as a model does, and predicts them."""

    def __init__(self, model: ModelVersion, engine: str | None, source: RowFile, known: Mapping[str, str]) -> None:
        self.model, self.engine, self.source, self.known = model, engine, source, known
        self.renamed: dict[str, str] = {}
        self.named: Mapping[str, str] = {}

    @property
    @abstractmethod
    def inputs(self) -> Inputs:
        """The inputs of the model's task."""

    @property
    @abstractmethod
    def fields(self) -> pa.Schema:
        """The columns that are added."""

    @abstractmethod
    def load(self) -> None:
        """Load what predicts."""

    @abstractmethod
    def find_bad(self, rows: FileRows, bad: BadRows) -> None:
        """Count the rows that cannot be scored."""

    @abstractmethod
    def predict(self, rows: FileRows) -> pa.RecordBatch:
        """Return the columns that are added, for each row."""

    def choose_columns(self, names: Sequence[str], named: Mapping[str, str]) -> None:
        """Find what the file calls the columns that the model reads; ``named`` are those that somebody named."""
        self.named = named
        listed = ", ".join(map(repr, names[:30]))
        for column, name in named.items():
            if name not in names:
                raise SettingError(
                    f"{self.source.path!r} has no column {name!r} for {column}; its columns are: {listed}."
                )
        found = {to_column_name(name): name for name in names}
        found |= {column: name for column, name in self.known.items() if name in names}
        self.renamed = {column: name for column, name in found.items() if column not in names or column in named}
        if self.inputs.is_single_text:
            if unknown := [column for column in named if column != TEXT]:
                raise SettingError(
                    f"--column {unknown[0]}={named[unknown[0]]} is refused: the model reads no column but 'text'."
                )
            if TEXT not in names and TEXT not in self.renamed and len(names) == 1:
                self.renamed = {TEXT: names[0]}
            if TEXT not in names and TEXT not in self.renamed:
                raise SettingError(
                    f"{self.source.path!r} has no column 'text'; its columns are: {listed}. Name the one with the "
                    "texts: --text-column."
                )

    def to_model_names(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row as the model's table would call its columns; an empty cell of a CSV is a missing value."""
        renamed = {**record, **{column: record.get(name) for column, name in self.renamed.items()}}
        if self.source.kind in ("csv", "tsv"):
            return {name: None if value == "" else value for name, value in renamed.items()}
        return renamed


class _ModelScorer(_Scorer):
    """Predicts with a model."""

    def __init__(self, model: ModelVersion, engine: str | None, source: RowFile, known: Mapping[str, str]) -> None:
        super().__init__(model, engine, source, known)
        self.card = read_card(model)

    @property
    def inputs(self) -> Inputs:
        return find_task(self.card["task"]).inputs

    @property
    def fields(self) -> pa.Schema:
        return _make_schema(find_task(self.card["task"]).target.list_frame_fields(self.card))

    def load(self) -> None:
        self.predictor = load_predictor(self.model.uri, engine=self.engine)

    def find_bad(self, rows: FileRows, bad: BadRows) -> None:
        for line, row in zip(rows.lines, self._read(rows), strict=True):
            if isinstance(row, DlpipeError):
                reason = str(row).removeprefix("Row 0").lstrip(": ")
                bad.add(line, reason.rstrip("."))
            elif row is None:
                bad.add(line, NO_TEXT)

    def predict(self, rows: FileRows) -> pa.RecordBatch:
        import pyarrow as pa

        read = [None if isinstance(row, DlpipeError) else row for row in self._read(rows)]
        frame = predict_frame(self.predictor, read)
        return pa.RecordBatch.from_pandas(frame, schema=self.fields, preserve_index=False)

    def _read(self, rows: FileRows) -> Rows:
        """Return the rows as the model reads them: ``None`` for one without a text, errors for what are none."""
        records = [self.to_model_names(record) for record in rows.records]
        try:
            read: list[Any] = list(self.inputs.read_request(records, self.card))
        except DlpipeError:
            read = [self._read_one(record) for record in records]
        self._check_columns(read[0], records[0])
        return [None if _is_blank(row) else row for row in read]

    def _read_one(self, record: Mapping[str, Any]) -> Any:
        try:
            return self.inputs.read_request([record], self.card)[0]
        except DlpipeError as error:
            return error

    def _check_columns(self, row: Any, record: Mapping[str, Any]) -> None:
        """Raise ``SettingError`` where a file lacks a column: all of its values would count as missing."""
        if not isinstance(row, Mapping) or self.source.kind == "jsonl":
            return
        if unknown := [column for column in self.named if column not in row]:
            raise SettingError(
                f"--column {unknown[0]}={self.named[unknown[0]]} is refused: the model reads {', '.join(row)}."
            )
        if missing := [name for name in row if name not in record]:
            raise SettingError(
                f"{self.source.path!r} has no column {missing[0]!r}; the model reads {', '.join(row)}. Name the "
                f"one that it is: --column {missing[0]}=NAME."
            )


class _PipelineScorer(_Scorer):
    """Answers with a pipeline, which gives a row that it cannot read a status instead of a prediction."""

    def __init__(self, model: ModelVersion, engine: str | None, source: RowFile, known: Mapping[str, str]) -> None:
        super().__init__(model, engine, source, known)
        self.pipeline = load_pipeline(model.uri, engine=engine)

    @property
    def inputs(self) -> Inputs:
        return find_task(self.pipeline.predictor.card["task"]).inputs

    @property
    def fields(self) -> pa.Schema:
        every = list_outputs(self.pipeline.predictor.card)
        return _make_schema([pair for pair in every if not pair[0].endswith("_ms") and pair[0] not in NOT_WRITTEN])

    def load(self) -> None:
        return None

    def find_bad(self, rows: FileRows, bad: BadRows) -> None:
        return None

    def predict(self, rows: FileRows) -> pa.RecordBatch:
        import pyarrow as pa

        frame = self.pipeline.run([self.to_model_names(record)[TEXT] for record in rows.records])
        fields = self.fields
        return pa.RecordBatch.from_pandas(frame[fields.names], schema=fields, preserve_index=False)


def _find_learnt_names(model: ModelVersion) -> dict[str, str]:
    """Return what files called the columns of the table that a model learnt from; nothing where nobody says."""
    try:
        version = table_at(model.tags["delta.table"], version=int(model.tags["delta.version"]))
        return {column.name: column.source for column in read_form(version).inputs}
    except (DlpipeError, LookupError, ValueError):
        return {}


def _is_blank(row: Any) -> bool:
    """Return whether a row is a text, or several, of which one is missing or has nothing but blanks."""
    texts = [row] if isinstance(row, str) or row is None else row if isinstance(row, tuple) else []
    return any(is_missing(text) or (isinstance(text, str) and not text.strip()) for text in texts)


def _make_schema(fields: Sequence[tuple[str, str]]) -> pa.Schema:
    """Return Arrow's types for MLflow's."""
    import pyarrow as pa

    def find_type(kind: str) -> pa.DataType:
        if kind.endswith("[]"):
            return pa.list_(find_type(kind.removesuffix("[]")))
        return pa.type_for_alias(TYPES[kind])

    return pa.schema([(name, find_type(kind)) for name, kind in fields])


def _add_fields(schema: pa.Schema, more: pa.Schema) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([*schema, *more])


def _join(rows: pa.RecordBatch, predicted: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    return pa.RecordBatch.from_arrays([*rows.columns, *predicted.columns], schema=schema)
