"""Numbers: the half of a task that predicts a number a row, with an interval."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlpipe.tables import Label, parse_label
from dlpipe.task.evaluation import Evaluation, ScoreTable
from dlpipe.task.gate import Check, Thresholds
from dlpipe.task.numbers.gate import NumberThresholds, check_constant
from dlpipe.task.numbers.intervals import bound_coverage, compute_halfwidth, count_needed_rows
from dlpipe.task.numbers.scores import NumberEvaluation, check_numbers, evaluate_numbers, resample_metrics
from dlpipe.task.predictor import Row
from dlpipe.task.protocol import Chance, Coding, DriftSeries, Target
from dlpipe.task.quality import Quality, compare_errors

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd
    import pyarrow as pa
    import torch
    from matplotlib.figure import Figure

    from dlpipe.task.numbers.baseline import NumberBaseline

    Floats = npt.NDArray[np.floating[Any]]

COVERAGE = 0.9
"""The share of rows whose number is to lie in its interval."""
INTERVAL = ("predicted", "low", "high")
"""The columns of a prediction."""


class Numbers(Target):
    """A number a row; the one output, ``value``, is that number in its own unit.

    The network learns it scaled to mean 0 and deviation 1 of the train split. Intervals come from the absolute
    errors on the valid split, which also chose the epoch: they are a little narrow, and an evaluation says how
    many rows of the test split they hold.
    """

    deciding_metric = "val_r2"
    headline = "mae"
    gate = NumberThresholds
    lower_is_better = frozenset({"mae", "rmse"})
    has_decision = True
    has_right_rows = False
    output_kind = "numbers"

    def learn_coding(self, labels: Sequence[float]) -> Coding:
        """Return the mean and the deviation of the numbers."""
        numbers = np.asarray(labels, np.float64)
        # a deviation of 0 divides nothing: then all labels are the same, and 1 leaves them at 0
        return Coding(("value",), {"mean": float(numbers.mean()), "deviation": float(numbers.std()) or 1.0})

    def encode_labels(self, labels: Sequence[float], coding: Coding) -> np.ndarray:
        """Return the scaled numbers: float32 of shape (n_rows,)."""
        numbers = np.asarray(labels, np.float64)
        return ((numbers - coding.more["mean"]) / coding.more["deviation"]).astype(np.float32)

    def compute_loss(self, logits: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        """Return the mean squared error of scaled numbers."""
        import torch

        return torch.nn.functional.mse_loss(logits.float().squeeze(1), encoded)

    def score_epoch(self, logits: torch.Tensor, encoded: torch.Tensor) -> dict[str, float]:
        """Return ``val_loss`` and ``val_r2``, the share of the variance that is explained."""
        loss = float(self.compute_loss(logits, encoded))
        variance = float(encoded.var(unbiased=False)) or math.nan
        return {"val_loss": loss, "val_r2": 1 - loss / variance}

    def measure_chance(self, encoded: np.ndarray) -> Chance:
        """Return the R2 of always answering the mean, which is 0, and how sure an R2 is on these rows."""
        rows = len(encoded)

        def error(score: float) -> float:
            # of a squared correlation (Cohen and others, "Applied Multiple Regression", 2003); not 0 at 0
            r2 = min(max(score, 1 / rows), 1.0)
            return math.sqrt(4 * r2 * (1 - r2) ** 2 / rows)

        return Chance(0.0, error, rows, "R2")

    def learn_decision(self, outputs: Floats, encoded: np.ndarray, coding: Coding) -> dict[str, Any]:
        """Return under ``halfwidth`` how far an interval reaches to either side, for ``coverage`` of the rows.

        Fewer than nine rows cannot promise ``COVERAGE``; ``coverage`` is what they can.
        """
        # on the valid split, though it also chose the epoch: small data sets cannot spare a fourth one. Measured:
        # intervals that promise 90 % held 87 to 90 % of the rows of test splits
        truth = encoded.astype(np.float64) * coding.more["deviation"] + coding.more["mean"]
        halfwidth = compute_halfwidth(np.abs(outputs[:, 0] - truth), coverage=COVERAGE)
        return {"halfwidth": halfwidth, "coverage": bound_coverage(len(truth), coverage=COVERAGE)}

    def doubt_decision(self, encoded: np.ndarray, coding: Coding) -> str:
        """Return which coverage the intervals have instead of ``COVERAGE`` where there are too few valid rows.

        Examples
        --------
        >>> Numbers().doubt_decision(np.zeros(4), Coding(("value",)))
        'intervals hold about 80% of new rows, not 90%: the valid split has 4 rows, and that takes 9'
        """
        rows = len(encoded)
        if (reached := bound_coverage(rows, coverage=COVERAGE)) == COVERAGE:
            return ""
        return (
            f"intervals hold about {reached:.0%} of new rows, not {COVERAGE:.0%}: the valid split has {rows} "
            f"{'row' if rows == 1 else 'rows'}, and that takes {count_needed_rows(COVERAGE)}"
        )

    def activate(self, logits: Floats, card: Mapping[str, Any]) -> Floats:
        """Return the numbers in their own unit.

        Examples
        --------
        >>> Numbers().activate(np.array([[2.0]]), {"decision": {"mean": 5.0, "deviation": 0.5}}).tolist()
        [[6.0]]
        """
        scale = card["decision"]
        made: Floats = logits * scale["deviation"] + scale["mean"]
        return made

    def activate_tensor(self, logits: torch.Tensor, card: Mapping[str, Any]) -> torch.Tensor:
        """Return the numbers in their own unit."""
        scale = card["decision"]
        return logits * scale["deviation"] + scale["mean"]

    def decide(self, outputs: Floats, card: Mapping[str, Any]) -> list[float]:
        """Return the numbers."""
        numbers: list[float] = outputs[:, 0].astype(np.float64).tolist()
        return numbers

    def measure_accuracy(self, outputs: Floats, labels: Sequence[float], card: Mapping[str, Any]) -> float:
        """Return the share of rows whose number lies in the interval around the predicted one."""
        errors = np.abs(outputs[:, 0] - np.asarray(labels, np.float64))
        return float((errors <= card["decision"]["halfwidth"]).mean())

    def measure_agreement(self, outputs: Floats, others: Floats, card: Mapping[str, Any]) -> float:
        """Return the share of rows on which two predicted numbers are within a hundredth of their spread."""
        return float((np.abs(outputs - others) <= self.get_output_scale(card) / 100).mean())

    def get_output_scale(self, card: Mapping[str, Any]) -> float:
        """Return the deviation of the numbers of the train split."""
        return float(card["decision"]["deviation"])

    def list_prediction_fields(self) -> list[tuple[str, pa.DataType]]:
        """Return the number and its interval."""
        import pyarrow as pa

        return [(name, pa.float64()) for name in INTERVAL]

    def make_prediction_columns(self, outputs: Floats, card: Mapping[str, Any]) -> list[pa.Array]:
        """Return those columns for numbers of shape (n_rows, 1)."""
        import pyarrow as pa

        return [pa.array(values, pa.float64()) for values in self._interval(outputs, card)]

    def list_frame_fields(self, card: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return the number and its interval, with their MLflow types."""
        return [(name, "double") for name in INTERVAL]

    def make_frame(self, outputs: Floats, card: Mapping[str, Any]) -> pd.DataFrame:
        """Return those columns."""
        import pandas as pd

        return pd.DataFrame(dict(zip(INTERVAL, self._interval(outputs, card), strict=True)))

    def find_label_error(self, label: str, card: Mapping[str, Any]) -> str:
        """Return that a label is no number."""
        given = parse_label(label, Label(("label",), "number"))
        return "" if given is not None and math.isfinite(given) else f"{label[:60]!r} is no number."

    def make_records(self, outputs: Floats, card: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the rows of ``make_frame`` without making it."""
        columns = [values.tolist() for values in self._interval(outputs, card)]
        return [dict(zip(INTERVAL, row, strict=True)) for row in zip(*columns, strict=True)]

    def _interval(self, outputs: Floats, card: Mapping[str, Any]) -> tuple[Floats, Floats, Floats]:
        value = outputs[:, 0].astype(np.float64)
        halfwidth = card["decision"]["halfwidth"]
        return value, value - halfwidth, value + halfwidth

    def fit_baseline(
        self, features: Any, rows: Sequence[Row], labels: Sequence[float], *, seed: int, boosted: bool = False
    ) -> NumberBaseline:
        """Return ridge regression over ``features``."""
        from dlpipe.task.numbers.baseline import fit_number_baseline

        return fit_number_baseline(features, rows, labels, seed=seed, boosted=boosted, coverage=COVERAGE)

    def evaluate(
        self,
        outputs: Floats,
        labels: Sequence[float],
        *,
        names: Sequence[str],
        decision: Mapping[str, Any],
        **options: Any,
    ) -> NumberEvaluation:
        """Return errors, the share of the variance explained, the rank correlation, the coverage of intervals."""
        halfwidth = float(decision.get("halfwidth", math.nan))
        promised = float(decision.get("coverage", math.nan))
        return evaluate_numbers(outputs, labels, halfwidth=halfwidth, promised=promised, **options)

    def make_checks(self, evaluation: Evaluation, thresholds: Thresholds) -> Iterator[Check]:
        """Yield the bounds, and whether the model says more than the mean does."""
        yield from super().make_checks(evaluation, thresholds)
        yield check_constant(as_number_evaluation(evaluation))

    def make_tables(self, evaluation: Evaluation, baseline: Evaluation) -> list[ScoreTable]:
        """Return errors by how large the number is."""
        from dlpipe.task.numbers.tables import tabulate_errors

        return [tabulate_errors(as_number_evaluation(evaluation), as_number_evaluation(baseline))]

    def draw_figures(self, evaluation: Evaluation, baseline: Evaluation) -> list[tuple[str, Figure]]:
        """Return predicted against true numbers, and how large the errors are."""
        from dlpipe.task.numbers.figures import make_error_figure, make_scatter_figure

        made, plain = as_number_evaluation(evaluation), as_number_evaluation(baseline)
        return [("Predicted and true", make_scatter_figure(made)), ("Errors", make_error_figure(made, plain))]

    def resample_metrics(
        self,
        counts: Floats,
        outputs: Floats,
        labels: Sequence[float],
        *,
        names: Sequence[str],
        decision: Mapping[str, Any],
    ) -> Mapping[str, Floats]:
        """Return errors, the share of the variance explained, rank correlation and coverage in each resample."""
        ids = [""] * len(labels)
        predicted, true = check_numbers(outputs, labels, ids, ids)
        return resample_metrics(counts, predicted, true, float(decision.get("halfwidth", math.nan)))

    def measure_row_errors(
        self, outputs: Floats, labels: Sequence[float], *, names: Sequence[str], decision: Mapping[str, Any]
    ) -> Floats:
        """Return the absolute error of each row."""
        errors: Floats = np.abs(outputs[:, 0].astype(np.float64) - np.asarray(labels, np.float64))
        return errors

    def read_outputs(self, predictions: pa.Table, names: Sequence[str]) -> Floats:
        """Return the predicted numbers."""
        numbers: Floats = predictions["predicted"].to_numpy()[:, None]
        return numbers

    def format_label(self, label: float) -> str:
        """Return the number with four digits."""
        return f"{label:.4g}"

    def make_prediction_series(self, predictions: pa.Table) -> list[DriftSeries]:
        """Return the numbers."""
        return [DriftSeries("predicted", "the predicted number", predictions["predicted"].to_pylist())]

    def score_predictions(self, predictions: pa.Table, labels: Sequence[float]) -> list[float]:
        """Return the absolute error of each prediction."""
        predicted = predictions["predicted"].to_pylist()
        return [abs(own - true) for own, true in zip(predicted, labels, strict=True)]

    def compare_quality(self, scores: Sequence[float], test_scores: Sequence[float]) -> Quality:
        """Return the mean absolute error of new rows beside that of the test split."""
        return compare_errors(scores, test_scores)


def as_number_evaluation(evaluation: Evaluation) -> NumberEvaluation:
    """Return ``evaluation``, which is of numbers."""
    if not isinstance(evaluation, NumberEvaluation):
        raise TypeError(f"numbers are judged by a NumberEvaluation, not a {type(evaluation).__name__}")
    return evaluation
