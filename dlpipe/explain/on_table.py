"""Explanations of rows of a table version, kept in a table of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlpipe.explain.explaining import explain_rows
from dlpipe.explain.explanations import ExplainSettings, Explanations, Row, Scorer, choose_rows

if TYPE_CHECKING:
    from dlpipe.tables import TableVersion


def explain_table(
    predictor: Scorer,
    source: TableVersion,
    *,
    mistakes: Sequence[Row] = (),
    model: str,
    target: str,
    settings: ExplainSettings,
) -> tuple[Explanations, TableVersion]:
    """Explain a sample of the test split of ``source`` and of ``mistakes``; return that and where it is kept.

    Parameters
    ----------
    model : str
        URI of the model version that ``predictor`` holds.
    target : str
        Path of the Delta table that the word attributions are appended to, in one commit. The same model, table
        version, settings and mistakes again are not written again.
    """
    from dlpipe.tables import find_commit, read_table, write_table

    test = read_table(source, split="test", columns=["row_id", "text"]).to_pydict()
    rows = list(zip(test["row_id"], test["text"], strict=True))
    chosen = choose_rows(rows, mistakes=mistakes, settings=settings)
    explanations = explain_rows(predictor, chosen, settings=settings)
    key = {
        "model": model,
        "source": f"{source.path}@v{source.version}",
        "settings": repr(settings),
        "rows": " ".join(row_id for row_id, _ in chosen),
    }
    kept = find_commit(target, key) or write_table(target, explanations.to_table(), mode="append", key=key)
    return explanations, kept
