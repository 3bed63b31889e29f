"""Evaluating a model, its baseline and the champion on the test split of a table version."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dlpipe.errors import EngineUnavailable, EvaluationError, ModelNotFound, SchemaMismatch
from dlpipe.evaluation.gate import Rival
from dlpipe.task import Evaluation, RowErrors, Target, Task, find_task

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
    """Return the labelled rows of a split as a model reads them.

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

    inputs = find_model_task(predictor).inputs
    columns = inputs.find_columns(table, predictor.card)
    found = read_table(table, split=split, columns=["row_id", *columns, "label"])
    rows = inputs.read_rows(found.select(columns))
    return LabelledRows(found["row_id"].to_pylist(), rows, found["label"].to_pylist())


def evaluate_model(predictor: Predictor, table: TableVersion, *, seed: int = 0) -> Evaluation:
    """Return the evaluation of ``predictor`` on the test split of ``table``.

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
    task = find_model_task(predictor)
    test = read_split(table, "test", predictor=predictor)
    _, unknown = task.target.find_known_rows(test.labels, predictor.labels)
    if unknown:
        raise EvaluationError(
            f"the model knows the labels {', '.join(predictor.labels)}, the test split of {table} also has "
            f"{', '.join(unknown)}. Train a model on this table, or register it under another name."
        )
    outputs = predictor.predict_outputs(test.rows)
    return evaluate_outputs(
        outputs, test, predictor.labels, task=task, decision=read_decision(predictor), seed=seed
    )


def evaluate_baseline(table: TableVersion, *, beside: Predictor, seed: int = 0) -> Evaluation:
    """Return the evaluation of the task's plain model on the test split, trained on the same train split.

    Parameters
    ----------
    table : TableVersion
    beside : Predictor
        The model that it is compared with, which names the task and the outputs.
    seed : int
        Of the baseline and of the resamples.
    """
    task = find_model_task(beside)
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
    """Return evaluations of ``champion`` and a candidate on the test rows that the champion can be judged on.

    For classes, these are the rows whose class it knows. A champion that cannot be opened, is for another task,
    reads columns that the table lacks, or knows none of the labels, cannot be compared; the result says why.

    Parameters
    ----------
    champion : ModelVersion
    table : TableVersion
    candidate : Evaluation
        On the whole test split.
    open_candidate : callable
        Returns the candidate's predictor. It is called only if the two do not know the same labels, because a
        model is loaded and predicts once more then.
    task : Task
        What the candidate was trained for.
    seed : int
        Of the resamples.
    """
    from dlpipe.inference import load_predictor

    try:
        # the engine that the candidate was evaluated with, whatever the champion is served by
        rival = load_predictor(champion.uri, engine="torch")
    except (ModelNotFound, EngineUnavailable) as error:
        return Rival(champion.version, None, None, problem=str(error).rstrip("."))
    if (theirs := rival.card["task"]) != task.name:
        return Rival(champion.version, None, None, problem=f"it is a model for {theirs}, not for {task.name}")
    try:
        test = read_split(table, "test", predictor=rival)
    except SchemaMismatch as error:
        return Rival(champion.version, None, None, problem=str(error).rstrip("."))
    # a new class must not count against the champion, which never could answer it
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
    """Return the evaluation of ``predictor`` over ``labels``, so that two models have metrics of the same outputs.

    Parameters
    ----------
    labels : sequence of str
        Names of outputs. Those that the model lacks are 0 for every row.
    predictor : Predictor
    test : LabelledRows
    task : Task
    seed : int
        Of the resamples.
    """
    import numpy as np

    own = predictor.predict_outputs(test.rows)
    outputs = np.zeros((len(own), len(labels)))
    outputs[:, [labels.index(label) for label in predictor.labels]] = own
    return evaluate_outputs(outputs, test, labels, task=task, decision=read_decision(predictor), seed=seed)


def evaluate_outputs(
    outputs: Any,
    test: LabelledRows,
    names: Sequence[str],
    *,
    task: Task,
    decision: Mapping[str, Any],
    seed: int,
) -> Evaluation:
    """Return the evaluation of outputs for labelled rows, with what is predicted of each.

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
    made = task.target.evaluate(
        outputs, test.labels, names=names, decision=decision, row_ids=test.row_ids, shown=shown, seed=seed
    )
    return replace(made, by_row=judge_rows(outputs, test, task.target, names=names, decision=decision))


def judge_rows(
    outputs: Any, test: LabelledRows, target: Target, *, names: Sequence[str], decision: Mapping[str, Any]
) -> RowErrors:
    """Return what outputs predict of each row and how wrong that is; ``evaluate_outputs`` has the parameters."""
    import numpy as np

    errors = target.measure_row_errors(outputs, test.labels, names=names, decision=decision)
    decided = target.decide(outputs, {"labels": names, "decision": decision})
    predicted = [target.format_label(value) for value in decided]
    return RowErrors(np.array([*test.row_ids], str), np.array(predicted, str), np.asarray(errors, float))


def read_decision(predictor: Predictor) -> Mapping[str, Any]:
    """Return what turns the outputs of a model into decisions, from its card; empty where nothing is needed."""
    decision: Mapping[str, Any] = predictor.card.get("decision", {})
    return decision


def find_model_task(predictor: Predictor) -> Task:
    """Return the task that a model was trained for."""
    return find_task(predictor.card["task"])
