"""Explain a table in slices, each staged when it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlpipe.explain.explaining import explain_rows, task_of
from dlpipe.explain.explanations import ExplainSettings, NamedRow
from dlpipe.parts import Slice
from dlpipe.tables import TableVersion, stage_part
from dlpipe.task import Predictor

if TYPE_CHECKING:
    import pyarrow as pa

SLICE_ROWS = 64  # about half a minute of Owen values with MiniLM on two cores


def list_columns(predictor: Predictor, source: TableVersion) -> list[str]:
    """Return the names ``row_id`` and of the columns that ``predictor`` reads."""
    return ["row_id", *task_of(predictor).inputs.find_columns(source, predictor.card)]


def name_rows(rows: pa.Table | pa.RecordBatch, predictor: Predictor) -> list[NamedRow]:
    """Return each (row_id, row) of a table with the columns that ``list_columns`` returns."""
    read = task_of(predictor).inputs.read_rows(rows)
    return list(zip(rows["row_id"].to_pylist(), read, strict=True))


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

    def read(self, piece: Slice) -> list[NamedRow]:
        """Return each (row_id, row) of a slice."""
        return name_rows(piece.read(list_columns(self.predictor, self.source)), self.predictor)

    def __call__(self, piece: Slice) -> int:
        """Stage the explanations of a slice, and return how many rows it has.

        Attributions do not depend on other slices, so that any process may explain any of them, in any order.
        """
        made = explain_rows(self.predictor, self.read(piece), settings=self.settings)
        table = made.to_table(model=self.model, source=self.source)
        stage_part(self.target, table, key=self.key, part=piece.number, cut=self.cut)
        return piece.rows


def make_key(source: TableVersion, model: str, settings: ExplainSettings) -> dict[str, str]:
    """Return the key of explanations: the same key again is the same work, and is not done twice.

    Settings of the other method are left out, since they change no number, and so is how many rows are explained:
    which ones is added by the caller.

    Parameters
    ----------
    source : TableVersion
    model : str
        URI of the model version.
    settings : ExplainSettings
    """
    partition = {"max_evals": settings.max_evals, "batch_rows": settings.batch_rows, "seed": settings.seed}
    of_method = partition if settings.method == "partition" else {"steps": settings.steps}
    return {
        "model": model,
        "source": source.path,
        "source_version": str(source.version),
        "method": settings.method,
        **{name: str(value) for name, value in of_method.items()},
    }
