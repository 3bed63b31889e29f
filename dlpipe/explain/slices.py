"""A table in slices of a few rows, each explained and kept on its own."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from dlpipe.explain.explaining import explain_rows, task_of
from dlpipe.explain.explanations import ExplainSettings, NamedRow
from dlpipe.parts import part_sizes
from dlpipe.tables import TablePart, TableVersion, decode_texts, read_part, stage_part, table_parts
from dlpipe.task import Predictor

if TYPE_CHECKING:
    import pyarrow as pa

SLICE_ROWS = 64  # about half a minute of Owen values with MiniLM on two cores
MOST_SLICES = 50_000


@dataclass(frozen=True)
class Slice:
    """The rows from ``start`` to ``stop`` of a split in a part of a table."""

    number: int
    part: TablePart
    split: str | None
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many rows these are."""
        return self.stop - self.start

    def read(self, predictor: Predictor) -> list[NamedRow]:
        """Return each (row_id, row), as ``predictor`` reads rows."""
        columns = tuple(columns_of(predictor, self.part.version))
        rows = _rows(self.part, self.split, columns).slice(self.start, self.rows)
        return named_rows(rows, predictor)


@functools.lru_cache(maxsize=1)
def _rows(part: TablePart, split: str | None, columns: tuple[str, ...]) -> pa.Table:
    """Return the rows of ``part``, read once for all of its slices."""
    return decode_texts(read_part(part, columns=list(columns), split=split), of=part.version)


def columns_of(predictor: Predictor, source: TableVersion) -> list[str]:
    """Return ``row_id`` and the columns that ``predictor`` reads."""
    return ["row_id", *task_of(predictor).inputs.columns(source, predictor.card)]


def named_rows(rows: pa.Table | pa.RecordBatch, predictor: Predictor) -> list[NamedRow]:
    """Return each (row_id, row) of a table with the columns that ``columns_of`` returns."""
    read = task_of(predictor).inputs.read_rows(rows)
    return list(zip(rows["row_id"].to_pylist(), read, strict=True))


def table_slices(source: TableVersion, split: str | None) -> tuple[list[Slice], str]:
    """Return the slices of a table version, one at least, and what says that these were cut together."""
    parts = table_parts(source)
    sizes = part_sizes(parts, split)
    width = max(SLICE_ROWS, -(-sum(sizes) // MOST_SLICES))
    number = count()
    slices = [
        Slice(next(number), part, split, start, min(start + width, size))
        for part, size in zip(parts, sizes, strict=True)
        for start in range(0, size, width)
    ]
    return slices or [Slice(0, parts[0], split, 0, 0)], f"{parts[0].cut}-{width}"


@dataclass(frozen=True)
class SliceExplainer:
    """Explains a slice and stages its rows; can be pickled where its predictor can."""

    predictor: Predictor
    source: TableVersion
    model: str
    target: str
    settings: ExplainSettings
    key: Mapping[str, str]
    cut: str

    def __call__(self, one: Slice) -> int:
        """Return the number of rows that were explained. The numbers do not depend on other slices."""
        made = explain_rows(self.predictor, one.read(self.predictor), settings=self.settings)
        table = made.to_table(model=self.model, source=self.source)
        stage_part(self.target, table, key=self.key, part=one.number, cut=self.cut)
        return one.rows


def explaining_key(source: TableVersion, model: str, settings: ExplainSettings) -> dict[str, str]:
    """Return what makes the explanations of the same rows the same as earlier ones."""
    partition = {"max_evals": settings.max_evals, "batch_rows": settings.batch_rows, "seed": settings.seed}
    of_method = partition if settings.method == "partition" else {"steps": settings.steps}
    return {
        "model": model,
        "source": source.path,
        "source_version": str(source.version),
        "method": settings.method,
        **{name: str(value) for name, value in of_method.items()},
    }
