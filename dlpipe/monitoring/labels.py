"""New labels of a table: without any, a model trained again would be the same model."""

from __future__ import annotations

from dlpipe.errors import DlpipeError, NothingToLearn
from dlpipe.registry import ModelVersion
from dlpipe.tables import TableVersion, read_table, table_at


def count_new_labels(table: TableVersion, since: TableVersion) -> int:
    """Return how many rows of ``table`` have a label and had none, or were not there, in ``since``."""
    return len(_read_labelled(table) - _read_labelled(since))


def check_new_labels(table: TableVersion, champion: ModelVersion | None) -> None:
    """Raise ``NothingToLearn`` where ``table`` has no label that the champion has not learnt from.

    A champion that does not say what it was trained on, or of a version that is gone, does not stop a training.
    """
    if champion is None or "delta.version" not in champion.tags:
        return
    try:
        # what cannot be compared stops no training: at worst it gives the same model, and the gate refuses that
        since = table_at(champion.tags["delta.table"], version=int(champion.tags["delta.version"]))
    except DlpipeError:
        return
    if count_new_labels(table, since):
        return
    unlabelled = table.rows - len(_read_labelled(table))
    raise NothingToLearn(
        f"{str(table)!r} has no label that {champion.uri}, trained on {since}, has not learnt from: a training "
        f"would give the same model again. {unlabelled:,} of its {table.rows:,} rows have no label; label some of "
        f"them and add them: dlpipe append {table.name} FILE."
    )


def _read_labelled(table: TableVersion) -> set[str]:
    rows = read_table(table, columns=["row_id", "label"]).to_pydict()
    return {row_id for row_id, label in zip(rows["row_id"], rows["label"], strict=True) if label not in (None, "")}
