"""Rows scored with a registered model, on this machine or on a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlpipe.flows.model_pages import renew_page
from dlpipe.flows.pinning import CLASSIFIER, PIPELINE, check_kind, check_rows, choose_table

if TYPE_CHECKING:
    from dlpipe.inference import ScoredVersion
    from dlpipe.parts import ScoringResult
    from dlpipe.registry import ModelVersion
    from dlpipe.tables import TableVersion


def score_every_row(model: ModelVersion, rows: TableVersion, *, ray_address: str | None = None) -> ScoringResult:
    """Append the predictions for all splits to the table that belongs to ``rows``, unless they are there."""
    from dlpipe.cluster import join
    from dlpipe.inference import load_predictor, score

    predictor, target = load_predictor(model.uri), f"{rows.path}_predictions"
    with join(ray_address) as cluster:
        done = score(predictor, rows, model=model, target=target, split=None, cluster=cluster)
    renew_page(model)
    return done


def score_rows(
    model: ModelVersion,
    rows: TableVersion,
    *,
    into: str,
    until: ScoredVersion,
    split: str | None = None,
    all_rows: bool = False,
    ray_address: str | None = None,
) -> ScoringResult:
    """Append the predictions for new rows, for a split or for all rows, in one commit.

    Parameters
    ----------
    model : ModelVersion
        A classifier or a pipeline.
    into : str
        The table of the predictions.
    until : ScoredVersion
        Up to where rows were scored when the run began.
    split : str, optional
        Score every row of it.
    all_rows : bool, optional
        Score every row, not only new ones.
    ray_address : str, optional
        The cluster to score on; a pipeline is always scored in the step's own process.
    """
    from dlpipe.cluster import join
    from dlpipe.inference import is_pipeline, load_scorer, score_new, score_whole

    make = load_scorer(model)
    work: dict[str, Any] = {"model": model, "target": into}
    with join(None if is_pipeline(model) else ray_address) as cluster:
        if all_rows or split:
            done = score_whole(make, rows, split=split, cluster=cluster, **work)
        else:
            done = score_new(make, rows, until=until, cluster=cluster, **work)
    renew_page(model)
    return done


def choose_answers_table(model: ModelVersion, rows: TableVersion, target: str | None) -> str:
    """Return ``target``, or the name of the table that belongs to ``rows`` and to the kind of the model."""
    from dlpipe.inference import is_pipeline

    return choose_table(target, rows, "answers" if is_pipeline(model) else "predictions")


def check_scoring(model: ModelVersion, rows: TableVersion, *, into: str, split: str | None = None) -> None:
    """See that the model scores, that there are rows, and that the table takes the answers.

    Parameters
    ----------
    into : str
        The table of the answers.
    split : str, optional
        Which must have a row; without it, a table that has no new row is fine.
    """
    from dlpipe.inference import is_pipeline, make_answer_schema, make_prediction_schema
    from dlpipe.tables import check_target
    from dlpipe.task import find_task

    check_kind(model, CLASSIFIER, PIPELINE)
    check_rows(rows, split, whole="--all-rows true")
    schema = make_answer_schema if is_pipeline(model) else make_prediction_schema
    check_target(into, schema(find_task(model.task)))
