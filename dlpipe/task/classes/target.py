"""Classes: the half of a task that predicts one class of several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlpipe.task.classes.chance import estimate_f1_error, guess_f1
from dlpipe.task.classes.gate import ClassThresholds, check_classes, check_majority, check_recalls
from dlpipe.task.classes.per_class import compute_recalls, describe_recalls
from dlpipe.task.classes.scores import ClassEvaluation
from dlpipe.task.evaluation import Evaluation, ScoreTable
from dlpipe.task.gate import Check, Thresholds
from dlpipe.task.predictor import Row
from dlpipe.task.protocol import Chance, Coding, DriftSeries, Target, name_few

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd
    import pyarrow as pa
    import torch
    from matplotlib.figure import Figure

    from dlpipe.task.classes.baseline import ClassBaseline

    Floats = npt.NDArray[np.floating[Any]]


class Classes(Target):
    """A class of at least two; outputs are the probability of each, in the sorted order of their names."""

    deciding_metric = "val_f1"
    headline = "accuracy"
    lower_is_better = frozenset({"log_loss", "calibration_error"})
    right_row_metrics = frozenset({"accuracy", "macro_f1"})
    gate = ClassThresholds
    has_classes = True
    output_kind = "shares"

    def learn_coding(self, labels: Sequence[str]) -> Coding:
        """Return the classes, sorted."""
        return Coding(tuple(sorted(set(labels))))

    def encode_labels(self, labels: Sequence[str], coding: Coding) -> np.ndarray:
        """Return the number of each row's class: int64 of shape (n_rows,)."""
        place = {label: number for number, label in enumerate(coding.outputs)}
        return np.array([place[label] for label in labels], dtype=np.int64)

    def compute_loss(self, logits: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropy in nats."""
        import torch

        return torch.nn.functional.cross_entropy(logits, encoded)

    def score_epoch(self, logits: torch.Tensor, encoded: torch.Tensor) -> dict[str, float]:
        """Return ``val_loss``, ``val_accuracy`` and macro ``val_f1`` of logits (n, k) against classes (n,)."""
        guess = logits.argmax(1)
        return {
            "val_loss": float(self.compute_loss(logits, encoded)),
            "val_accuracy": float((guess == encoded).float().mean()),
            "val_f1": compute_macro_f1(encoded, guess),
        }

    def measure_chance(self, encoded: np.ndarray) -> Chance:
        """Return the macro F1 of guessing by shares, and how sure a score is on these rows."""
        rows = np.bincount(encoded).tolist()
        return Chance(guess_f1(rows), lambda score: estimate_f1_error(score, rows), int(sum(rows)), "macro F1")

    def activate(self, logits: Floats, card: Mapping[str, Any]) -> Floats:
        """Return the softmax of each row.

        Examples
        --------
        >>> Classes().activate(np.array([[0.0, 0.0]]), {}).tolist()
        [[0.5, 0.5]]
        """
        shares: Floats = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        return shares

    def decide(self, outputs: Floats, card: Mapping[str, Any]) -> list[str]:
        """Return the most probable class of each row.

        Examples
        --------
        >>> Classes().decide(np.array([[0.2, 0.8]]), {"labels": ["bad", "good"]})
        ['good']
        """
        labels = card["labels"]
        return [labels[best] for best in outputs.argmax(axis=1)]

    def activate_tensor(self, logits: torch.Tensor, card: Mapping[str, Any]) -> torch.Tensor:
        """Return the softmax of each row."""
        import torch

        return torch.softmax(logits, dim=1)

    def list_prediction_fields(self) -> list[tuple[str, pa.DataType]]:
        """Return the class, its probability, those of all classes and their names."""
        import pyarrow as pa

        return [
            ("predicted", pa.string()),
            ("probability", pa.float32()),
            ("probabilities", pa.list_(pa.float32())),
            ("labels", pa.list_(pa.string())),
        ]

    def make_prediction_columns(self, outputs: Floats, card: Mapping[str, Any]) -> list[pa.Array]:
        """Return those columns for probabilities of shape (n_rows, n_labels)."""
        import pyarrow as pa

        count, width = outputs.shape
        best = outputs.argmax(axis=1)
        offsets = pa.array(np.arange(0, (count + 1) * width, width, dtype=np.int32)[: count + 1])
        names = pa.array(list(card["labels"]), pa.string())
        return [
            names.take(pa.array(best)),
            pa.array(outputs[np.arange(count), best]),
            pa.ListArray.from_arrays(offsets, pa.array(outputs.ravel())),
            pa.ListArray.from_arrays(offsets, names.take(pa.array(np.tile(np.arange(width), count)))),
        ]

    def list_frame_fields(self, card: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return the class, its probability and ``p_<class>`` for each class, with their MLflow types.

        Examples
        --------
        >>> Classes().list_frame_fields({"labels": ["bad", "good"]})
        [('predicted', 'string'), ('probability', 'float'), ('p_bad', 'float'), ('p_good', 'float')]
        """
        shares = [f"p_{label}" for label in card["labels"]]
        return [("predicted", "string"), *((name, "float") for name in ("probability", *shares))]

    def make_frame(self, outputs: Floats, card: Mapping[str, Any]) -> pd.DataFrame:
        """Return those columns; a row of NaN has no class."""
        import pandas as pd

        there = ~np.isnan(outputs).any(axis=1)
        labels = np.array(card["labels"], dtype=object)[outputs.argmax(axis=1)]
        labels[~there] = None
        columns: dict[str, Any] = {
            "predicted": pd.Series(labels, dtype=object),
            "probability": outputs.max(axis=1),
        }
        columns |= {f"p_{label}": outputs[:, number] for number, label in enumerate(card["labels"])}
        return pd.DataFrame(columns)

    def find_label_error(self, label: str, card: Mapping[str, Any]) -> str:
        """Return that a label is no class of the model, and which there are."""
        return "" if label in card["labels"] else f"{label[:60]!r} is no class of the model: {name_few(card)}"

    def make_records(self, outputs: Floats, card: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the rows of ``make_frame`` without making it."""
        labels = card["labels"]
        names = [f"p_{label}" for label in labels]
        return [
            {"predicted": labels[best], "probability": row[best], **dict(zip(names, row, strict=True))}
            for best, row in zip(outputs.argmax(axis=1).tolist(), outputs.tolist(), strict=True)
        ]

    def read_records(self, records: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Return what a server answered as the columns of predictions."""
        from dlpipe.task.classes.stored import list_probabilities

        return super().read_records(list_probabilities(records))

    def fit_baseline(
        self, features: Any, rows: Sequence[Row], labels: Sequence[str], *, seed: int, boosted: bool = False
    ) -> ClassBaseline:
        """Return logistic regression over ``features``."""
        from dlpipe.task.classes.baseline import fit_class_baseline

        return fit_class_baseline(features, rows, labels, seed=seed, boosted=boosted)

    def evaluate(
        self,
        outputs: Floats,
        labels: Sequence[str],
        *,
        names: Sequence[str],
        decision: Mapping[str, Any],
        **options: Any,
    ) -> ClassEvaluation:
        """Return accuracy, macro F1, AUROC, log loss and calibration error of probabilities."""
        from dlpipe.task.classes.evaluation import evaluate_classes

        return evaluate_classes(outputs, labels, names, **options)

    def find_known_rows(self, labels: Sequence[str], names: Sequence[str]) -> tuple[Sequence[int], dict[str, int]]:
        """Return the places of the rows whose class is among ``names``, and the other classes.

        Examples
        --------
        >>> Classes().find_known_rows(["good", "new", "bad", "new"], ["bad", "good"])
        ([0, 2], {'new': 2})
        """
        unknown = Counter(label for label in labels if label not in names)
        return [at for at, label in enumerate(labels) if label in names], dict(sorted(unknown.items()))

    def check_thresholds(self, thresholds: Thresholds, names: Sequence[str]) -> None:
        """Raise ``SettingError`` where ``min_recall`` names a class that is none."""
        check_classes(as_class_thresholds(thresholds), names)

    def make_checks(self, evaluation: Evaluation, thresholds: Thresholds) -> Iterator[Check]:
        """Yield the bounds, those of the recall of classes, and whether classes are told apart at all."""
        made = as_class_evaluation(evaluation)
        yield from super().make_checks(evaluation, thresholds)
        yield from check_recalls(made, as_class_thresholds(thresholds).min_recall or {})
        yield check_majority(made)

    def describe(self, evaluation: Evaluation) -> str:
        """Return the recall of each class in words."""
        return describe_recalls(as_class_evaluation(evaluation))

    def measure_recalls(self, evaluation: Evaluation) -> Mapping[str, float]:
        """Return the recall of each class that the rows have."""
        return compute_recalls(as_class_evaluation(evaluation))

    def make_tables(self, evaluation: Evaluation, baseline: Evaluation) -> list[ScoreTable]:
        """Return the scores of each class, the confusion matrix and the most frequent confusions."""
        from dlpipe.task.classes.tables import tabulate_classes, tabulate_confusion, tabulate_confusions

        made, plain = as_class_evaluation(evaluation), as_class_evaluation(baseline)
        tables = [tabulate_classes(made, plain), tabulate_confusion(made)]
        confusions = tabulate_confusions(made)
        return [*tables, confusions] if len(made.labels) > 2 and confusions.rows else tables

    def draw_figures(self, evaluation: Evaluation, baseline: Evaluation) -> list[tuple[str, Figure]]:
        """Return the calibration."""
        from dlpipe.task.classes.figures import make_calibration_figure

        made, plain = as_class_evaluation(evaluation), as_class_evaluation(baseline)
        return [("Calibration", make_calibration_figure(made, plain))]

    def resample_metrics(
        self,
        counts: Floats,
        outputs: Floats,
        labels: Sequence[str],
        *,
        names: Sequence[str],
        decision: Mapping[str, Any],
    ) -> Mapping[str, Floats]:
        """Return accuracy, macro F1, AUROC, log loss and calibration error in each resample."""
        from dlpipe.task.classes.measures import index_labels, normalize_probabilities
        from dlpipe.task.classes.resampling import resample_metrics

        return resample_metrics(counts, normalize_probabilities(outputs), index_labels(labels, names))

    def list_groups(self, label: str) -> Sequence[str]:
        """Return the class."""
        return (label,)

    def read_outputs(self, predictions: pa.Table, names: Sequence[str]) -> Floats:
        """Return the probabilities of the classes that ``names`` has."""
        from dlpipe.task.classes.stored import read_probabilities

        return read_probabilities(predictions, names)

    def measure_sureness(self, predictions: pa.Table) -> list[float]:
        """Return the probability of the predicted class."""
        return [float(value) for value in predictions["probability"].to_pylist()]

    def make_prediction_series(self, predictions: pa.Table) -> list[DriftSeries]:
        """Return each row's probability, of two classes that of the last and else of the predicted, and its class.

        They are two series with two names, ``p_<label>`` as in frames and ``probability``: one table has the looks
        of models of both kinds.
        """
        rows = predictions.select(["predicted", "probability", "probabilities", "labels"]).to_pylist()
        predicted = DriftSeries("predicted", "the predicted labels", [row["predicted"] for row in rows])
        if any(len(row["labels"]) == 2 for row in rows[:1]):
            last = rows[0]["labels"][-1]
            shares = [float(row["probabilities"][-1]) for row in rows]
            return [DriftSeries(f"p_{last}", f"the predicted probability of {last!r}", shares), predicted]
        shares = [float(row["probability"]) for row in rows]
        return [DriftSeries("probability", "the predicted probability", shares), predicted]


def as_class_evaluation(evaluation: Evaluation) -> ClassEvaluation:
    """Return ``evaluation``, which is of classes."""
    if not isinstance(evaluation, ClassEvaluation):
        raise TypeError(f"classes are judged by a ClassEvaluation, not a {type(evaluation).__name__}")
    return evaluation


def as_class_thresholds(thresholds: Thresholds) -> ClassThresholds:
    """Return ``thresholds``, which are of classes."""
    if not isinstance(thresholds, ClassThresholds):
        raise TypeError(f"classes are judged by ClassThresholds, not {type(thresholds).__name__}")
    return thresholds


def compute_macro_f1(truth: torch.Tensor, guess: torch.Tensor) -> float:
    """Return what scikit-learn's ``f1_score`` does; importing that takes longer than many a trial."""
    import torch

    right, wanted, given = (
        torch.bincount(each, minlength=int(torch.cat([truth, guess]).max()) + 1).double()
        for each in (truth[truth == guess], truth, guess)
    )
    seen = wanted + given > 0
    return float((2 * right[seen] / (wanted + given)[seen]).mean())
