"""Labels: the half of a task that predicts several labels a row, or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlpipe.tables import Label, parse_label
from dlpipe.task.classes.chance import estimate_f1_error
from dlpipe.task.evaluation import Evaluation, ScoreTable
from dlpipe.task.gate import Check, Thresholds
from dlpipe.task.labels.gate import LabelThresholds, check_constant, describe_recalls, name_labels
from dlpipe.task.labels.scores import (
    LabelEvaluation,
    compute_losses,
    compute_recalls,
    encode_truth,
    evaluate_labels,
    format_labels,
    resample_metrics,
)
from dlpipe.task.labels.thresholds import find_thresholds
from dlpipe.task.predictor import Row
from dlpipe.task.protocol import Chance, Coding, DriftSeries, Target, name_few

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd
    import pyarrow as pa
    import torch

    from dlpipe.task.labels.baseline import LabelBaseline

    Floats = npt.NDArray[np.floating[Any]]


class Labels(Target):
    """Any number of labels a row; outputs are the probability of each, in the sorted order of their names.

    A label is given from its own threshold on, which is chosen on the valid split.
    """

    deciding_metric = "val_f1"
    headline = "macro_f1"
    gate = LabelThresholds
    lower_is_better = frozenset({"log_loss"})
    right_row_metrics = frozenset({"exact_match"})
    has_decision = True
    output_kind = "probabilities"

    def learn_coding(self, labels: Sequence[Sequence[str]]) -> Coding:
        """Return all labels that a row has, sorted."""
        return Coding(tuple(sorted({label for row in labels for label in row})))

    def encode_labels(self, labels: Sequence[Sequence[str]], coding: Coding) -> np.ndarray:
        """Return 1 where a row has a label: float32 (n_rows, n_labels). One that train lacks is left out."""
        place = {label: number for number, label in enumerate(coding.outputs)}
        made = np.zeros((len(labels), len(place)), np.float32)
        for row, given in enumerate(labels):
            made[row, [place[label] for label in given if label in place]] = 1
        return made

    def compute_loss(self, logits: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        """Return the mean binary cross-entropy in nats."""
        import torch

        return torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), encoded)

    def score_epoch(self, logits: torch.Tensor, encoded: torch.Tensor) -> dict[str, float]:
        """Return ``val_loss``, and macro ``val_f1`` with the best threshold for each label."""
        outputs, truth = self.activate(logits.cpu().numpy(), {}), encoded.cpu().numpy()
        _, f1 = find_thresholds(outputs, truth)
        known = truth.any(axis=0)
        return {
            "val_loss": float(self.compute_loss(logits, encoded)),
            "val_f1": float(f1[known].mean()) if known.any() else 0.0,
        }

    def measure_chance(self, encoded: np.ndarray) -> Chance:
        """Return the macro F1 of giving each label always: no constant answer has more."""
        rows = encoded.sum(axis=0)
        shares = rows[rows > 0] / len(encoded)
        guess = float((2 * shares / (1 + shares)).mean()) if len(shares) else 0.0
        counts = [int(count) for count in rows]
        judged = len(encoded) if len(shares) else 0  # without any label no score says anything
        return Chance(guess, lambda score: estimate_f1_error(score, counts), judged, "macro F1")

    def learn_decision(self, outputs: Floats, encoded: np.ndarray, coding: Coding) -> dict[str, Any]:
        """Return under ``thresholds`` from which probability on each label is given."""
        # on the valid split, though it also chose the epoch: small data sets cannot spare a fourth one
        thresholds, _ = find_thresholds(outputs, encoded)
        return {"thresholds": dict(zip(coding.outputs, thresholds.tolist(), strict=True))}

    def doubt_decision(self, encoded: np.ndarray, coding: Coding) -> str:
        """Return which labels no valid row has, so that there is nothing to choose their thresholds by.

        Examples
        --------
        >>> Labels().doubt_decision(np.array([[1, 0], [1, 0]]), Coding(("drama", "war")))
        "no row of the valid split has 'war': given from a probability of 0.5 on, which nothing has chosen"
        """
        rows = encoded.sum(axis=0)
        absent = [label for label, count in zip(coding.outputs, rows, strict=True) if not count]
        if not absent:
            return ""
        return (
            f"no row of the valid split has {name_labels(absent)}: given from a probability of 0.5 on, which "
            "nothing has chosen"
        )

    def activate(self, logits: Floats, card: Mapping[str, Any]) -> Floats:
        """Return the sigmoid of each number.

        Examples
        --------
        >>> Labels().activate(np.array([[0.0, 800.0, -800.0]]), {}).tolist()
        [[0.5, 1.0, 0.0]]
        """
        made: Floats = (1 + np.tanh(logits / 2)) / 2  # exact and finite at both ends
        return made

    def activate_tensor(self, logits: torch.Tensor, card: Mapping[str, Any]) -> torch.Tensor:
        """Return the sigmoid of each number."""
        return logits.sigmoid()

    def decide(self, outputs: Floats, card: Mapping[str, Any]) -> list[list[str]]:
        """Return the labels that each row is given, by the thresholds of the card."""
        names = np.array(card["labels"], dtype=object)
        return [names[row].tolist() for row in outputs >= get_thresholds(card)]

    def measure_accuracy(self, outputs: Floats, labels: Sequence[Sequence[str]], card: Mapping[str, Any]) -> float:
        """Return the share of rows that are given exactly their labels."""
        given = self.decide(outputs, card)
        return sum({*own} == {*true} for own, true in zip(given, labels, strict=True)) / len(outputs)

    def list_prediction_fields(self) -> list[tuple[str, pa.DataType]]:
        """Return the labels given, the probability of each, and their names."""
        import pyarrow as pa

        return [
            ("predicted", pa.list_(pa.string())),
            ("probabilities", pa.list_(pa.float32())),
            ("labels", pa.list_(pa.string())),
        ]

    def make_prediction_columns(self, outputs: Floats, card: Mapping[str, Any]) -> list[pa.Array]:
        """Return those columns for probabilities of shape (n_rows, n_labels)."""
        import pyarrow as pa

        columns = [self.decide(outputs, card), outputs.tolist(), [list(card["labels"])] * len(outputs)]
        return [
            pa.array(values, kind)
            for values, (_, kind) in zip(columns, self.list_prediction_fields(), strict=True)
        ]

    def list_frame_fields(self, card: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return the labels given and ``p_<label>`` for each label, with their MLflow types."""
        return [("predicted", "string[]"), *((f"p_{label}", "float") for label in card["labels"])]

    def make_frame(self, outputs: Floats, card: Mapping[str, Any]) -> pd.DataFrame:
        """Return those columns; a row of NaN has no labels at all, not even an empty list."""
        import pandas as pd

        missing: list[bool] = np.isnan(outputs).any(axis=1).tolist()  # type: ignore[assignment]
        labels = [None if missing[row] else given for row, given in enumerate(self.decide(outputs, card))]
        columns: dict[str, Any] = {"predicted": pd.Series(labels, dtype=object)}
        columns |= {f"p_{label}": outputs[:, number] for number, label in enumerate(card["labels"])}
        return pd.DataFrame(columns)

    def find_label_error(self, label: str, card: Mapping[str, Any]) -> str:
        """Return which of several labels the model does not know, and which there are."""
        given = parse_label(label, Label(("label",), "labels"))
        if given is None:
            return f"{label[:60]!r} is no list of labels."
        unknown = [one for one in given if one not in card["labels"]]
        return f"{unknown[0][:60]!r} is no label of the model: {name_few(card)}" if unknown else ""

    def make_records(self, outputs: Floats, card: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the rows of ``make_frame`` without making it."""
        names = [f"p_{label}" for label in card["labels"]]
        return [
            {"predicted": given, **dict(zip(names, row, strict=True))}
            for given, row in zip(self.decide(outputs, card), outputs.tolist(), strict=True)
        ]

    def read_records(self, records: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Return what a server answered as the columns of predictions."""
        from dlpipe.task.classes.stored import list_probabilities

        return super().read_records(list_probabilities(records))

    def fit_baseline(
        self,
        features: Any,
        rows: Sequence[Row],
        labels: Sequence[Sequence[str]],
        *,
        seed: int,
        boosted: bool = False,
    ) -> LabelBaseline:
        """Return a logistic regression for each label over ``features``."""
        from dlpipe.task.labels.baseline import fit_label_baseline

        coding = self.learn_coding(labels)
        truth = self.encode_labels(labels, coding)
        return fit_label_baseline(features, rows, truth, coding.outputs, seed=seed, boosted=boosted)

    def evaluate(
        self,
        outputs: Floats,
        labels: Sequence[Sequence[str]],
        *,
        names: Sequence[str],
        decision: Mapping[str, Any],
        **options: Any,
    ) -> LabelEvaluation:
        """Return macro and micro F1, the share of exactly right rows, and the log loss."""
        thresholds = get_thresholds({"labels": names, "decision": decision})
        return evaluate_labels(outputs, labels, names, thresholds=thresholds, **options)

    def find_known_rows(
        self, labels: Sequence[Sequence[str]], names: Sequence[str]
    ) -> tuple[Sequence[int], dict[str, int]]:
        """Return the places of the rows all of whose labels are among ``names``, and the other labels."""
        unknown = Counter(label for row in labels for label in row if label not in names)
        return [at for at, row in enumerate(labels) if {*row} <= {*names}], dict(sorted(unknown.items()))

    def make_checks(self, evaluation: Evaluation, thresholds: Thresholds) -> Iterator[Check]:
        """Yield the bounds, and whether labels are told apart at all."""
        yield from super().make_checks(evaluation, thresholds)
        yield check_constant(as_label_evaluation(evaluation))

    def describe(self, evaluation: Evaluation) -> str:
        """Return the recall of each label in words."""
        return describe_recalls(as_label_evaluation(evaluation))

    def measure_recalls(self, evaluation: Evaluation) -> Mapping[str, float]:
        """Return the recall of each label that a row has."""
        return compute_recalls(as_label_evaluation(evaluation))

    def make_tables(self, evaluation: Evaluation, baseline: Evaluation) -> list[ScoreTable]:
        """Return the scores of each label."""
        from dlpipe.task.labels.tables import tabulate_label_scores

        return [tabulate_label_scores(as_label_evaluation(evaluation), as_label_evaluation(baseline))]

    def resample_metrics(
        self,
        counts: Floats,
        outputs: Floats,
        labels: Sequence[Sequence[str]],
        *,
        names: Sequence[str],
        decision: Mapping[str, Any],
    ) -> Mapping[str, Floats]:
        """Return macro and micro F1, the share of exactly right rows, and the log loss in each resample."""
        ids = [""] * len(labels)
        known = encode_truth(labels, names, outputs, ids, ids)
        given = (outputs >= get_thresholds({"labels": names, "decision": decision})).astype(np.float64)
        return resample_metrics(counts, known, given, compute_losses(outputs, known))

    def measure_row_errors(
        self,
        outputs: Floats,
        labels: Sequence[Sequence[str]],
        *,
        names: Sequence[str],
        decision: Mapping[str, Any],
    ) -> Floats:
        """Return how many labels of each row are missing, or are given though the row lacks them."""
        given = self.decide(outputs, {"labels": names, "decision": decision})
        return np.array([float(len({*own} ^ {*true})) for own, true in zip(given, labels, strict=True)])

    def list_groups(self, label: Sequence[str]) -> Sequence[str]:
        """Return the labels of the row."""
        return label

    def read_outputs(self, predictions: pa.Table, names: Sequence[str]) -> Floats:
        """Return the probabilities of the labels that ``names`` has."""
        from dlpipe.task.classes.stored import read_probabilities

        return read_probabilities(predictions, names)

    def format_label(self, label: Sequence[str]) -> str:
        """Return the labels in one line; a word where there is none."""
        return format_labels(label)

    def measure_sureness(self, predictions: pa.Table) -> list[float]:
        """Return how far the label that is least sure is from a coin: the probability of it, or of its absence."""
        rows = predictions["probabilities"].to_pylist()
        return [min((max(value, 1 - value) for value in row), default=1.0) for row in rows]

    def make_prediction_series(self, predictions: pa.Table) -> list[DriftSeries]:
        """Return how many labels each row is given, and which, as one word."""
        given = predictions["predicted"].to_pylist()
        return [
            DriftSeries("predicted_count", "the number of predicted labels", list(map(float, map(len, given)))),
            DriftSeries("predicted", "the predicted labels", [", ".join(labels) or "none" for labels in given]),
        ]

    def score_predictions(self, predictions: pa.Table, labels: Sequence[Sequence[str]]) -> list[float]:
        """Return 1 for each row that is given exactly its labels, and 0 elsewhere."""
        predicted = predictions["predicted"].to_pylist()
        return [float({*own} == {*true}) for own, true in zip(predicted, labels, strict=True)]


def get_thresholds(card: Mapping[str, Any]) -> Floats:
    """Return the threshold of each label of the card, in the order of its outputs."""
    known = card.get("decision", {}).get("thresholds", {})
    return np.array([known.get(label, 0.5) for label in card["labels"]])


def as_label_evaluation(evaluation: Evaluation) -> LabelEvaluation:
    """Return ``evaluation``, which is of labels."""
    if not isinstance(evaluation, LabelEvaluation):
        raise TypeError(f"labels are judged by a LabelEvaluation, not a {type(evaluation).__name__}")
    return evaluation
