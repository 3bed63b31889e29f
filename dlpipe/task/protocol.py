"""The seam: what a task says. All that dlpipe does knows these names, and no task's folder.

A task has two halves. ``Inputs`` knows what is read: the columns of a row, how rows become batches of a network,
which network that is, how rows are explained. ``Target`` knows what is predicted: labels, losses, scores, how a
prediction looks. Text classification is texts as inputs and one class of several as target; most new tasks are an
old half with a new one.

Between the two stand *outputs*: float32 of shape (n_rows, n_outputs), whatever the task. Of one class of several
they are probabilities, of several labels a probability for each, of a number that number.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

from dlpipe.errors import ExplanationError
from dlpipe.task.evaluation import Evaluation
from dlpipe.task.gate import Check, Thresholds, bound_checks
from dlpipe.task.predictor import Predictor, Row
from dlpipe.task.quality import Quality, compare_shares
from dlpipe.task.row_parts import PartAttributions, RowParts

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    import pyarrow as pa
    import torch
    from matplotlib.figure import Figure

    from dlpipe.tables import TableSettings, TableVersion
    from dlpipe.task.batches import EncodedRows
    from dlpipe.task.columns import Suggest
    from dlpipe.task.model import Model
    from dlpipe.task.settings import TrainingSettings

    Floats = npt.NDArray[np.floating[Any]]

Say = Callable[[str], None]
OutputKind = Literal["shares", "probabilities", "numbers"]


@dataclass(frozen=True)
class Task:
    """What is learnt: a name, as settings files write it, and its two halves.

    Attributes
    ----------
    name : str
        Such as ``text-classification``; the entry point of the group ``dlpipe.tasks`` has the same.
    data : type
        The section ``[data]``: a dataclass that adds the names of columns to ``TableSettings`` and whose ``form``
        says what a row of the table is.
    suggest : callable, optional
        Which columns of a file are meant, for `dlpipe init`: takes the first rows and the settings of ``[data]``
        that are known, and returns all that name columns.
    """

    name: str
    inputs: Inputs
    target: Target
    data: type[TableSettings]
    suggest: Suggest | None = None

    def fit_baseline(self, rows: Sequence[Row], labels: Sequence[Any], *, seed: int) -> Baseline:
        """Return the plain model that a network has to beat, fitted to rows and their labels."""
        features = self.inputs.make_featurizer(rows)
        return self.target.fit_baseline(features, rows, labels, seed=seed, boosted=self.inputs.boosted)


@dataclass(frozen=True)
class Coding:
    """What a target has learnt of the labels of the train split, before any network.

    Attributes
    ----------
    outputs : tuple of str
        The names of the network's outputs: classes, labels, or ``("value",)``.
    more : mapping
        Numbers that JSON can hold, such as the mean by which a target is scaled; in a model's card they stand
        under ``decision``.
    """

    outputs: tuple[str, ...]
    more: Mapping[str, Any] = field(default_factory=dict)


CONFIDENCE = 0.95


@dataclass(frozen=True)
class Chance:
    """What guessing gives on the valid split, in the score that decides.

    Attributes
    ----------
    guess : float
        The score of guessing.
    error : callable
        Takes a score and returns about its standard error on these rows.
    rows : int
    words : str
        What the score is called in a sentence, such as ``macro F1``.
    """

    guess: float
    error: Callable[[float], float]
    rows: int
    words: str

    def bound_guess(self, *, confidence: float = CONFIDENCE, comparisons: int = 1) -> float:
        """Return the score that guessing hardly exceeds, the best of some tries."""
        return self.guess + self.bound_difference(
            self.error(self.guess), confidence=confidence, comparisons=comparisons
        )

    @staticmethod
    def bound_difference(error: float, *, confidence: float, comparisons: int) -> float:
        """Return how large the largest of so many differences may be by chance (Bonferroni's correction).

        Examples
        --------
        >>> [round(Chance.bound_difference(1.0, confidence=0.95, comparisons=number), 2) for number in (1, 3)]
        [1.64, 2.13]
        """
        return error * NormalDist().inv_cdf(1 - (1 - confidence) / comparisons)


@dataclass(frozen=True)
class DriftSeries:
    """Values that can be compared between old rows and new ones, to see whether they drift.

    Attributes
    ----------
    name : str
        Of the signal, a word, such as ``length``.
    words : str
        What is compared, as a sentence goes on: ``words in a text``.
    values : sequence of float, or of str
        One for each row: numbers are compared by their distribution, strings by how often each stands there.
    """

    name: str
    words: str
    values: Sequence[float] | Sequence[str]


class Baseline(ABC):
    """A fitted plain model."""

    @property
    def decision(self) -> Mapping[str, Any]:
        """What turns its outputs into decisions, as a model's card has it."""
        return {}

    @abstractmethod
    def predict_outputs(self, rows: Sequence[Row], *, outputs: Sequence[str] | None = None) -> Floats:
        """Return outputs of shape (n_rows, n_outputs), columns in the order of ``outputs``, by default its own."""


class Inputs(ABC):
    """What a task reads: rows of a table, and the networks that read them."""

    training: type[TrainingSettings]
    """The section ``[training]``."""
    one_text: bool = False
    """Whether a row is one text: a pipeline cleans it and tells its language before a model reads it."""
    packages: tuple[str, ...] = ()
    """The distributions that opening and using a model needs, beside those of every model (torch and numpy)."""

    # rows ------------------------------------------------------------------------------------------------

    @abstractmethod
    def find_columns(self, table: TableVersion, card: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        """Return the columns of the table that a model reads: the one with this card, or one trained on the table.

        Raises
        ------
        SchemaMismatch
            When one is missing or has values of another type; the message says how to mend it.
        """

    @abstractmethod
    def read_rows(self, rows: pa.Table | pa.RecordBatch) -> list[Row]:
        """Return the rows of a table with those columns, in its order."""

    def deduplicate_rows(self, rows: pa.Table) -> tuple[list[Row], np.ndarray]:
        """Return the different rows of a table with those columns and, for each row, the number of its own.

        So that what stands there many times is predicted once. By default rows are the same whose columns are.
        """
        from dlpipe.task.distinct import number_rows

        first, which = number_rows(rows)
        return self.read_rows(rows.take(first)), which

    @abstractmethod
    def read_request(self, given: Any, card: Mapping[str, Any]) -> list[Row]:
        """Return the rows in what MLflow's ``predict`` or a client gives: frames, records, lists, one value.

        A row that is missing is ``None``. ``card`` is that of the model that is to read them.

        Raises
        ------
        SettingError
            When it holds something else; the message says what to pass.
        """

    @abstractmethod
    def format_row(self, row: Row) -> str:
        """Return the row as people read it, for cards and lists of mistakes."""

    @abstractmethod
    def make_example(self, rows: Sequence[Row]) -> pd.DataFrame:
        """Return rows as the input example that is kept with a registered model; ``read_request`` reads it."""

    # training --------------------------------------------------------------------------------------------

    def check_settings(self, settings: TrainingSettings) -> None:
        """Raise where a training with these settings cannot begin, such as ``BackboneNotFound``."""
        return None

    def make_encoding_key(self, settings: TrainingSettings) -> tuple[Any, ...]:
        """Return the settings that decide what is encoded: trainings with the same ones share it."""
        return ()

    @abstractmethod
    def encode_splits(
        self, table: TableVersion, splits: Sequence[str], settings: TrainingSettings, *, say: Say
    ) -> dict[str, EncodedRows]:
        """Return what the network reads of each split, in the order of its rows; kept beside the table at best."""

    @abstractmethod
    def build_network(self, encoded: EncodedRows, coding: Coding, settings: TrainingSettings) -> torch.nn.Module:
        """Return a network with ``encoder`` (what strategies freeze, if any) and as many outputs as ``coding``.

        Weights are drawn from torch's current seed. Its ``forward`` takes what ``EncodedRows.batch`` returns.
        """

    @abstractmethod
    def assemble_model(
        self,
        network: torch.nn.Module,
        encoded: EncodedRows,
        settings: TrainingSettings,
        card: Mapping[str, Any],
    ) -> Model:
        """Return the trained network as files; ``card`` goes into its card, beside what is of the inputs."""

    # using a model ---------------------------------------------------------------------------------------

    @abstractmethod
    def load_model(self, folder: Path) -> Model:
        """Return the model whose files are in ``folder``, or raise ``ModelNotFound``."""

    @abstractmethod
    def open_predictor(
        self,
        model: Model,
        folder: Path | None,
        *,
        threads: int | None = None,
        device: str | None = None,
        engine: str | None = None,
    ) -> Predictor:
        """Return a predictor; ``folder`` is where the model's engines are, if it has some."""

    def export_engines(self, model: Model, rows: Sequence[Row], labels: Sequence[Any]) -> Any:
        """Return ``model`` with other engines than torch, measured on labelled rows; by default itself.

        What is returned can be registered, and has ``engines``, which is ``None`` where there is only torch.
        """
        return model

    # baseline, drift -------------------------------------------------------------------------------------

    boosted: bool = False
    """Whether the plain model over these features is gradient boosting; otherwise it is linear."""

    @abstractmethod
    def make_featurizer(self, rows: Sequence[Row]) -> Any:
        """Return an unfitted transformer of scikit-learn from rows to numbers of about one size."""

    rows_noun: str = "records"
    """What rows are called, in the plural."""
    features_noun: str = "features"
    """What rows are told apart by, in the plural."""

    def make_domain_featurizer(self, rows: Sequence[Row]) -> Any:
        """Return the features by which new rows are told from old ones; by default those of the baseline.

        Those by which they are told are shown by their names (``get_feature_names_out``), where they have some.
        """
        return self.make_featurizer(rows)

    @abstractmethod
    def make_drift_series(self, rows: Sequence[Row]) -> list[DriftSeries]:
        """Return what is compared of old rows and new ones; that they can be told apart is looked at anyway."""

    # explanation -----------------------------------------------------------------------------------------

    not_explained: str = ""
    """Why rows are not explained, in one line; empty where they are."""

    def split_parts(self, row: Row, predictor: Predictor) -> RowParts:
        """Return the parts of a row that an explanation gives numbers to, with the tree over them.

        They are what the model reads of the row: the words of a text, as far as it reads it, or columns. What
        stands for a column that is left out (the median of the train split, say) is in the model's card, where
        ``assemble`` has put it.
        """
        raise NotImplementedError

    def attribute_parts(
        self,
        predictor: Predictor,
        rows: Sequence[Row],
        parts: Sequence[RowParts],
        target: Target,
        *,
        steps: int,
    ) -> list[PartAttributions]:
        """Return what each part of each row adds to each output, by gradients; by default there are none.

        Parameters
        ----------
        parts : sequence of RowParts
            Those of each row.
        target : Target
            ``activate_tensor`` makes outputs of what the network gives.
        steps : int
            Points on the way from no part to all.

        Raises
        ------
        ExplanationError
            When there are no gradients of this predictor; the message says what to do.
        """
        raise ExplanationError("There are no gradients of these rows. Explain with method 'partition'.")


class Target(ABC):
    """What a task predicts."""

    deciding_metric: str
    """The score of the valid split that chooses epochs and trials, such as ``val_f1``; more is better."""
    headline: str
    """The metric that is said first, such as ``accuracy``."""
    lower_is_better: frozenset[str] = frozenset()
    """The metrics of which less is better."""
    gate: type[Thresholds]
    """The section ``[gate]``: a dataclass that adds bounds to ``Thresholds``, all of its fields with defaults."""
    has_classes: bool = False
    """Whether a prediction is one class of several, so that MLflow's evaluator of classifiers can judge it."""

    # training --------------------------------------------------------------------------------------------

    @abstractmethod
    def learn_coding(self, labels: Sequence[Any]) -> Coding:
        """Return what the labels of the train split say of the outputs."""

    @abstractmethod
    def encode_labels(self, labels: Sequence[Any], coding: Coding) -> np.ndarray:
        """Return labels as what ``compute_loss`` takes, one row a label."""

    @abstractmethod
    def compute_loss(self, logits: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of what the network gives, (n, n_outputs), against encoded labels."""

    @abstractmethod
    def score_epoch(self, logits: torch.Tensor, encoded: torch.Tensor) -> dict[str, float]:
        """Return ``val_loss`` and other scores of the valid split, named ``val_...``, ``deciding`` among them."""

    @abstractmethod
    def measure_chance(self, encoded: np.ndarray) -> Chance:
        """Return what guessing gives on these encoded labels."""

    has_decision: bool = False
    """Whether ``learn_decision`` has something to say."""

    def learn_decision(self, outputs: Floats, encoded: np.ndarray, coding: Coding) -> dict[str, Any]:
        """Return what turns outputs into decisions: thresholds by label, how wide an interval is.

        It is kept in the model's card under ``decision``, with ``coding.more``, and counts for its digest.

        Parameters
        ----------
        outputs : array of shape (n_rows, n_outputs)
            Of the valid split, by the trained network.
        encoded : array of n_rows labels
            As ``encode_labels`` returns them.
        """
        return {}

    # predictions -----------------------------------------------------------------------------------------

    @abstractmethod
    def activate(self, logits: Floats, card: Mapping[str, Any]) -> Floats:
        """Return outputs from what the network gives, of some rows or of all: a softmax, say."""

    @abstractmethod
    def decide(self, outputs: Floats, card: Mapping[str, Any]) -> Sequence[Any]:
        """Return what is decided by each row of outputs, written as labels are: a class, labels, a number."""

    def measure_accuracy(self, outputs: Floats, labels: Sequence[Any], card: Mapping[str, Any]) -> float:
        """Return the share of rows that are decided right; by default those decided as their label is."""
        decided = self.decide(outputs, card)
        return sum(own == true for own, true in zip(decided, labels, strict=True)) / len(outputs)

    def measure_agreement(self, outputs: Floats, others: Floats, card: Mapping[str, Any]) -> float:
        """Return the share of rows on which two ways to compute outputs lead to the same decision."""
        pairs = zip(self.decide(outputs, card), self.decide(others, card), strict=True)
        return sum(own == other for own, other in pairs) / len(outputs)

    def get_output_scale(self, card: Mapping[str, Any]) -> float:
        """Return by what a difference of outputs is divided to be small or large; 1 for probabilities."""
        return 1.0

    output_kind: OutputKind = "numbers"
    """What outputs are: shares of a whole, a probability each, or numbers of any size."""

    def activate_tensor(self, logits: torch.Tensor, card: Mapping[str, Any]) -> torch.Tensor:
        """Return what ``activate`` does, in torch, so that it has gradients; by default there are none.

        Raises
        ------
        ExplanationError
            When there are no gradients of this target.
        """
        raise ExplanationError("There are no gradients of this target. Explain with method 'partition'.")

    @abstractmethod
    def list_prediction_fields(self) -> list[tuple[str, pa.DataType]]:
        """Return the columns of a predictions table that say what was predicted, the prediction itself first."""

    @abstractmethod
    def make_prediction_columns(self, outputs: Floats, card: Mapping[str, Any]) -> list[pa.Array]:
        """Return those columns for outputs, an array a column; every row has a prediction."""

    @abstractmethod
    def list_frame_fields(self, card: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return the columns that a registered model's ``predict`` returns, each with its MLflow type."""

    @abstractmethod
    def make_frame(self, outputs: Floats, card: Mapping[str, Any]) -> pd.DataFrame:
        """Return those columns for outputs; a row of NaN is that of a missing row, and has no prediction."""

    # evaluation ------------------------------------------------------------------------------------------

    @abstractmethod
    def fit_baseline(
        self, features: Any, rows: Sequence[Row], labels: Sequence[Any], *, seed: int, boosted: bool = False
    ) -> Baseline:
        """Return the plain model over ``features``, fitted: linear, or gradient boosting where ``boosted``."""

    @abstractmethod
    def evaluate(
        self,
        outputs: Floats,
        labels: Sequence[Any],
        *,
        names: Sequence[str],
        decision: Mapping[str, Any],
        row_ids: Sequence[str],
        shown: Sequence[str],
        seed: int = 0,
        resamples: int = 1000,
        worst: int = 20,
    ) -> Evaluation:
        """Return the scores of outputs against labels, each with its 95 % percentile bootstrap interval.

        Parameters
        ----------
        outputs : array of shape (n_rows, n_outputs)
        labels : sequence of n_rows labels, as the table has them
        names : sequence of n_outputs str
            Of the outputs.
        decision : mapping
            What turns outputs into decisions, as a model's card has it; empty where nothing does.
        row_ids, shown : sequences of n_rows str
            ``shown`` is each row as people read it, see ``Inputs.format_row``.
        seed, resamples : int
            The intervals are the same for the same seed.
        worst : int
            How many mistakes to keep.

        Raises
        ------
        EvaluationError
            When outputs and labels do not fit, or an output is not finite.
        """

    def find_known_rows(self, labels: Sequence[Any], names: Sequence[str]) -> tuple[Sequence[int], dict[str, int]]:
        """Return which rows a model can be judged on whose outputs have these names; by default all.

        Beside their places it returns the labels of the other rows, sorted, each with the number of its rows.
        """
        return range(len(labels)), {}

    def check_thresholds(self, thresholds: Thresholds, names: Sequence[str]) -> None:
        """Raise ``SettingError`` where ``thresholds`` name an output that is not among ``names``."""
        return None

    def make_checks(self, evaluation: Evaluation, thresholds: Thresholds) -> Iterator[Check]:
        """Yield what the gate asks beside comparing; by default the bounds, each against its metric."""
        yield from bound_checks(evaluation, thresholds)

    def describe(self, evaluation: Evaluation) -> str:
        """Return what a verdict says at its end, such as the recall of each class; empty for nothing."""
        return ""

    def measure_recalls(self, evaluation: Evaluation) -> Mapping[str, float]:
        """Return the share of each label's rows that is right; by default nothing, since a number has no label."""
        return {}

    def draw_figures(self, evaluation: Evaluation, baseline: Evaluation) -> list[tuple[str, Figure]]:
        """Return pictures of an evaluation beside its baseline's, each with its caption first."""
        return []

    # monitoring ------------------------------------------------------------------------------------------

    @abstractmethod
    def make_prediction_series(self, predictions: pa.Table) -> list[DriftSeries]:
        """Return what is compared of predictions, of the columns that ``list_prediction_fields`` names."""

    def score_predictions(self, predictions: pa.Table, labels: Sequence[Any]) -> list[float]:
        """Return a number for each prediction beside its label: by default 1 where they are equal and 0 elsewhere.

        Parameters
        ----------
        predictions : pyarrow.Table
            The columns that ``list_prediction_fields`` names, the prediction itself first.
        labels : sequence of n_rows labels
        """
        predicted = predictions.column(self.list_prediction_fields()[0][0]).to_pylist()
        return [float(own == true) for own, true in zip(predicted, labels, strict=True)]

    def compare_quality(self, scores: Sequence[float], test_scores: Sequence[float]) -> Quality:
        """Return how good new rows are beside the test split, by their scores: by default the share that is 1."""
        return compare_shares(int(sum(scores)), len(scores), int(sum(test_scores)), len(test_scores))
