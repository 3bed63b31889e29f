"""Evaluations of a model, of its baseline and of the champion on the test split of a table version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from dlpipe.errors import EngineUnavailable, EvaluationError, ModelNotFound
from dlpipe.evaluation.evaluating import evaluate
from dlpipe.evaluation.gate import Rival
from dlpipe.evaluation.scores import Evaluation
from dlpipe.task import find_task

if TYPE_CHECKING:
    from dlpipe.registry import ModelVersion
    from dlpipe.tables import TableVersion
    from dlpipe.task import Predictor


def evaluate_model(predictor: Predictor, table: TableVersion, *, seed: int = 0) -> Evaluation:
    """Return how ``predictor`` does on the test split of ``table``.

    Raises
    ------
    EvaluationError
        When the test split has a label that the model does not know.
    """
    test = _split(table, "test")
    unknown = sorted({*test["label"]} - {*predictor.labels})
    if unknown:
        raise EvaluationError(
            f"the model knows the labels {', '.join(predictor.labels)}, the test split of {table} also has "
            f"{', '.join(unknown)}. Train a model on this table, or register it under another name."
        )
    return _evaluation(predictor.predict_outputs(test["text"]), test, predictor.labels, seed)


def evaluate_baseline(table: TableVersion, *, labels: Sequence[str], seed: int = 0) -> Evaluation:
    """Return how TF-IDF with logistic regression does on the test split, trained on the same train split."""
    train, test = _split(table, "train"), _split(table, "test")
    baseline = find_task().fit_baseline(train["text"], train["label"], seed=seed)
    return _evaluation(baseline.predict_outputs(test["text"], outputs=labels), test, labels, seed)


def evaluate_champion(
    champion: ModelVersion,
    table: TableVersion,
    *,
    candidate: Evaluation,
    open_candidate: Callable[[], Predictor],
    seed: int = 0,
) -> Rival:
    """Return how ``champion`` and a candidate do on the rows of the test split whose class the champion knows.

    One that cannot be opened any more, or knows none of the classes, cannot be compared; the answer says so.

    Parameters
    ----------
    candidate : Evaluation
        The candidate's on the whole test split.
    open_candidate : callable
        Returns its predictor, which is needed where the two do not know the same classes.
    """
    from dlpipe.inference import load_predictor

    try:
        rival = load_predictor(champion.uri, engine="torch")
    except (ModelNotFound, EngineUnavailable) as error:
        return Rival(champion.version, None, None, problem=str(error).rstrip("."))
    test = _split(table, "test")
    unknown = Counter(label for label in test["label"] if label not in rival.labels)
    known = [at for at, label in enumerate(test["label"]) if label in rival.labels]
    if not known:
        problem = f"it knows {', '.join(rival.labels)}, none of which the test split has"
        return Rival(champion.version, None, None, dict(sorted(unknown.items())), problem)
    if {*rival.labels} == {*candidate.labels}:
        return Rival(champion.version, _evaluation_over(rival, candidate.labels, test, seed), candidate)
    rows = {name: [values[at] for at in known] for name, values in test.items()}
    labels = [*candidate.labels, *(label for label in rival.labels if label not in candidate.labels)]
    theirs, mine = (_evaluation_over(model, labels, rows, seed) for model in (rival, open_candidate()))
    return Rival(champion.version, theirs, mine, dict(sorted(unknown.items())))


def _evaluation_over(
    predictor: Predictor, labels: Sequence[str], rows: dict[str, list[str]], seed: int
) -> Evaluation:
    """Return an evaluation over ``labels``, those that the model lacks at 0: metrics are of the same classes."""
    import numpy as np

    given = predictor.predict_outputs(rows["text"])
    shares = np.zeros((len(given), len(labels)))
    shares[:, [labels.index(label) for label in predictor.labels]] = given
    return _evaluation(shares, rows, labels, seed)


def _split(table: TableVersion, split: str) -> dict[str, list[str]]:
    from dlpipe.tables import read_table

    return read_table(table, split=split, columns=["row_id", "text", "label"]).to_pydict()


def _evaluation(probabilities: Any, rows: dict[str, list[str]], labels: Sequence[str], seed: int) -> Evaluation:
    return evaluate(probabilities, rows["label"], labels, row_ids=rows["row_id"], texts=rows["text"], seed=seed)
