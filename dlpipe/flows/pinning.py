"""What a flow works on, pinned and checked before it works."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from metaflow import current

from dlpipe.errors import ModelNotFound, SchemaMismatch, TableNotFound
from dlpipe.registry import KIND, MADE_FROM, ModelVersion, resolve
from dlpipe.tables import TableVersion, check_split, parse_split, read_added, table_at
from dlpipe.task import find_task

if TYPE_CHECKING:
    from metaflow import Run

    from dlpipe.monitoring import Subject
    from dlpipe.parts import ScoringResult

CLASSIFIER, PIPELINE = "", "pipeline"
"""Kinds of models, as their tags say; a classifier's say nothing."""


def pin(model: str, table: str, version: int | None) -> tuple[ModelVersion, TableVersion]:
    """Return the model version and the table version that are meant, seen to be there and to fit.

    Parameters
    ----------
    model : str
        ``models:/NAME@ALIAS``, ``NAME/VERSION``, or a name, which means its champion.
    table : str
        A name under the tables root, or a path.
    version : int, optional
        Of the table; by default the latest.

    Raises
    ------
    ModelNotFound, TableNotFound, TableVersionNotFound
        The message says which there are.
    SchemaMismatch
        When the table has no ``row_id`` or lacks a column that the model reads, or that column holds something
        else.
    """
    found, rows = resolve(model), table_at(table, version=version)
    names = [name for name, _ in rows.columns]
    wanted = ("row_id", *find_task(found.task).inputs.find_columns(rows, read_card_if_needed(found)))
    if missing := [name for name in wanted if name not in names]:
        raise SchemaMismatch(
            f"{str(rows)!r} has no column {' and no column '.join(map(repr, missing))}; its columns are: "
            f"{', '.join(names)}. Name a table that flows/train_flow.py or dlpipe.tables.ingest made."
        )
    return found, rows


def read_card_if_needed(model: ModelVersion) -> dict[str, Any] | None:
    """Return the card that says which columns ``model`` reads; None where its task says it without a card.

    A model of one text a row reads the same column whatever its card says, and so does what is made from it, so
    that the first step of such a flow asks the registry no more than it has to.
    """
    from dlpipe.inference import read_card

    if find_task(model.task).inputs.is_single_text or KIND in model.tags:
        return None
    return read_card(model)


def check_rows(rows: TableVersion, split: str | None, *, whole: str) -> None:
    """Raise ``NoRows`` where there is no row of a split, before a model is loaded for it.

    Parameters
    ----------
    split : str, optional
        ``all`` for any row; ``None`` where no split is asked for, and nothing is checked.
    whole : str
        The option that takes all rows, for the message.
    """
    if split is not None:
        check_split(rows, parse_split(split, where="The table"), whole=whole)


def check_kind(model: ModelVersion, *kinds: str) -> None:
    """Raise ``ModelNotFound`` unless ``model`` is of one of these kinds."""
    kind = model.tags.get(KIND, CLASSIFIER)
    if kind not in kinds:
        raise ModelNotFound(
            f"{model.uri} is of the kind {kind!r}; its classifier is {model.tags.get(MADE_FROM)}. Name that one."
        )


def find_trigger_run() -> Run | None:
    """Return the run of the predict flow whose end started this one; None for one that a person started."""
    trigger = current.get("trigger")
    return trigger.run if trigger else None


def draw_scored(scored: ScoringResult, count: int, *, seed: int) -> list[str]:
    """Return the ids of at most ``count`` of the rows that a scoring has added, drawn by ``seed``."""
    if not scored.new_rows:
        return []
    names = read_added(scored.table, columns=["row_id"])["row_id"].to_pylist()
    return random.Random(seed).sample(names, min(count, len(names)))


def pin_monitored(model: str, table: str, target: str | None, *, served: bool) -> Subject:
    """Return what a look for drift compares, after a run of the predict flow what that run has scored.

    Parameters
    ----------
    model : str
    table : str
    target : str, optional
        The table of the predictions; by default the one that belongs to the table.
    served : bool
        Whether rows and predictions are those of a server's log, instead of tables.
    """
    from dlpipe.monitoring import find_subject

    if served:
        from dlpipe.serving.incoming import find_served

        return find_served(resolve(model))
    if (before := find_trigger_run()) is None:
        return find_subject(*pin_scored(model, table, target))
    # labels may have come in since
    rows = table_at(before.data.scored_rows.path)
    return find_subject(before.data.scored_by, rows, before.data.predictions.table)


def find_classifier(model: ModelVersion) -> ModelVersion:
    """Return ``model``, or the classifier inside it where it is a pipeline."""
    inside = model.tags.get(MADE_FROM)
    return resolve(inside) if inside else model


def pin_scored(model: str, table: str, target: str | None) -> tuple[ModelVersion, TableVersion, TableVersion]:
    """Return the model version, the latest version of the table, and of its predictions (or answers).

    Parameters
    ----------
    target : str, optional
        The table of the predictions; by default the one that belongs to the table.
    """
    from dlpipe.inference import is_pipeline

    found, rows = pin(model, table, None)
    return found, rows, find_scored_table(target, rows, found, "answers" if is_pipeline(found) else "predictions")


def describe_split(split: str | None) -> str:
    """Return the words for what ``--split`` of the explain flow asks for.

    Raises
    ------
    SettingError
        When there is no such split.
    """
    if split is None:
        return "test"
    return parse_split(split, where="The table") or "all splits"


def choose_table(target: str | None, rows: TableVersion, kind: str) -> str:
    """Return ``target``, or the name of the table of this kind that belongs to the data table."""
    return target or f"{rows.path}_{kind}"


def find_scored_table(target: str | None, rows: TableVersion, model: ModelVersion, kind: str) -> TableVersion:
    """Return the table of the answers for ``rows``.

    Parameters
    ----------
    target : str, optional
        Its name; by default the one that belongs to the rows and ``kind``, such as ``reviews_predictions``.
    model : ModelVersion
        Whose answers they are, for the message.
    kind : str
        ``predictions``, or ``answers`` of a pipeline.

    Raises
    ------
    TableNotFound
        When there is none; where nobody named it, the message says that the rows are still to be scored.
    """
    try:
        return table_at(choose_table(target, rows, kind))
    except TableNotFound:
        if target:
            raise
        raise TableNotFound(
            f"No model has scored {str(rows)!r} yet: it has no table of {kind}. Score it first "
            f"(flows/predict_flow.py run --model {model.name} --table {rows.path}), or name another with --target."
        ) from None
