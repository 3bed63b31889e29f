"""Evaluations of a model, of its baseline and of the champion on the test split of a table version."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlpipe.errors import EngineUnavailable, EvaluationError, ModelNotFound, SchemaMismatch
from dlpipe.evaluation.gate import Rival
from dlpipe.task import Evaluation, Task, find_task

if TYPE_CHECKING:
    from dlpipe.registry import ModelVersion
    from dlpipe.tables import TableVersion
    from dlpipe.task import Predictor, Row


@dataclass(frozen=True)
class LabelledRows:
    """Rows of a split with their ids and labels."""

    row_ids: Sequence[str]
    rows: Sequence[Row]
    labels: Sequence[Any]

    def take(self, places: Sequence[int]) -> LabelledRows:
        """Return the rows at ``places``."""
        return LabelledRows(*([values[at] for at in places] for values in (self.row_ids, self.rows, self.labels)))


def read_split(table: TableVersion, split: str, *, predictor: Predictor) -> LabelledRows:
    """Return the rows of a split as a model reads them.

    Parameters
    ----------
    table : TableVersion
    split : str
        Such as ``test``.
    predictor : Predictor
        Its card names the columns.

    Raises
    ------
    SchemaMismatch
        When the table lacks a column that the model reads.
    """
    from dlpipe.tables import read_table

    inputs = task_of(predictor).inputs
    columns = inputs.find_columns(table, predictor.card)
    found = read_table(table, split=split, columns=["row_id", *columns, "label"])
    rows = inputs.read_rows(found.select(columns))
    return LabelledRows(found["row_id"].to_pylist(), rows, found["label"].to_pylist())


def evaluate_model(predictor: Predictor, table: TableVersion, *, seed: int = 0) -> Evaluation:
    """Return how ``predictor`` does on the test split of ``table``.

    Parameters
    ----------
    predictor : Predictor
        Its card names the task, which says what is measured.
    table : TableVersion
    seed : int
        Of the resamples.

    Raises
    ------
    EvaluationError
        When the test split has a label that the model does not know.
    """
    task = task_of(predictor)
    test = read_split(table, "test", predictor=predictor)
    _, unknown = task.target.find_known_rows(test.labels, predictor.labels)
    if unknown:
        raise EvaluationError(
            f"the model knows the labels {', '.join(predictor.labels)}, the test split of {table} also has "
            f"{', '.join(unknown)}. Train a model on this table, or register it under another name."
        )
    outputs = predictor.predict_outputs(test.rows)
    return evaluate_outputs(outputs, test, predictor.labels, task=task, decision=decision_of(predictor), seed=seed)


def evaluate_baseline(table: TableVersion, *, beside: Predictor, seed: int = 0) -> Evaluation:
    """Return how the plain model of the task does on the test split, trained on the same train split.

    Parameters
    ----------
    table : TableVersion
    beside : Predictor
        The model that it is compared with: the task and the names of the outputs are its own.
    seed : int
    """
    task = task_of(beside)
    train, test = (read_split(table, split, predictor=beside) for split in ("train", "test"))
    baseline = task.fit_baseline(train.rows, train.labels, seed=seed)
    outputs = baseline.predict_outputs(test.rows, outputs=beside.labels)
    return evaluate_outputs(outputs, test, beside.labels, task=task, decision=baseline.decision, seed=seed)


def evaluate_champion(
    champion: ModelVersion,
    table: TableVersion,
    *,
    candidate: Evaluation,
    open_candidate: Callable[[], Predictor],
    task: Task,
    seed: int = 0,
) -> Rival:
    """Return how ``champion`` and a candidate do on the rows of the test split that the champion can be judged on.

    Of classes, these are the rows whose class it knows. One that cannot be opened, is of another task, reads
    columns that the table lacks, or knows none of the labels, cannot be compared; the answer says so.

    Parameters
    ----------
    champion : ModelVersion
    table : TableVersion
    candidate : Evaluation
        The candidate's on the whole test split.
    open_candidate : callable
        Returns its predictor, which is needed where the two do not know the same labels.
    task : Task
        What the candidate was trained for.
    seed : int
        Of the resamples.
    """
    from dlpipe.inference import load_predictor

    try:
        rival = load_predictor(champion.uri, engine="torch")
    except (ModelNotFound, EngineUnavailable) as error:
        return Rival(champion.version, None, None, problem=str(error).rstrip("."))
    if (theirs := rival.card["task"]) != task.name:
        return Rival(champion.version, None, None, problem=f"it is a model for {theirs}, not for {task.name}")
    try:
        test = read_split(table, "test", predictor=rival)
    except SchemaMismatch as error:
        return Rival(champion.version, None, None, problem=str(error).rstrip("."))
    known, unknown = task.target.find_known_rows(test.labels, rival.labels)
    if not known:
        problem = f"it knows {', '.join(rival.labels)}, none of which the test split has"
        return Rival(champion.version, None, None, unknown, problem)
    if {*rival.labels} == {*candidate.labels}:
        scores = evaluate_over(candidate.labels, rival, test, task=task, seed=seed)
        return Rival(champion.version, scores, candidate)
    labels = [*candidate.labels, *(label for label in rival.labels if label not in candidate.labels)]
    scores = evaluate_over(labels, rival, test.take(known), task=task, seed=seed)
    opened = open_candidate()
    own_test = read_split(table, "test", predictor=opened)
    mine = evaluate_over(labels, opened, own_test.take(known), task=task, seed=seed)
    return Rival(champion.version, scores, mine, unknown)


def evaluate_over(
    labels: Sequence[str], predictor: Predictor, test: LabelledRows, *, task: Task, seed: int
) -> Evaluation:
    """Return an evaluation over ``labels``, those that the model lacks at 0: metrics are of the same outputs."""
    import numpy as np

    given = predictor.predict_outputs(test.rows)
    outputs = np.zeros((len(given), len(labels)))
    outputs[:, [labels.index(label) for label in predictor.labels]] = given
    return evaluate_outputs(outputs, test, labels, task=task, decision=decision_of(predictor), seed=seed)


def evaluate_outputs(
    outputs: Any,
    test: LabelledRows,
    names: Sequence[str],
    *,
    task: Task,
    decision: Mapping[str, Any],
    seed: int,
) -> Evaluation:
    """Return the evaluation of outputs for labelled rows.

    Parameters
    ----------
    outputs : array of shape (n_rows, n_outputs)
    test : LabelledRows
    names : sequence of str
        Of the outputs.
    task : Task
    decision : mapping
        What turns outputs into decisions, of a model's card or a baseline.
    seed : int
        Of the resamples.
    """
    shown = [task.inputs.format_row(row) for row in test.rows]
    return task.target.evaluate(
        outputs, test.labels, names=names, decision=decision, row_ids=test.row_ids, shown=shown, seed=seed
    )


def decision_of(predictor: Predictor) -> Mapping[str, Any]:
    """Return what turns the outputs of a model into decisions."""
    made: Mapping[str, Any] = predictor.card.get("decision", {})
    return made


def task_of(predictor: Predictor) -> Task:
    """Return the task that a model was trained for."""
    return find_task(predictor.card["task"])
